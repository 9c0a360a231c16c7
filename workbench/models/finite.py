"""Numbers that are not finite: where they arise is named, and nothing is computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import NotFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADVICE = (
    "Nothing is measured with such numbers. Compute in more range (dtype='float32', or 'bfloat16'"
    " in place of 'float16'), compress less, or take another checkpoint."
)


def is_finite(tensor: Tensor) -> bool:
    """Return whether every number of a tensor is finite; one pass, and no copy."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor.detach())  # both are NaN where any number is
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_weight(name: str, weight: Tensor, how: str = "") -> None:
    """Raise NotFiniteError if a layer's weight holds numbers that are not finite.

    Parameters
    ----------
    name : str
        Of the layer, for the message.
    weight : Tensor
    how : str
        What made it so, as a clause such as ``"as 4-bit codes"``.
    """
    if not is_finite(weight):
        bad = int((~torch.isfinite(weight)).sum())
        what = f" {how}" if how else ""
        raise NotFiniteError(
            f"{bad:,} of {weight.numel():,} weights of {name} are not finite{what}. {ADVICE}"
        )


@contextmanager
def finite_outputs(hf_model: PreTrainedModel) -> Iterator[None]:
    """Let every call of a model fail whose output no answer can be read from.

    An output is usable where at each position that is no padding the largest number is finite;
    a class may be ruled out by minus infinity.

    Raises
    ------
    NotFiniteError
        Inside of the context, by the call; it names the first layer whose weight or output is not
        finite.
    """

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        found = _first_tensor(output)
        if found is not None and not _usable(found, kwargs):
            for handle in hooks:
                handle.remove()
            raise NotFiniteError(f"{_diagnosis(hf_model, module, args, kwargs)} {ADVICE}")

    # A head of our own stands on the backbone, which is called without the whole then.
    called: set[nn.Module] = {hf_model, hf_model.base_model}
    hooks = [module.register_forward_hook(hook, with_kwargs=True) for module in called]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _first_tensor(output: Any) -> Tensor | None:
    """Return a model's or a layer's main output: logits before hidden states."""
    if isinstance(output, Mapping):
        values: Any = [output.get("logits"), *output.values()]
    else:
        values = output if isinstance(output, (tuple, list)) else [output]
    tensors = (v for v in values if isinstance(v, Tensor) and v.is_floating_point())
    return next((v for v in tensors if v.ndim), None)


def _usable(output: Tensor, inputs: Mapping[str, Any]) -> bool:
    if not output.numel():
        return True
    best = output.detach().amax(-1)
    good = torch.isfinite(best)
    if bool(good.all()):
        return True
    written = inputs.get("decoder_input_ids") is not None
    mask = inputs.get("decoder_attention_mask" if written else "attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == best.ndim == 2 and len(mask) == len(best):
        mask = mask[:, -best.shape[1] :]  # of what was written before, a cache has the rest
        if mask.shape == best.shape:
            good |= mask == 0
    return bool(good.all())


@torch.no_grad()
def _diagnosis(
    hf_model: PreTrainedModel, called: nn.Module, args: Any, kwargs: dict[str, Any]
) -> str:
    """Return a sentence that names the first layer of a failing call that is not finite."""
    start = f"The outputs of {type(hf_model).__name__} are not finite:"
    for name, tensor in hf_model.named_parameters():
        if not is_finite(tensor):
            return f"{start} the weight {name} is not."
    found: list[str] = []
    names = {module: name for name, module in hf_model.named_modules() if name}

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        first = _first_tensor(output)
        if not found and first is not None and not is_finite(first):
            found.append(names[module])

    hooks = [m.register_forward_hook(hook) for m in names if not list(m.children())]
    try:
        called(*args, **kwargs)
    finally:
        for handle in hooks:
            handle.remove()
    where = f"{found[0]} is the first layer whose output is not" if found else "no layer alone is"
    return f"{start} {where}, computed in {str(hf_model.dtype).removeprefix('torch.')}."
