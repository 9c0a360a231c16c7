"""Hear what enters the linear layers, experts included, while a model runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.layers import LinearGroup
from workbench.sites import WeightSite, find_site


class Listener(Protocol):
    """What is called back with every input of a group."""

    def __call__(self, key: str, x: Tensor, tokens: Tensor | None = None) -> None:
        """Take one input.

        Parameters
        ----------
        key : str
            Of the group.
        x : Tensor of shape (..., in_features)
            Where ``tokens`` is None, as the layer was given it.
        tokens : Tensor of shape (rows,), int64, optional
            For an expert: which of the batch's (batch * tokens) positions the rows of ``x`` are.
        """


@contextmanager
def listening(
    hf_model: nn.Module, groups: Sequence[LinearGroup], callback: Listener
) -> Iterator[None]:
    """Call back with the inputs of each group's first layer while the context is open.

    A layer that is called several times in one pass calls back each time. What enters an expert
    is worked out from the routing, so the model may run its experts with any kernel; the product
    with the first matrix is computed once more for it.
    """
    hooks = []
    experts: dict[nn.Module, list[tuple[str, WeightSite]]] = {}
    for group in groups:
        site = find_site(hf_model, group.key)
        if site.index is None:
            hook = _linear_hook(group.key, callback)
            hooks.append(site.owner.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            experts.setdefault(site.owner, []).append((group.key, site))
    for module, sites in experts.items():
        hook = _experts_hook(sites, callback)
        hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _linear_hook(key: str, callback: Listener) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        callback(key, args[0] if args else next(iter(kwargs.values())))

    return hook


def _experts_hook(sites: list[tuple[str, WeightSite]], callback: Listener) -> Any:
    """Return a hook for transformers' fused experts: forward(hidden states, indices, weights)."""
    keys = {(site.index or 0, site.parameter): key for key, site in sites}

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        _, hidden, routing, *_ = bound.arguments.values()
        hidden = hidden.reshape(-1, hidden.shape[-1])
        routing = routing.reshape(len(hidden), -1)
        first = "gate_up_proj" if module.has_gate else "up_proj"
        for expert in sorted({index for index, _ in keys}):
            tokens = (routing == expert).any(-1).nonzero().squeeze(-1)
            if not len(tokens):
                continue
            x = hidden[tokens]
            if (expert, first) in keys:
                callback(keys[expert, first], x, tokens)
            if (expert, "down_proj") in keys:
                callback(keys[expert, "down_proj"], _between(module, first, expert, x), tokens)

    return hook


@torch.no_grad()
def _between(module: Any, first: str, expert: int, x: Tensor) -> Tensor:
    """Return what enters an expert's second matrix."""
    weight = getattr(module, first)[expert]
    y = x @ (weight if module.is_transposed else weight.T)
    if module.has_bias:
        y = y + getattr(module, f"{first}_bias")[expert]
    result: Tensor = module._apply_gate(y) if module.has_gate else module.act_fn(y)
    return result
