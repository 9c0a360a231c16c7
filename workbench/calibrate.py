"""One pass over the calibration data that every post-training method and prediction lives on."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.architectures import backbone, text_inputs
from workbench.errors import CalibrationError, ConfigError
from workbench.layers import LinearGroup, shared_inputs
from workbench.listening import listening
from workbench.models import LoadedModel
from workbench.products import add_gram, fast_products, mirror
from workbench.progress import SILENT, Monitor
from workbench.statistics import GroupStatistics, InputStatistics

if TYPE_CHECKING:
    from workbench.tasks import Task

FORMAT_VERSION = 2
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


class CalibrationInputs:
    """Forward inputs to calibrate with, in place of a task: images, or inputs of your own making.

    Four fifths of the batches, the first ones, are what solvers see; the rest judges.

    Parameters
    ----------
    batches : sequence of mapping of str to Tensor
        Each is given to the model's forward pass as keyword arguments, such as
        ``{"pixel_values": (images, channels, height, width)}`` or ``{"input_ids": …,
        "attention_mask": …, "decoder_input_ids": …}``. An attention mask says which positions are
        padding and do not count; without one, all do. Two masks of one shape must be equal.
    name : str
        For messages.

    Raises
    ------
    ConfigError
        If there are fewer than two batches, or one holds something else than tensors.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]], name: str = "inputs") -> None:
        self.name = name
        self.batches = tuple(dict(batch) for batch in batches)
        values = [value for batch in self.batches for value in batch.values()]
        if len(self.batches) < 2 or not all(isinstance(value, Tensor) for value in values):
            raise ConfigError(
                f"CalibrationInputs: {len(self.batches)} batches are given; give at least two, each"
                ' a dict of tensors such as {"pixel_values": images}.'
            )

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of every tensor."""
        digest = hashlib.sha256()
        for batch in self.batches:
            for name, tensor in sorted(batch.items()):
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


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
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self._folder = folder
        self.key: str = meta["key"]
        self.n_tokens: dict[str, int] = meta["n_tokens"]
        self.groups = tuple(
            LinearGroup(**{**group, "names": tuple(group["names"])}) for group in meta["groups"]
        )
        self._rows: dict[str, list[int]] = meta["group_tokens"]
        self._index = {group.key: i for i, group in enumerate(self.groups)}
        self._opened: dict[str, GroupStatistics] = {}
        self.outputs: dict[str, float] = {}

    def __getitem__(self, key: str) -> GroupStatistics:
        """Return the statistics at the shared input of a group, by the group's key."""
        if key not in self._opened:
            index = self._index[key]
            k = self.groups[index].in_features
            halves = {}
            for half in _HALVES:
                path = self._folder / f"{index:04d}.{half}.f32"
                gram, abs_sum = _mapped(path, k, shared=False)
                halves[half] = InputStatistics(gram, abs_sum, self._rows[half][index])
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

    def judge_batches(self, model: LoadedModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield token ids and attention masks of the judge half, each (windows, tokens), int64."""
        for batch in _batches(model, self.windows(model)["judge"], self.options):
            yield batch["input_ids"], batch["attention_mask"]

    def windows(self, model: LoadedModel) -> dict[str, list[list[int]]]:
        """Return the token ids of the ``"solve"`` and the ``"judge"`` half, one list per window.

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
        return _windows(model, self.task, self.options)

    def batches(self, model: LoadedModel) -> dict[str, list[dict[str, Tensor]]]:
        """Return the forward inputs of the ``"solve"`` and the ``"judge"`` half, on the CPU.

        Raises
        ------
        CalibrationError
            If the calibration part has too few tokens.
        """
        return _halves(model, self.task, self.options)


def _mapped(path: Path, k: int, *, shared: bool) -> tuple[Tensor, Tensor]:
    flat = torch.from_file(str(path), shared=shared, size=k * k + k, dtype=torch.float32)
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
    if (target / "meta.json").exists():
        return Statistics(target)
    halves = _halves(model, task, options)
    groups = shared_inputs(model.hf_model)
    # Named by this process, so that two of them calibrating at once cannot mix their sums.
    building = folder / f".{key}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    building.mkdir(parents=True)
    try:
        counts = _collect(model, groups, halves, building, monitor)
        meta = {
            "version": FORMAT_VERSION,
            "key": key,
            "options": asdict(options),
            "n_tokens": {
                half: _count(batches) or counts[half][0] for half, batches in halves.items()
            },
            "group_tokens": counts,
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


def _key(model: LoadedModel, task: Task | CalibrationInputs, options: CalibrationOptions) -> str:
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


def _halves(
    model: LoadedModel, task: Task | CalibrationInputs, options: CalibrationOptions
) -> dict[str, list[dict[str, Tensor]]]:
    """Return the batches of both halves as the model's forward pass takes them."""
    if isinstance(task, CalibrationInputs):
        split = max(1, len(task.batches) * 4 // 5)
        return {"solve": list(task.batches[:split]), "judge": list(task.batches[split:])}
    windows = _windows(model, task, options)
    return {half: list(_batches(model, rows, options)) for half, rows in windows.items()}


def _batches(
    model: LoadedModel, rows: list[list[int]], options: CalibrationOptions
) -> Iterator[dict[str, Tensor]]:
    """Yield rows of similar length together, at most ``batch_tokens`` with padding."""
    batch: list[list[int]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > options.batch_tokens:
            yield _padded(model, batch)
            batch = []
        batch.append(row)
    if batch:
        yield _padded(model, batch)


def _padded(model: LoadedModel, batch: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return text_inputs(model.hf_model, ids, mask)


def _count(batches: list[dict[str, Tensor]]) -> int:
    """Return the tokens of batches of text, zero for others."""
    total = 0
    for batch in batches:
        if "attention_mask" in batch:
            total += int(batch["attention_mask"].sum())
        elif "input_ids" in batch:
            total += batch["input_ids"].numel()
    return total


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
        sink = InputSums(sums)
        with fast_products(), listening(hf_model, groups, sink.add):
            for batch in batches:
                sink.begin_batch(batch)
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


class InputSums:
    """Adds the inputs of every group to its sums, without padded positions.

    A layer that is called several times in one pass adds what it is given each time. Padding is
    left out where an input has the positions of an attention mask; an input of another shape
    (DeBERTa's table of relative positions) is counted whole.
    """

    def __init__(self, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        self._sums = sums
        self._masks: list[Tensor] = []
        self.counts = dict.fromkeys(sums, 0)

    def begin_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Take the forward inputs whose layer inputs come next."""
        masks = [batch[n] for n in ("attention_mask", "decoder_attention_mask") if n in batch]
        self._masks = [mask.bool().cpu() for mask in masks if mask.ndim == 2]
        if len(self._masks) == 2 and self._masks[0].shape == self._masks[1].shape:
            if not torch.equal(*self._masks):
                raise CalibrationError(
                    "The attention masks of encoder and decoder have one shape and different"
                    " padding, so a layer's padding cannot be told. Pad the decoder's tokens by"
                    " one more."
                )
            self._masks.pop()

    def add(self, key: str, x: Tensor, tokens: Tensor | None = None) -> None:
        """Add one input of a group; see :class:`workbench.listening.Listener`."""
        rows = x.reshape(-1, x.shape[-1]).float()
        kept = self._kept(x.shape[:-1], None if tokens is None else tokens.cpu())
        if kept is not None:
            rows = rows[kept.to(rows.device)]
        gram, abs_sum = self._sums[key]
        add_gram(gram, rows)
        abs_sum.add_(rows.abs().sum(0).to(abs_sum.device))
        self.counts[key] += len(rows)

    def finish(self) -> None:
        """Complete the sums after the last input: until then half of each gram is missing."""
        for gram, _ in self._sums.values():
            mirror(gram)

    def _kept(self, shape: torch.Size, tokens: Tensor | None) -> Tensor | None:
        """Return which rows are no padding, None for all of them."""
        for mask in self._masks:
            flat = len(shape) == 1 and shape[0] == mask.numel()
            if tokens is not None or flat or shape == mask.shape:
                kept = mask.reshape(-1) if tokens is None else mask.reshape(-1)[tokens]
                return None if bool(kept.all()) else kept
        return None
