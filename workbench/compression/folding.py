"""Let the layer before a group absorb the group's input scales (AWQ), where that is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.models.layers import LinearGroup
from workbench.models.load import LoadedModel
from workbench.models.scale_folding import FoldTarget, find_fold


def fold_input_scales(model: LoadedModel, group: LinearGroup, facts: dict[str, Any]) -> None:
    """Let the layer before absorb a group's input scales where that is exact.

    A norm's weight and bias, or the rows of the linear layer before, are divided by the scales;
    for a quantized layer that is a change of its own scales, so its codes stay as they are, and
    for a corrected one of its low-rank product as well.
    """
    members = {name: model.weights[name] for name in group.names if name in model.weights}
    scales = [m.input_scales for m in members.values() if m.input_scales is not None]
    if not scales:
        return
    # Every reader of the divided input must expect it divided by the same.
    shared = len(scales) == len(group.names) and all(torch.equal(s, scales[0]) for s in scales)
    found = find_fold(model.hf_model, group) if shared else None
    if found is None or not _divide_producer(model, found, scales[0].float()):
        facts["scales_stored"] = facts.get("scales_stored", 0) + 1
        return
    for name, member in members.items():
        model.set_weight(name, member.without_input_scales())
    facts["scales_folded"] = facts.get("scales_folded", 0) + 1


def _divide_producer(model: LoadedModel, target: FoldTarget, scales: Tensor) -> bool:
    """Divide the outputs of the layer before; return False, with nothing changed, if it cannot."""
    divisor = target.divisor(scales)
    compressed = model.weights.get(target.name)
    owner = model.site(target.name).owner
    if compressed is not None:
        divided = compressed.rows_divided(divisor)
        if divided is None:
            return False
        model.set_weight(target.name, divided)
    elif target.is_norm:
        _divide(owner.weight, divisor, model.stored_dtype, target.offset)
    else:
        return False
    if isinstance(bias := getattr(owner, "bias", None), Tensor):
        _divide(bias, divisor, model.stored_dtype)
    return True


def _divide(parameter: object, divisor: Tensor, dtype: torch.dtype, offset: float = 0.0) -> None:
    """Divide a parameter, plus its offset, in place, rounded to what is stored."""
    assert isinstance(parameter, Tensor)
    parameter.copy_(((parameter.float() + offset) / divisor - offset).to(dtype))
