"""Let the layer before a group absorb the group's input scales (AWQ), where that is exact."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from workbench import layers
from workbench.models import LoadedModel
from workbench.weights import QuantizedWeight


def fold_input_scales(model: LoadedModel, group: layers.LinearGroup, facts: dict[str, Any]) -> None:
    """Let the layer before absorb a group's input scales where that is exact.

    A norm's weight and bias, or the rows of the linear layer before, are divided by the scales;
    for a quantized layer that is a change of its own scales, so its codes stay as they are.
    """
    members = [model.weights[name] for name in group.names]
    first = members[0]
    if not isinstance(first, QuantizedWeight) or first.input_scales is None:
        return
    found = layers.find_fold(model.hf_model, group)
    if found is None:
        facts["scales_stored"] = facts.get("scales_stored", 0) + 1
        return
    name, is_norm = found
    producer = model.hf_model.get_submodule(name)
    divisor = first.input_scales.float()
    compressed = model.weights.get(name)
    if isinstance(compressed, QuantizedWeight):
        scales = (compressed.scales.float() / divisor[:, None]).half()
        if not bool(torch.isfinite(scales).all()) or bool((scales == 0).any()):
            facts["scales_stored"] = facts.get("scales_stored", 0) + 1
            return
        model.set_weight(name, dataclasses.replace(compressed, scales=scales))
    elif is_norm:
        _divide(producer.weight, divisor, model.stored_dtype)
    else:
        facts["scales_stored"] = facts.get("scales_stored", 0) + 1
        return
    if isinstance(bias := getattr(producer, "bias", None), Tensor):
        _divide(bias, divisor, model.stored_dtype)
    for member_name, member in zip(group.names, members, strict=True):
        assert isinstance(member, QuantizedWeight)
        model.set_weight(member_name, dataclasses.replace(member, input_scales=None))
    facts["scales_folded"] = facts.get("scales_folded", 0) + 1


def _divide(parameter: object, divisor: Tensor, dtype: torch.dtype) -> None:
    """Divide a parameter in place, rounded to what is stored."""
    assert isinstance(parameter, Tensor)
    parameter.copy_((parameter.float() / divisor).to(dtype))
