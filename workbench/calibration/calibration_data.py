"""What is read in calibration: windows of a task's text in two halves, or inputs of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import CalibrationError, ConfigError
from workbench.models.architectures import text_inputs
from workbench.models.load import LoadedModel

if TYPE_CHECKING:
    from workbench.tasks import Task

_LEAST_TOKENS = 64


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

    Four fifths of the batches, the first ones, are what solvers see; the rest judges::

        data = CalibrationInputs([{"pixel_values": images} for images in batches])
        calibrator = Calibrator(data, folder=Path("statistics"))
        result = compress(load_model(vit), Recipe.of(GPTQ(4)), calibrator)

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


def take_windows(
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
    if len(rows) == 1 and options.judge_tokens:  # one long window: its end judges
        cut = len(rows[0]) * 4 // 5
        rows = [rows[0][:cut], rows[0][cut:]]
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
    if options.judge_tokens and not halves["judge"]:  # few windows of equal length
        halves["judge"].append(halves["solve"].pop())
    return halves


def take_batches(
    model: LoadedModel, task: Task | CalibrationInputs, options: CalibrationOptions
) -> dict[str, list[dict[str, Tensor]]]:
    """Return the batches of both halves as the model's forward pass takes them."""
    if isinstance(task, CalibrationInputs):
        split = max(1, len(task.batches) * 4 // 5)
        return {"solve": list(task.batches[:split]), "judge": list(task.batches[split:])}
    windows = take_windows(model, task, options)
    return {half: list(pad_windows(model, rows, options)) for half, rows in windows.items()}


def pad_windows(
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


def count_tokens(batches: list[dict[str, Tensor]]) -> int:
    """Return the tokens of batches of text, zero for others."""
    total = 0
    for batch in batches:
        if "attention_mask" in batch:
            total += int(batch["attention_mask"].sum())
        elif "input_ids" in batch:
            total += batch["input_ids"].numel()
    return total
