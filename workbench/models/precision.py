"""Which tensors stay in float32 where a model computes, or is stored, in 16 bits."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from workbench.models.architectures import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def loading_dtypes(hf_model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return what transformers' own loading in a dtype gives every tensor, by name.

    A class may keep some tensors in float32, such as the biases of routers: those that its
    ``_keep_in_fp32_modules`` (for float16) and ``_keep_in_fp32_modules_strict`` (for both 16-bit
    formats) match, and those that its constructor makes so. Integers keep their dtype. Buffers that
    are not stored are among them where a constructor makes them in the dtype of the model.

    Parameters
    ----------
    hf_model : PreTrainedModel
        Not changed; its own dtypes do not matter.
    dtype : torch.dtype
        What ``from_pretrained(dtype=...)`` would be given.
    """
    from transformers.initialization import meta_device_safe_creation_ops
    from transformers.modeling_utils import local_torch_dtype

    state = hf_model.state_dict()
    if dtype.itemsize > 2:
        return {n: dtype if t.is_floating_point() else t.dtype for n, t in state.items()}
    config = copy.deepcopy(hf_model.config)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:
            part.dtype = dtype
    with (
        torch.device("meta"),
        meta_device_safe_creation_ops(),
        local_torch_dtype(dtype),
        quiet(),
    ):
        empty = type(hf_model)(config)
    made = {n: t.dtype for n, t in (*empty.state_dict().items(), *empty.named_buffers())}
    plan = hf_model._get_dtype_plan(dtype)
    kept = {re.compile(name.replace("*", ".*")): wide for name, wide in plan.items()}
    dtypes = {n: t.dtype for n, t in state.items()}
    for name in (n for n, t in state.items() if t.is_floating_point()):
        matched = (wide for pattern, wide in kept.items() if pattern.search(name))
        dtypes[name] = next(matched, made.get(name, dtype))
    for name, buffer in hf_model.named_buffers():
        if name not in state and buffer.is_floating_point():
            dtypes[name] = made.get(name, buffer.dtype)
    return dtypes


def kept_wide(hf_model: PreTrainedModel, dtype: torch.dtype) -> frozenset[str]:
    """Return the :func:`generic_name` of what stays in float32 if a model is stored in a dtype."""
    stored = hf_model.state_dict()
    return frozenset(
        generic_name(name)
        for name, own in loading_dtypes(hf_model, dtype).items()
        if name in stored and own == torch.float32 != dtype
    )


def wider_than(hf_model: PreTrainedModel, dtype: torch.dtype) -> frozenset[str]:
    """Return the :func:`generic_name` of the tensors that rounding to a dtype would change."""
    return frozenset(generic_name(name) for name in _changed(hf_model, dtype))


def _changed(hf_model: PreTrainedModel, dtype: torch.dtype) -> Iterator[str]:
    for name, tensor in hf_model.state_dict().items():
        if tensor.is_floating_point() and not torch.equal(tensor.to(dtype).to(tensor), tensor):
            yield name


def generic_name(name: str) -> str:
    """Return a tensor's name with its numbers left out: the same for every block."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
