"""One pass over the calibration data that every post-training method and prediction lives on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.atomic_files import FileIdentity, identity_of
from workbench.calibration.calibration_data import (
    CalibrationInputs,
    CalibrationOptions,
    count_tokens,
    take_batches,
    take_examples,
    token_masks,
)
from workbench.calibration.input_sums import InputSums
from workbench.errors import CalibrationError
from workbench.models.architectures import backbone
from workbench.models.input_hooks import listening
from workbench.models.layers import LinearGroup, shared_inputs
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import Batch, Example, batches_of
from workbench.tensors.memory_mapped import build_folder, mapped_floats, read_meta
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import GroupStatistics, InputStatistics

if TYPE_CHECKING:
    from workbench.tasks import Task

__all__ = [
    "CalibrationInputs",
    "CalibrationOptions",
    "Calibrator",
    "InputSums",
    "Statistics",
    "calibrate",
]

FORMAT_VERSION = 2
_HALVES = ("solve", "judge")


class Statistics:
    """The statistics of one model on one task, memory-mapped from a folder.

    Attributes
    ----------
    key : str
        Depends on everything that changes the numbers.
    groups : tuple of LinearGroup
    n_tokens : dict of str to int
        Tokens (for images: positions) in the ``"solve"`` and the ``"judge"`` half. What entered a
        group is counted in its own statistics: fewer for an expert, more for a layer that is
        called twice.
    outputs : dict of str to float
        Squared outputs of the dense layers on the judge half, as far as they were needed yet.
    """

    def __init__(self, folder: Path) -> None:
        meta = read_meta(folder)
        self._folder = folder
        self.key: str = meta["key"]
        self.n_tokens: dict[str, int] = meta["n_tokens"]
        self.groups = tuple(
            LinearGroup(**{**group, "names": tuple(group["names"])}) for group in meta["groups"]
        )
        self._rows: dict[str, list[int]] = meta["group_tokens"]
        self._index = {group.key: i for i, group in enumerate(self.groups)}
        self._opened: dict[str, tuple[list[FileIdentity], GroupStatistics]] = {}
        self.outputs: dict[str, float] = {}

    def __getitem__(self, key: str) -> GroupStatistics:
        """Return the statistics at the shared input of a group, by the group's key."""
        index = self._index[key]
        paths = {half: self._folder / f"{index:04d}.{half}.f32" for half in _HALVES}
        files = [identity_of(path) for path in paths.values()]
        if (
            key not in self._opened or self._opened[key][0] != files
        ):  # cut off, what is mapped kills
            halves = {}
            for half, path in paths.items():
                gram, abs_sum = _mapped(path, self.groups[index].in_features, shared=False)
                halves[half] = InputStatistics(gram, abs_sum, self._rows[half][index])
            self._opened[key] = files, GroupStatistics(halves["solve"], halves["judge"])
        return self._opened[key][1]

    def release(self, key: str) -> None:
        """Forget a group's tensors and factors; they are mapped again when asked for."""
        self._opened.pop(key, None)

    @property
    def factor_bytes(self) -> int:
        """Bytes that one cached factor of every group would take in memory."""
        return sum(4 * g.in_features**2 for g in self.groups)


class Calibrator:
    """Collects statistics of any model on one task, once per model, and keeps them at hand.

    Parameters
    ----------
    task : Task or CalibrationInputs
        Its calibration part is read.
    options : CalibrationOptions, optional
    folder : Path
        A cache on disk, see :func:`calibrate`.
    """

    def __init__(
        self,
        task: Task | CalibrationInputs,
        options: CalibrationOptions | None = None,
        *,
        folder: Path,
    ) -> None:
        self.task = task
        self.options = options or CalibrationOptions()
        self.folder = folder
        self._known: dict[str, Statistics] = {}

    def has(self, model: LoadedModel) -> bool:
        """Return whether the model's statistics are there without reading any data."""
        return model.fingerprint in self._known

    def statistics(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> Statistics:
        """Return a bound model's statistics, collecting them if need be; see :func:`calibrate`."""
        if not self.has(model):
            self._known[model.fingerprint] = calibrate(
                model, self.task, self.options, folder=self.folder, monitor=monitor
            )
        return self._known[model.fingerprint]

    def judge_batches(self, model: LoadedModel) -> Iterator[Batch]:
        """Yield the judge half as the task's own batches."""
        return batches_of(model, self.examples(model)["judge"], self.options.batch_tokens)

    def windows(self, model: LoadedModel) -> dict[str, list[list[int]]]:
        """Return the token ids of the ``"solve"`` and the ``"judge"`` half, one list per window."""
        halves = self.examples(model)
        return {half: [row.tokens for row in rows] for half, rows in halves.items()}

    def examples(self, model: LoadedModel) -> dict[str, list[Example]]:
        """Return the windows of the ``"solve"`` and the ``"judge"`` half.

        Raises
        ------
        CalibrationError
            If the calibration part has too few tokens, or is not made of tokens.
        """
        if isinstance(self.task, CalibrationInputs):
            raise CalibrationError(
                f"The calibration data {self.task.name!r} are tensors, not rows of tokens; this"
                " needs a task."
            )
        return take_examples(model, self.task, self.options)

    def batches(self, model: LoadedModel) -> dict[str, list[dict[str, Tensor]]]:
        """Return the forward inputs of the ``"solve"`` and the ``"judge"`` half, on the CPU.

        Raises
        ------
        CalibrationError
            If the calibration part has too few tokens.
        """
        return take_batches(model, self.task, self.options)


def _mapped(path: Path, k: int, *, shared: bool) -> tuple[Tensor, Tensor]:
    flat = mapped_floats(path, [k * k + k], shared=shared)
    return flat[: k * k].view(k, k), flat[k * k :]


def calibrate(
    model: LoadedModel,
    task: Task | CalibrationInputs,
    options: CalibrationOptions | None = None,
    *,
    folder: Path,
    monitor: Monitor = SILENT,
) -> Statistics:
    """Collect the statistics of every shared input in one pass, or reopen them.

    Parameters
    ----------
    model : LoadedModel
        Dense, and bound to the task. Not changed.
    task : Task or CalibrationInputs
        Its calibration part is read.
    options : CalibrationOptions, optional
    folder : Path
        A cache; the statistics are written below ``folder / key`` when complete.
    monitor : Monitor
        Reports stage ``"calibrate"`` by batches; cancelling leaves nothing behind.

    Raises
    ------
    CalibrationError
        If the calibration part has too few tokens, or gives values that are not finite.
    """
    options = options or CalibrationOptions()
    key = _key(model, task, options)
    target = folder / key

    def build(building: Path) -> dict[str, Any]:
        halves = take_batches(model, task, options)
        groups = shared_inputs(model.hf_model)
        counts = _collect(model, groups, halves, building, monitor)
        return {
            "version": FORMAT_VERSION,
            "key": key,
            "options": asdict(options),
            "n_tokens": {
                half: count_tokens(batches) or counts[half][0] for half, batches in halves.items()
            },
            "group_tokens": counts,
            "groups": [asdict(group) for group in groups],
        }

    build_folder(target, build)
    return Statistics(target)


def _key(model: LoadedModel, task: Task | CalibrationInputs, options: CalibrationOptions) -> str:
    parts = {
        "version": FORMAT_VERSION,
        "model": model.fingerprint,
        "compute_dtype": str(_computed_in(model)),
        "task": task.fingerprint,
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _computed_in(model: LoadedModel) -> torch.dtype:
    return model.dtype if model.streaming else next(model.hf_model.parameters()).dtype


@torch.no_grad()
def _collect(
    model: LoadedModel,
    groups: tuple[LinearGroup, ...],
    halves: dict[str, list[dict[str, Tensor]]],
    folder: Path,
    monitor: Monitor,
) -> dict[str, list[int]]:
    """Write the sums of both halves, and return how many rows entered each group."""
    hf_model = model.hf_model
    run = backbone(hf_model)
    # Keys and values of earlier tokens are of no use where whole windows are read at once.
    takes_cache = "use_cache" in inspect.signature(run.forward).parameters
    options = {"use_cache": False} if takes_cache else {}
    total = sum(map(len, halves.values()))
    done = 0
    counts = {}
    for half, batches in halves.items():
        sums = {}
        for index, group in enumerate(groups):
            path = folder / f"{index:04d}.{half}.f32"
            sums[group.key] = _mapped(path, group.in_features, shared=True)
        sink = InputSums(sums, {group.key: group.side for group in groups})
        with fast_products(), listening(hf_model, groups, sink.add):
            for batch in batches:
                sink.begin_batch(token_masks(batch))
                inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
                run(**inputs, **options)
                done += 1
                monitor.report("calibrate", done, total, half)
        sink.finish()
        for key, (gram, _) in sums.items():
            if not bool(torch.isfinite(gram).all()):
                raise CalibrationError(
                    f"The inputs of {key} are not finite on the calibration data. Load the model"
                    ' with dtype="float32", or check it with model.generate(...).'
                )
        counts[half] = [sink.counts[group.key] for group in groups]
    return counts
