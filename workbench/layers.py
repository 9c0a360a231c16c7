"""Find the linear layers of any transformers model, and which of them share an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.errors import UnsupportedArchitectureError

LINEAR_TYPES = (nn.Linear, Conv1D)

_LEAST_SHARE = 0.99
"""Share of a model's block weights that must lie in layers the workbench can compress."""


@dataclass(frozen=True)
class LinearGroup:
    """Linear layers that read the same tensor, and so share one gram matrix.

    Attributes
    ----------
    key : str
        Name of the group's first layer, unique in the model.
    names : tuple of str
        Module names, such as ``"model.layers.0.self_attn.q_proj"``.
    in_features : int
    block : str
        Name of the block that the layers lie in.
    """

    key: str
    names: tuple[str, ...]
    in_features: int
    block: str


@dataclass(frozen=True)
class Fold:
    """The layer before a group that can absorb the inverse of the group's input scales."""

    consumer: str
    producer: str
    is_norm: bool


# Suffixes within a block, by config.model_type. A fold is listed only where nothing else reads
# the producer's output and what lies between commutes with a positive scale per channel.
_LLAMA_FOLDS = (
    Fold("self_attn.q_proj", "input_layernorm", True),
    Fold("self_attn.o_proj", "self_attn.v_proj", False),
    Fold("mlp.gate_proj", "post_attention_layernorm", True),
    Fold("mlp.down_proj", "mlp.up_proj", False),
)
FOLDS: dict[str, tuple[Fold, ...]] = {
    "llama": _LLAMA_FOLDS,
    "mistral": _LLAMA_FOLDS,
    "qwen2": _LLAMA_FOLDS,
    "qwen3": _LLAMA_FOLDS,
    "opt": (
        Fold("self_attn.q_proj", "self_attn_layer_norm", True),
        Fold("self_attn.out_proj", "self_attn.v_proj", False),
        Fold("fc1", "final_layer_norm", True),
    ),
    "gpt2": (Fold("attn.c_attn", "ln_1", True), Fold("mlp.c_fc", "ln_2", True)),
}


def find_blocks(hf_model: nn.Module) -> dict[str, nn.Module]:
    """Return the repeated blocks by name: members of the outermost module lists with linears."""
    blocks: dict[str, nn.Module] = {}
    for name, module in hf_model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(b + ".") for b in blocks):
            continue
        members = {f"{name}.{i}": child for i, child in enumerate(module)}
        if members and all(_has_linear(child) for child in members.values()):
            blocks.update(members)
    return blocks


def _has_linear(module: nn.Module) -> bool:
    return any(isinstance(m, LINEAR_TYPES) for m in module.modules())


def find_linears(hf_model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside the blocks by name, in the model's order.

    Embeddings, the output head and norms lie outside of the blocks or hold a negligible share of
    the weights; they are kept.

    Raises
    ------
    UnsupportedArchitectureError
        If the model has no blocks, or more than 1 % of their weights lie in parameters that
        are not linear layers; the message names them.
    """
    found: dict[str, nn.Module] = {}
    n_linear = n_all = 0
    unhandled: list[str] = []
    for block_name, block in find_blocks(hf_model).items():
        inside = {
            f"{block_name}.{n}" if n else block_name: m
            for n, m in block.named_modules()
            if isinstance(m, LINEAR_TYPES)
        }
        found.update(inside)
        for name, parameter in block.named_parameters():
            owner = f"{block_name}.{name}".rpartition(".")[0]
            n_all += parameter.numel()
            if owner in inside:
                n_linear += parameter.numel()
            elif parameter.ndim > 1:
                unhandled.append(f"{block_name}.{name} {tuple(parameter.shape)}")
            else:
                n_linear += parameter.numel()  # norms and biases: kept dense, never compressed
    kind = type(hf_model).__name__
    if not found:
        raise UnsupportedArchitectureError(
            f"{kind} has no repeated blocks with linear layers to compress. The workbench handles"
            " transformer decoders and encoders of the transformers library."
        )
    if n_linear < _LEAST_SHARE * n_all:
        raise UnsupportedArchitectureError(
            f"{kind} keeps {1 - n_linear / n_all:.0%} of its block weights outside of linear"
            f" layers, where they would be skipped silently: {', '.join(unhandled[:4])}"
            f"{' …' if len(unhandled) > 4 else ''}. Use a model whose blocks are made of linear"
            " layers."
        )
    return found


def weight_of(module: nn.Module) -> Tensor:
    """Return a linear layer's weight as (out_features, in_features), float32; a view or a copy."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return (weight.detach().T if isinstance(module, Conv1D) else weight.detach()).float()


@torch.no_grad()
def shared_inputs(hf_model: nn.Module) -> tuple[LinearGroup, ...]:
    """Group the linear layers by the tensor that they read, found by running four tokens.

    Identity of the input tensor is what counts, so that no table of architectures is needed:
    q, k and v share, gate and up share, a fused projection stands alone.
    """
    linears = find_linears(hf_model)
    blocks = tuple(find_blocks(hf_model))
    # The tensors are kept alive until the end, so that no identity is used twice.
    seen: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.setdefault(name, args[0])

        return hook

    hooks = [m.register_forward_pre_hook(hook_for(n)) for n, m in linears.items()]
    try:
        device = next(hf_model.parameters()).device
        ids = torch.arange(4, device=device)[None]
        backbone = getattr(hf_model, "base_model", hf_model)
        backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [n for n in linears if n not in seen]:
        raise UnsupportedArchitectureError(
            f"{type(hf_model).__name__} did not use {', '.join(missing[:4])} in a forward pass, so"
            " no statistics can be collected for them."
        )
    by_input: dict[int, list[str]] = {}
    for name in linears:
        by_input.setdefault(id(seen[name]), []).append(name)
    return tuple(
        LinearGroup(
            key=names[0],
            names=tuple(names),
            in_features=int(seen[names[0]].shape[-1]),
            block=next(b for b in blocks if names[0].startswith(b + ".") or names[0] == b),
        )
        for names in by_input.values()
    )


def find_fold(hf_model: nn.Module, group: LinearGroup) -> tuple[str, bool] | None:
    """Return the module before a group that can absorb a scale per input channel.

    Returns
    -------
    (name, is_norm) or None
        None where the architecture is not listed, or where the shapes differ (grouped-query
        attention between v and o).
    """
    config = getattr(hf_model, "config", None)
    if getattr(config, "do_layer_norm_before", True) is False:
        return None  # OPT-350m: the norm comes after the residual, which reads it too
    for fold in FOLDS.get(getattr(config, "model_type", ""), ()):
        if f"{group.block}.{fold.consumer}" not in group.names:
            continue
        name = f"{group.block}.{fold.producer}"
        try:
            producer = hf_model.get_submodule(name)
        except AttributeError:
            return None
        weight = getattr(producer, "weight", None)
        if isinstance(weight, Tensor) and weight.shape[0] == group.in_features:
            return (name, fold.is_norm)
    return None
