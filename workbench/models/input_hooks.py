"""Hear what enters the linear layers, experts included, while a model runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.models.layers import LinearGroup
from workbench.models.weight_access import WeightSite, find_site, is_fused_experts


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


class ExpertsListener(Protocol):
    """What is called back with every output of an expert's matrix."""

    def __call__(self, name: str, y: Tensor, tokens: Tensor) -> None:
        """Take one output.

        Parameters
        ----------
        name : str
            Of the expert's matrix.
        y : Tensor of shape (rows, out_features)
            Part of the autograd graph where gradients are enabled.
        tokens : Tensor of shape (rows,), int64
            Which of the batch's (batch * tokens) positions the rows are.
        """


@contextmanager
def hearing_experts(hf_model: nn.Module, callback: ExpertsListener) -> Iterator[None]:
    """Run fused experts one after the other, and call back with the output of every matrix.

    A fused kernel computes the outputs of all experts in one tensor that nothing outside of it
    sees; gradients at one expert's output need it apart. Slower, with the same result up to
    rounding.
    """
    found = [(n, m) for n, m in hf_model.named_modules() if is_fused_experts(m)]
    before = {m: vars(m)["forward"] for _, m in found if "forward" in vars(m)}
    for name, module in found:
        module.forward = partial(_run_experts, name, module, callback)
    try:
        yield
    finally:
        for _, module in found:
            del module.forward  # the class's own again
            if module in before:  # another library had replaced it
                module.forward = before[module]


def _run_experts(
    name: str, module: Any, callback: ExpertsListener, *args: Any, **kwargs: Any
) -> Tensor:
    given, routing, weights = _routed(module, args, kwargs)
    hidden = given.reshape(-1, given.shape[-1])
    result = torch.zeros_like(hidden)
    first = _first_stack(module)
    for expert in range(module.num_experts):
        chosen = routing == expert
        tokens = chosen.any(-1).nonzero().squeeze(-1)
        if not len(tokens):
            continue
        y = _product(module, first, expert, hidden[tokens])
        callback(f"{name}.{first}.{expert}", y, tokens)
        z = _product(module, "down_proj", expert, _activated(module, y))
        callback(f"{name}.down_proj.{expert}", z, tokens)
        if module.has_post_expert_norm:
            z = module.post_expert_norm(z)
        share = (weights * chosen).sum(-1, keepdim=True)[tokens]
        result = result.index_add(0, tokens, (z * share).to(result.dtype))
    return result.reshape(given.shape)


def _linear_hook(key: str, callback: Listener) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        callback(key, args[0] if args else next(iter(kwargs.values())))

    return hook


def _experts_hook(sites: list[tuple[str, WeightSite]], callback: Listener) -> Any:
    """Return a hook for transformers' fused experts: forward(hidden states, indices, weights)."""
    keys = {(site.index or 0, site.parameter): key for key, site in sites}

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given, routing, _ = _routed(module, args, kwargs)
        hidden = given.reshape(-1, given.shape[-1])
        first = _first_stack(module)
        for expert in sorted({index for index, _ in keys}):
            tokens = (routing == expert).any(-1).nonzero().squeeze(-1)
            if not len(tokens):
                continue
            x = hidden[tokens]
            if (expert, first) in keys:
                callback(keys[expert, first], x, tokens)
            if (expert, "down_proj") in keys:
                y = _product(module, first, expert, x)
                callback(keys[expert, "down_proj"], _activated(module, y), tokens)

    return hook


def _routed(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states as given, and expert numbers and shares, each (tokens, choices)."""
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    _, hidden, routing, weights, *_ = bound.arguments.values()
    choices = routing.shape[-1]
    return hidden, routing.reshape(-1, choices), weights.reshape(-1, choices)


def _first_stack(module: Any) -> str:
    return "gate_up_proj" if module.has_gate else "up_proj"


def _product(module: Any, stack: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(module, stack)[expert]
    y: Tensor = x @ (weight if module.is_transposed else weight.T)
    return y + getattr(module, f"{stack}_bias")[expert] if module.has_bias else y


def _activated(module: Any, y: Tensor) -> Tensor:
    """Return what enters an expert's second matrix."""
    result: Tensor = module._apply_gate(y) if module.has_gate else module.act_fn(y)
    return result
