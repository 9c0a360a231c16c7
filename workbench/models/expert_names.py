"""The names that checkpoints give the matrices of single experts, which transformers stacks."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.models.weight_access import is_fused_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ExpertRows:
    """Where a checkpoint's matrix lies in the stacks of a model.

    Attributes
    ----------
    site : str
        Of one expert's matrix, see :mod:`workbench.models.weight_access`.
    start, stop : int
        Its rows in it: gate and up are one matrix there.
    """

    site: str
    start: int
    stop: int


def expert_rows(hf_model: PreTrainedModel) -> dict[str, ExpertRows]:
    """Return the rows of every expert's matrix by its name in a checkpoint, without ``.weight``.

    Found by letting transformers take stacks of row numbers apart, as it does when it saves.
    Stacks that it saves as they are, or that hold their matrices transposed, are left out.
    """
    from transformers.core_model_loading import revert_weight_conversion

    numbers: dict[str, Tensor] = {}
    stacks: list[tuple[int, str, int]] = []  # first number, name and rows of a matrix
    first = 0
    for owner, module in hf_model.named_modules():
        if not is_fused_experts(module) or module.is_transposed:
            continue
        for stack in ("gate_up_proj" if module.has_gate else "up_proj", "down_proj"):
            count, rows, _ = getattr(module, stack).shape
            name = f"{owner}.{stack}"
            numbers[name] = torch.arange(first, first + count * rows).reshape(count, rows, 1)
            stacks.append((first, name, rows))
            first += count * rows
    found = {}
    for name, tensor in revert_weight_conversion(hf_model, numbers).items():
        if tensor.ndim != 2:  # still a stack
            continue
        low, high = int(tensor[0]), int(tensor[-1])
        start_of, stack, rows = stacks[bisect_right(stacks, low, key=lambda found: found[0]) - 1]
        expert, start = divmod(low - start_of, rows)
        stop = start + len(tensor)
        if stop <= rows and torch.equal(tensor[:, 0], torch.arange(low, high + 1)):
            found[name.removesuffix(".weight")] = ExpertRows(f"{stack}.{expert}", start, stop)
    return found
