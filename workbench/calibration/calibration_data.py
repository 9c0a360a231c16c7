"""What is read in calibration: windows of a task's text in two halves, or inputs of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import CalibrationError, ConfigError
from workbench.fields import MOST_SEED, check_fields, option
from workbench.models.load import LoadedModel
from workbench.tasks.base import MOST_LENGTH, Example, batches_of

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

    solve_tokens: int = option(
        128 * 256,
        "Tokens whose statistics the solvers see.",
        unit="tokens",
        minimum=1,
        maximum=10**9,
        positional=True,
    )
    judge_tokens: int = option(
        32 * 256,
        "Further, disjoint tokens whose statistics predictions and error reports use; 0: none.",
        unit="tokens",
        minimum=0,
        maximum=10**9,
        positional=True,
    )
    sequence_length: int = option(
        256,
        "Tokens per window; longer examples are cut.",
        unit="tokens",
        minimum=2,
        maximum=MOST_LENGTH,
        positional=True,
    )
    batch_tokens: int = option(
        2048,
        "Tokens per forward pass, padding included.",
        unit="tokens",
        minimum=1,
        maximum=10**7,
        positional=True,
    )
    seed: int = option(
        0,
        "Of the order in which windows are taken.",
        minimum=0,
        maximum=MOST_SEED,
        positional=True,
    )

    def __post_init__(self) -> None:
        check_fields(self)


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
        padding and do not count; without one, all do.
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


def take_examples(
    model: LoadedModel, task: Task, options: CalibrationOptions
) -> dict[str, list[Example]]:
    """Take windows for both halves; with too few, keep four fifths for the solvers."""
    rows = task.calibration_examples(
        model, sequence_length=options.sequence_length, seed=options.seed
    )
    rows = [row for row in rows if row.tokens]
    available = sum(len(row.tokens) for row in rows)
    if available < _LEAST_TOKENS:
        raise CalibrationError(
            f"The calibration part of {task.name!r} has {available} tokens; at least"
            f" {_LEAST_TOKENS} are needed and {options.solve_tokens:,} are asked for. Give more"
            " or longer calibration texts."
        )
    if len(rows) == 1 and options.judge_tokens:  # one long window: its end judges
        tokens = rows[0].tokens
        cut = len(tokens) * 4 // 5
        rows = [Example(i, i, part) for i, part in enumerate((tokens[:cut], tokens[cut:]))]
    wanted = options.solve_tokens + options.judge_tokens
    share = options.solve_tokens / wanted
    solve_limit = min(options.solve_tokens, int(available * share))
    halves: dict[str, list[Example]] = {"solve": [], "judge": []}
    used = 0
    for row in rows:
        if used >= wanted:
            break
        halves["solve" if used < solve_limit else "judge"].append(row)
        used += len(row.tokens)
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
    halves = take_examples(model, task, options)
    return {
        half: [batch.inputs for batch in batches_of(model, rows, options.batch_tokens)]
        for half, rows in halves.items()
    }


def token_masks(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which tokens of a forward pass are real, by the side whose they are.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        By the names of the model's arguments.

    Returns
    -------
    dict of str to Tensor
        Keys as in :attr:`workbench.models.layers.LinearGroup.side`; int64, (rows, tokens). A side
        whose tokens all count because neither a mask nor ids say otherwise is left out.
    """
    found: dict[str, Tensor] = {}
    for sides, prefix in ((("", "encoder"), ""), (("decoder",), "decoder_")):
        mask = inputs.get(f"{prefix}attention_mask")
        ids = inputs.get(f"{prefix}input_ids")
        if mask is None and ids is not None:
            mask = torch.ones_like(ids)
        if mask is not None and mask.ndim == 2:
            found |= dict.fromkeys(sides, mask.cpu())
    return found


def count_tokens(batches: list[dict[str, Tensor]]) -> int:
    """Return the tokens of batches of text that a model (its encoder) reads, zero for others."""
    return sum(int(token_masks(batch)[""].sum()) for batch in batches if token_masks(batch))
