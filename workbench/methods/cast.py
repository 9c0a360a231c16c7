"""Cast: dense tensors in a 16-bit floating-point format."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.load import LoadedModel
from workbench.recipes import Cast, Step
from workbench.tensors.weights import CompressedWeight, CorrectedWeight, PrunedWeight


class Caster(ModelMethod):
    """Every dense tensor is rounded to the format that it is stored in from now on."""

    version: ClassVar[int] = 2

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, Cast)
        return ModelResult(_cast(model.copy(), config))


def _cast(model: LoadedModel, step: Cast) -> LoadedModel:
    """Round every dense tensor to the 16-bit format it is stored in from now on."""
    dtype = getattr(torch, step.dtype)
    # Buffers that are not stored, such as rotary frequencies, are made anew when a model is loaded.
    for tensor in model.hf_model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
    for name, weight in list(model.weights.items()):
        model.set_weight(name, _with_values_in(dtype, weight))
    head = model.head
    if head is not None:
        head = dataclasses.replace(
            head, weight=head.weight.to(dtype).float(), bias=head.bias.to(dtype).float()
        )
    return dataclasses.replace(model, stored_dtype=dtype, head=head)


def _with_values_in(dtype: torch.dtype, weight: CompressedWeight) -> CompressedWeight:
    """Return a weight with what it stores densely in another format; codes stay as they are."""
    if isinstance(weight, PrunedWeight):
        return dataclasses.replace(weight, values=weight.values.to(dtype))
    if isinstance(weight, CorrectedWeight):
        return dataclasses.replace(weight, base=_with_values_in(dtype, weight.base))
    return weight
