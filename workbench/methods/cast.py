"""Cast: dense tensors in a 16-bit floating-point format."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.finite import check_weight
from workbench.models.load import LoadedModel
from workbench.models.precision import generic_name, kept_wide
from workbench.recipes import Cast, Step
from workbench.tensors.weights import CompressedWeight, CorrectedWeight, PrunedWeight


class Caster(ModelMethod):
    """Every dense tensor is rounded to the format that it is stored in from now on.

    What the class keeps in float32 when transformers loads it in this format stays as it is.
    """

    step: ClassVar[type[Step]] = Cast
    version: ClassVar[int] = 3

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, Cast)
        return ModelResult(_cast(model.copy(), config))


def _cast(model: LoadedModel, step: Cast) -> LoadedModel:
    """Round every dense tensor to the 16-bit format it is stored in from now on."""
    dtype = getattr(torch, step.dtype)
    wide = kept_wide(model.hf_model, dtype)
    # Buffers that are not stored, such as rotary frequencies, are made anew when a model is loaded.
    for name, tensor in model.hf_model.state_dict().items():
        if tensor.is_floating_point() and generic_name(name) not in wide:
            tensor.copy_(_fitting(name, tensor, dtype))
    for name, weight in list(model.weights.items()):
        model.set_weight(name, _with_values_in(dtype, weight))
    head = model.head
    if head is not None:
        rows, bias = (_fitting("the head", t, dtype) for t in (head.weight, head.bias))
        head = dataclasses.replace(head, weight=rows.float(), bias=bias.float())
    return dataclasses.replace(model, stored_dtype=dtype, head=head, wide=wide)


def _fitting(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another format, or raise NotFiniteError if that overflows."""
    cast = tensor.to(dtype)
    check_weight(name, cast, f"in {str(dtype).removeprefix('torch.')}")
    return cast


def _with_values_in(dtype: torch.dtype, weight: CompressedWeight) -> CompressedWeight:
    """Return a weight with what it stores densely in another format; codes stay as they are."""
    if isinstance(weight, PrunedWeight):
        return dataclasses.replace(weight, values=weight.values.to(dtype))
    if isinstance(weight, CorrectedWeight):
        return dataclasses.replace(weight, base=_with_values_in(dtype, weight.base))
    return weight
