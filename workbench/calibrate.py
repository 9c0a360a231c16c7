"""One pass over the calibration data that every post-training method and prediction lives on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.errors import CalibrationError
from workbench.layers import LinearGroup, shared_inputs
from workbench.models import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.statistics import GroupStatistics, InputStatistics

if TYPE_CHECKING:
    from workbench.tasks import Task

FORMAT_VERSION = 1
_LEAST_TOKENS = 64
_HALVES = ("solve", "judge")


@dataclass(frozen=True)
class CalibrationOptions:
    """How much of the calibration data is read, and how.

    Attributes
    ----------
    solve_tokens : int
        Tokens whose statistics the solvers see.
    judge_tokens : int
        Further, disjoint tokens whose statistics predictions and error reports use.
    sequence_length : int
        Tokens per window; longer examples are cut.
    batch_tokens : int
        Tokens per forward pass, padding included.
    seed : int
        Of the order in which windows are taken.
    """

    solve_tokens: int = 128 * 256
    judge_tokens: int = 32 * 256
    sequence_length: int = 256
    batch_tokens: int = 2048
    seed: int = 0


class Statistics:
    """The statistics of one model on one task, memory-mapped from a folder.

    Attributes
    ----------
    key : str
        Depends on everything that changes the numbers.
    groups : tuple of LinearGroup
    n_tokens : dict of str to int
        Tokens in the ``"solve"`` and the ``"judge"`` half.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self._folder = folder
        self.key: str = meta["key"]
        self.n_tokens: dict[str, int] = meta["n_tokens"]
        self.groups = tuple(
            LinearGroup(g["key"], tuple(g["names"]), g["in_features"], g["block"])
            for g in meta["groups"]
        )
        self._index = {group.key: i for i, group in enumerate(self.groups)}
        self._opened: dict[str, GroupStatistics] = {}

    def __getitem__(self, key: str) -> GroupStatistics:
        """Return the statistics at the shared input of a group, by the group's key."""
        if key not in self._opened:
            index = self._index[key]
            k = self.groups[index].in_features
            halves = {}
            for half in _HALVES:
                path = self._folder / f"{index:04d}.{half}.f32"
                gram, abs_sum = _mapped(path, k, shared=False)
                halves[half] = InputStatistics(gram, abs_sum, self.n_tokens[half])
            self._opened[key] = GroupStatistics(halves["solve"], halves["judge"])
        return self._opened[key]

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
    task : Task
        Its calibration part is read.
    options : CalibrationOptions, optional
    folder : Path
        A cache on disk, see :func:`calibrate`.
    """

    def __init__(
        self, task: Task, options: CalibrationOptions | None = None, *, folder: Path
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

    def windows(self, model: LoadedModel) -> dict[str, list[list[int]]]:
        """Return the token ids of the ``"solve"`` and the ``"judge"`` half, one list per window.

        Raises
        ------
        CalibrationError
            If the calibration part has too few tokens.
        """
        return _windows(model, self.task, self.options)


def _mapped(path: Path, k: int, *, shared: bool) -> tuple[Tensor, Tensor]:
    flat = torch.from_file(str(path), shared=shared, size=k * k + k, dtype=torch.float32)
    return flat[: k * k].view(k, k), flat[k * k :]


def calibrate(
    model: LoadedModel,
    task: Task,
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
    task : Task
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
    if (target / "meta.json").exists():
        return Statistics(target)
    halves = _windows(model, task, options)
    groups = shared_inputs(model.hf_model)
    # Named by this process, so that two of them calibrating at once cannot mix their sums.
    building = folder / f".{key}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    building.mkdir(parents=True)
    try:
        _collect(model, groups, halves, options, building, monitor)
        meta = {
            "version": FORMAT_VERSION,
            "key": key,
            "options": asdict(options),
            "n_tokens": {half: sum(map(len, rows)) for half, rows in halves.items()},
            "groups": [asdict(group) for group in groups],
        }
        (building / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            building.replace(target)
        except OSError:  # another process was first; its numbers are the same
            if not (target / "meta.json").exists():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Statistics(target)


def _key(model: LoadedModel, task: Task, options: CalibrationOptions) -> str:
    parts = {
        "version": FORMAT_VERSION,
        "model": model.fingerprint,
        "compute_dtype": str(next(model.hf_model.parameters()).dtype),
        "task": task.fingerprint,
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _windows(
    model: LoadedModel, task: Task, options: CalibrationOptions
) -> dict[str, list[list[int]]]:
    """Take windows for both halves; with too few, keep four fifths for the solvers."""
    rows = task.calibration_windows(
        model, sequence_length=options.sequence_length, seed=options.seed
    )
    rows = [row for row in rows if row]
    available = sum(map(len, rows))
    if available < _LEAST_TOKENS:
        raise CalibrationError(
            f"The calibration part of {task.name!r} has {available} tokens; at least"
            f" {_LEAST_TOKENS} are needed and {options.solve_tokens:,} are asked for. Give more"
            " or longer calibration texts."
        )
    wanted = options.solve_tokens + options.judge_tokens
    share = options.solve_tokens / wanted
    solve_limit = min(options.solve_tokens, int(available * share))
    halves: dict[str, list[list[int]]] = {"solve": [], "judge": []}
    used = 0
    for row in rows:
        if used >= wanted:
            break
        halves["solve" if used < solve_limit else "judge"].append(row)
        used += len(row)
    return halves


def _batches(rows: list[list[int]], options: CalibrationOptions) -> Iterator[list[list[int]]]:
    """Yield rows of similar length together, at most ``batch_tokens`` with padding."""
    batch: list[list[int]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > options.batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _collect(
    model: LoadedModel,
    groups: tuple[LinearGroup, ...],
    halves: dict[str, list[list[int]]],
    options: CalibrationOptions,
    folder: Path,
    monitor: Monitor,
) -> None:
    hf_model = model.hf_model
    backbone = getattr(hf_model, "base_model", hf_model)
    device = next(hf_model.parameters()).device
    plan = [(half, list(_batches(rows, options))) for half, rows in halves.items()]
    total = sum(len(batches) for _, batches in plan)
    done = 0
    for half, batches in plan:
        sums = {}
        for index, group in enumerate(groups):
            path = folder / f"{index:04d}.{half}.f32"
            sums[group.key] = _mapped(path, group.in_features, shared=True)
        sink = _Sums(sums)
        with _listening(hf_model, groups, sink.add):
            for batch in batches:
                width = max(map(len, batch))
                ids = torch.zeros(len(batch), width, dtype=torch.long)
                mask = torch.zeros(len(batch), width, dtype=torch.long)
                for i, row in enumerate(batch):
                    ids[i, : len(row)] = torch.tensor(row)
                    mask[i, : len(row)] = 1
                sink.begin_batch(mask)
                backbone(input_ids=ids.to(device), attention_mask=mask.to(device))
                done += 1
                monitor.report("calibrate", done, total, half)
        for key, (gram, _) in sums.items():
            if not bool(torch.isfinite(gram).all()):
                raise CalibrationError(
                    f"The inputs of {key} are not finite on the calibration data. Load the model"
                    ' with dtype="float32", or check it with model.generate(...).'
                )


class _Sums:
    """Adds the inputs of every group to its sums, without padded positions."""

    def __init__(self, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        self._sums = sums
        self._kept: Tensor | None = None

    def begin_batch(self, mask: Tensor) -> None:
        """Take the attention mask, (batch, tokens), of the inputs to come."""
        self._kept = None if bool(mask.all()) else mask.reshape(-1).bool()

    def add(self, key: str, x: Tensor) -> None:
        """Add one input of shape (batch, tokens, in_features)."""
        rows = x.reshape(-1, x.shape[-1]).float().cpu()
        if self._kept is not None:
            rows = rows[self._kept]
        gram, abs_sum = self._sums[key]
        gram.addmm_(rows.T, rows)
        abs_sum.add_(rows.abs().sum(0))


class _listening:
    """Call back with the input of each group's first layer while the context is open."""

    def __init__(
        self,
        hf_model: nn.Module,
        groups: tuple[LinearGroup, ...],
        callback: Callable[[str, Tensor], None],
    ) -> None:
        self._hf_model, self._groups, self._callback = hf_model, groups, callback

    def __enter__(self) -> None:
        def hook_for(key: str) -> Callable[..., None]:
            return lambda _module, args: self._callback(key, args[0])

        self._hooks = [
            self._hf_model.get_submodule(group.key).register_forward_pre_hook(hook_for(group.key))
            for group in self._groups
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
