"""Find the linear layers of any transformers model, and which of them share an input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.errors import UnsupportedArchitectureError
from workbench.models.architectures import backbone, probe_inputs, text_part
from workbench.models.weight_access import WeightSite, expert_sites, module_site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAR_TYPES = (nn.Linear, Conv1D)

PROBE_TOKENS = (4, 64)
"""Tokens that are run to see what the layers read: more of them where few leave some unread."""


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
        Name of the block that the (first of the) layers lie in.
    routed : bool
        Whether only some of the tokens enter, those routed to one expert.
    side : str
        Whose tokens enter: ``"encoder"`` or ``"decoder"`` of an encoder-decoder (an attention of
        the decoder over the encoder's output reads the encoder's), ``""`` for other models.
    """

    key: str
    names: tuple[str, ...]
    in_features: int
    block: str
    routed: bool = False
    side: str = ""


def find_blocks(hf_model: nn.Module) -> dict[str, nn.Module]:
    """Return the repeated blocks by name: members of the outermost module lists with linears.

    Of a model of images and texts they are those of its text decoder.
    """
    blocks: dict[str, nn.Module] = {}
    part, decoder = text_part(hf_model)
    for name, module in decoder.named_modules(prefix=part):
        if not isinstance(module, nn.ModuleList) or any(name.startswith(b + ".") for b in blocks):
            continue
        members = {f"{name}.{i}": child for i, child in enumerate(module)}
        if members and all(_has_linear(child) for child in members.values()):
            blocks.update(members)
    return blocks


def block_sides(hf_model: PreTrainedModel) -> dict[str, str]:
    """Return for every block ``"encoder"`` or ``"decoder"``, ``""`` where there is one stack only.

    Blocks of an encoder-decoder's encoder come first in it and run first.
    """
    blocks = find_blocks(hf_model)
    if not getattr(hf_model.config, "is_encoder_decoder", False):
        return dict.fromkeys(blocks, "")
    encoder = set(hf_model.get_encoder().modules())
    return {n: "encoder" if block in encoder else "decoder" for n, block in blocks.items()}


def _has_linear(module: nn.Module) -> bool:
    return any(isinstance(m, LINEAR_TYPES) for m in module.modules())


def find_linears(hf_model: nn.Module) -> dict[str, WeightSite]:
    """Return the weight matrices inside the blocks by name, in the model's order.

    They are the weights of linear layers, and every matrix of fused experts (see
    :mod:`workbench.models.weight_access`). Embeddings, the output head and norms lie outside of the
    blocks or hold a negligible share of the weights; they are kept. So are the routers of experts:
    they are tiny, and an error in them sends tokens to other experts.

    Raises
    ------
    UnsupportedArchitectureError
        If the model has no blocks with such weights.
    """
    found, _ = _matrices(hf_model)
    if not found:
        raise UnsupportedArchitectureError(
            f"{type(hf_model).__name__} has no repeated blocks with linear layers to compress. The"
            " workbench handles transformer decoders and encoders of the transformers library."
        )
    return found


def left_dense(hf_model: nn.Module, groups: Iterable[LinearGroup]) -> dict[str, str]:
    """Return what of the blocks no step compresses, by name, and why.

    It is what neither is a linear layer's weight nor that of fused experts in a layout that is
    known, and the layers that no token of a probe reached; norms, biases and routers are no part
    of it.
    """
    found, others = _matrices(hf_model)
    reached = {name for group in groups for name in group.names}
    unread = {n: "no token of a probe entered it" for n in found if n not in reached}
    return {**others, **unread}


def _matrices(hf_model: nn.Module) -> tuple[dict[str, WeightSite], dict[str, str]]:
    """Return the blocks' matrices that are known, and what else they hold."""
    found: dict[str, WeightSite] = {}
    others: dict[str, str] = {}
    for block_name, block in find_blocks(hf_model).items():
        kept = {f"{block_name}.{name}" for name in _routers(block)}
        handled = set(kept)
        for inner, module in block.named_modules():
            name = f"{block_name}.{inner}" if inner else block_name
            sites = expert_sites(name, module)
            if isinstance(module, LINEAR_TYPES) and f"{name}.weight" not in kept:
                sites = [module_site(name, module)]
            found.update((site.name, site) for site in sites)
            handled |= {f"{name}.{site.parameter}" for site in sites}
        for inner, parameter in block.named_parameters():
            name = f"{block_name}.{inner}"
            # Norms and biases are kept dense, never compressed.
            owner = type(block.get_submodule(inner.rpartition(".")[0])).__name__
            small = parameter.ndim < 2 or name.endswith("bias") or "Norm" in owner
            if name not in handled and not small:
                shape = " by ".join(map(str, parameter.shape))
                others[name] = f"{shape}, not the weight of a linear layer"
    return found, others


def _routers(block: nn.Module) -> list[str]:
    """Return the names of parameters that choose or weigh experts: those beside "experts"."""
    names = []
    for owner_name, owner in block.named_modules():
        experts = getattr(owner, "experts", None)
        if not isinstance(experts, nn.Module):
            continue
        listed = isinstance(experts, nn.ModuleList)
        count = len(list(experts.children())) if listed else getattr(experts, "num_experts", 0)
        for child_name, child in owner.named_children():
            inner = {n: p for n, p in child.named_parameters() if p.ndim > 1}
            if inner and all(p.ndim == 2 and len(p) in (1, count) for p in inner.values()):
                names += [f"{owner_name}.{child_name}.{n}".lstrip(".") for n in inner]
    return names


def weight_of(layer: nn.Module | WeightSite) -> Tensor:
    """Return a layer's weight as (out_features, in_features), float32; a view or a copy."""
    return (layer if isinstance(layer, WeightSite) else module_site("", layer)).matrix


@torch.no_grad()
def shared_inputs(hf_model: PreTrainedModel) -> tuple[LinearGroup, ...]:
    """Group the linear layers by the tensors that they read, found by running a few tokens.

    Identity of the input tensors is what counts, so that no table of architectures is needed:
    q, k and v share, gate and up share, a fused projection stands alone. A layer that is called
    several times in one pass shares with those that read the same tensors in the same order
    (DeBERTa's query and key read hidden states and then positions, its value only the former).
    Every matrix of every expert stands alone, because the tokens routed to an expert are its own.
    The keys and values of all attentions over an encoder's output share, whatever their block.

    Layers that no token enters, of few or of more (experts that nothing is routed to), are in no
    group: they stay dense, and :func:`left_dense` names them.
    """
    linears = find_linears(hf_model)
    blocks = tuple(find_blocks(hf_model))
    for tokens in PROBE_TOKENS:
        probe = probe_inputs(hf_model, tokens)
        seen = _inputs_of(hf_model, linears, probe)
        if all(seen.values()):
            break
    by_input: dict[object, list[str]] = {}
    for name, site in linears.items():
        if seen[site.owner]:
            read = tuple(map(id, seen[site.owner])) if site.index is None else name
            by_input.setdefault(read, []).append(name)
    return tuple(
        LinearGroup(
            key=names[0],
            names=tuple(names),
            in_features=linears[names[0]].shape[1],
            block=next(b for b in blocks if names[0].startswith(b + ".") or names[0] == b),
            routed=linears[names[0]].index is not None,
            side=_side(probe, seen[linears[names[0]].owner][0]),
        )
        for names in by_input.values()
    )


def _inputs_of(
    hf_model: PreTrainedModel, linears: Mapping[str, WeightSite], probe: Mapping[str, Tensor]
) -> dict[nn.Module, list[Tensor]]:
    """Return every tensor that each layer reads in one forward pass, in order."""
    # The tensors are kept alive until the end, so that no identity is used twice.
    seen: dict[nn.Module, list[Tensor]] = {site.owner: [] for site in linears.values()}

    def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen[module].append(args[0] if args else next(iter(kwargs.values())))

    hooks = [m.register_forward_pre_hook(hook, with_kwargs=True) for m in seen]
    try:
        backbone(hf_model)(**probe)
    finally:
        for handle in hooks:
            handle.remove()
    return seen


def _side(probe: Mapping[str, Tensor], x: Tensor) -> str:
    """Return whose tokens an input has: the probe's sides are of different lengths."""
    if "decoder_input_ids" not in probe:
        return ""
    rows = x.numel() // x.shape[-1]
    return "encoder" if rows == probe["input_ids"].numel() else "decoder"
