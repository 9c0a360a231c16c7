"""Where each architecture keeps its neurons and heads, and models of a changed configuration."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from workbench.errors import UnsupportedArchitectureError
from workbench.models.architectures import quiet
from workbench.models.layers import find_blocks
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.models.precision import generic_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class FeedForward:
    """The layers of a feed-forward network, by their names within a block.

    Attributes
    ----------
    inputs : tuple of str
        Layers whose output rows are the neurons: gate and up, or the one before the activation.
    output : str
        The layer whose input columns are the neurons.
    size : str
        Configuration field with the number of neurons.
    parts : int
        Row blocks stacked in each input layer: 2 where gate and up are one matrix.
    """

    inputs: tuple[str, ...]
    output: str
    size: str = "intermediate_size"
    parts: int = 1


@dataclass(frozen=True)
class Attention:
    """The layers of an attention whose configuration states the head size by itself.

    Attributes
    ----------
    projections : tuple of str
        Queries, keys and values; one name where they are stacked in one matrix in this order.
    output : str
        The layer whose input columns are the heads.
    """

    projections: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Architecture:
    """What structural steps must know of one ``config.model_type``.

    Attributes
    ----------
    feed_forward : FeedForward or None
        None where the neurons are spread over experts.
    attention : Attention or None
        None where fewer heads of the same size cannot be stated: the head size is the hidden
        size divided by the number of heads.
    per_block : tuple of str
        Configuration fields that hold a list with an entry per block.
    keeps_first : bool
        Whether the first block is built unlike the others, and so must stay.
    uniform_if : tuple of (str, value)
        Configuration fields and the only value with which a block does not depend on its index.
    """

    feed_forward: FeedForward | None
    attention: Attention | None = None
    per_block: tuple[str, ...] = ()
    keeps_first: bool = False
    uniform_if: tuple[tuple[str, object], ...] = ()


_GATED = FeedForward(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
_SEPARATE = Attention(
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj"
)
_FUSED = Attention(("self_attn.qkv_proj",), "self_attn.o_proj")
_LLAMA = Architecture(_GATED, _SEPARATE)
_TYPED = Architecture(_GATED, _SEPARATE, ("layer_types",))
_BERT = Architecture(FeedForward(("intermediate.dense",), "output.dense"))
_QWEN_MOE = Architecture(
    None,
    _SEPARATE,
    ("layer_types",),
    uniform_if=(("mlp_only_layers", []), ("decoder_sparse_step", 1)),
)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _TYPED,
    "qwen3": _TYPED,
    "gemma": _LLAMA,
    "gemma2": _TYPED,
    "gemma3_text": _TYPED,
    "phi3": Architecture(FeedForward(("mlp.gate_up_proj",), "mlp.down_proj", parts=2), _FUSED),
    "mixtral": Architecture(None, _SEPARATE),
    "qwen2_moe": _QWEN_MOE,
    "qwen3_moe": _QWEN_MOE,
    "opt": Architecture(FeedForward(("fc1",), "fc2", "ffn_dim")),
    "gpt2": Architecture(
        FeedForward(("mlp.c_fc",), "mlp.c_proj", "n_inner"),
        uniform_if=(("scale_attn_by_inverse_layer_idx", False),),
    ),
    "gpt_neox": Architecture(FeedForward(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")),
    "falcon": Architecture(
        FeedForward(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h", "ffn_hidden_size")
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": Architecture(FeedForward(("ffn.lin1",), "ffn.lin2", "hidden_dim")),
    # Its convolution follows the first block.
    "deberta-v2": Architecture(_BERT.feed_forward, keeps_first=True),
    # Its first block has no norm before the attention.
    "modernbert": Architecture(
        FeedForward(("mlp.Wi",), "mlp.Wo", parts=2), per_block=("layer_types",), keeps_first=True
    ),
}
"""By ``config.model_type``. Blocks are found as everywhere, see :mod:`workbench.models.layers`."""


def text_config(model: LoadedModel) -> PretrainedConfig:
    """Return the configuration that states the model's shape."""
    config: PretrainedConfig = model.hf_model.config.get_text_config()
    return config


def architecture_of(model: LoadedModel) -> Architecture:
    """Return what is known of a model's structure.

    Raises
    ------
    UnsupportedArchitectureError
        If the architecture is not in the table.
    """
    kind = text_config(model).model_type
    if model.is_encoder_decoder:
        raise UnsupportedArchitectureError(
            f"{model.source.name} (model_type {kind!r}) is an encoder-decoder, of whose two stacks"
            " neither blocks nor neurons are removed here. MagnitudePruning, Wanda, SparseGPT, the"
            " quantizing steps, FineTuning and Distillation in the shape it has all work."
        )
    if kind not in ARCHITECTURES:
        raise UnsupportedArchitectureError(
            f"{model.source.name} (model_type {kind!r}) is not among the architectures whose blocks"
            f" and neurons can be removed: {', '.join(ARCHITECTURES)}. MagnitudePruning and the"
            " quantizing steps work without such knowledge."
        )
    return ARCHITECTURES[kind]


def block_names(model: LoadedModel) -> tuple[str, ...]:
    """Return the names of the blocks in order; as many as the configuration says.

    Raises
    ------
    UnsupportedArchitectureError
        If the model has another number of blocks than its configuration.
    """
    names = tuple(find_blocks(model.hf_model))
    stated = text_config(model).num_hidden_layers
    if len(names) != stated:
        raise UnsupportedArchitectureError(
            f"{model.source.name} has {len(names)} blocks and its configuration states {stated}, so"
            " a model with fewer cannot be described."
        )
    return names


def changed_config(model: LoadedModel, changes: Mapping[str, Any]) -> PretrainedConfig:
    """Return a copy of a model's configuration with other values.

    Raises
    ------
    UnsupportedArchitectureError
        If transformers does not accept the values together.
    """
    config: PretrainedConfig = copy.deepcopy(model.hf_model.config)
    inner = config.get_text_config()
    for name, value in changes.items():
        setattr(inner, name, copy.deepcopy(value))
    validate = getattr(inner, "validate", None)
    try:
        if validate is not None:
            validate()
    except Exception as error:
        raise UnsupportedArchitectureError(
            f"{type(inner).__name__} does not accept {dict(changes)}: {error}"
        ) from error
    return config


@torch.no_grad()
def rebuild(
    model: LoadedModel,
    changes: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    later: Collection[str] = (),
) -> LoadedModel:
    """Return a model of the same class with a changed configuration and the given tensors.

    Tokenizer, head, source, device, stored and computing dtype are the model's, and what was tied
    is tied. Compressed weights outside of the blocks (embeddings) are kept; the blocks are dense.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    changes : mapping of str to JSON-ready value
        Fields of the configuration; remembered in :attr:`LoadedModel.structure`.
    tensors : mapping of str to Tensor
        What ``hf_model.state_dict()`` of the new model has to hold; of tied tensors one is enough.
    later : collection of str
        Names that the caller fills afterwards.

    Raises
    ------
    UnsupportedArchitectureError
        If configuration and tensors do not fit together.
    """
    old = model.hf_model
    config = changed_config(model, changes)
    # The random numbers that a user draws next do not depend on a model having been built.
    with torch.random.fork_rng(devices=[]), quiet(), no_init_weights():
        new: PreTrainedModel = type(old)(config)
    for name, child in list(new.named_children()):
        if child is not None and getattr(old, name, child) is None:
            setattr(new, name, None)  # a pooler that the checkpoint does not have
    new.to(model.device)  # type: ignore[arg-type]
    dtypes = {generic_name(name): tensor.dtype for name, tensor in old.state_dict().items()}
    for name, tensor in new.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtypes.get(generic_name(name), model.dtype))
    _tie_like(old, new)
    _fill(model.source.name, new, tensors, later)
    _copy_buffers(old, new)
    if getattr(old, "generation_config", None) is not None:
        new.generation_config = copy.deepcopy(old.generation_config)
    new.eval()
    new.requires_grad_(False)
    blocks = tuple(f"{name}." for name in find_blocks(old))
    weights = {n: weight for n, weight in model.weights.items() if not n.startswith(blocks)}
    return dataclasses.replace(
        model, hf_model=new, weights=weights, structure={**model.structure, **changes}
    )


def drop_blocks(model: LoadedModel, dropped: Collection[int]) -> LoadedModel:
    """Return the model without some of its blocks; the others move up.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    dropped : collection of int
        Blocks by number, from 0.
    """
    blocks = block_names(model)
    kept = [i for i in range(len(blocks)) if i not in dropped]
    renamed = {f"{blocks[old]}.": f"{blocks[new]}." for new, old in enumerate(kept)}
    gone = tuple(f"{blocks[i]}." for i in dropped)
    tensors = {}
    for name, tensor in model.hf_model.state_dict().items():
        if name.startswith(gone):
            continue
        prefix = next((old for old in renamed if name.startswith(old)), "")
        tensors[renamed.get(prefix, "") + name.removeprefix(prefix)] = tensor
    changes: dict[str, Any] = {"num_hidden_layers": len(kept)}
    config = text_config(model)
    for field in architecture_of(model).per_block:
        values = getattr(config, field, None)
        if values is not None:
            changes[field] = [values[i] for i in kept]
    return rebuild(model, changes, tensors)


def check_uniform(model: LoadedModel, architecture: Architecture) -> None:
    """Raise UnsupportedArchitectureError if what a block does depends on its position."""
    config = text_config(model)
    for field, wanted in architecture.uniform_if:
        given = getattr(config, field, wanted)
        if given != wanted:
            raise UnsupportedArchitectureError(
                f"The blocks of {model.source.name} depend on their position ({field}={given!r};"
                f" accepted is {wanted!r}), so none can be removed. WidthPruning and the"
                " quantizing steps do not move blocks."
            )


def _tie_like(old: nn.Module, new: nn.Module) -> None:
    """Let the parameters of the new model that are tied in the old one be the same objects."""
    first: dict[tuple[int, int], str] = {}
    present = dict(new.named_parameters(remove_duplicate=False))
    for name, parameter in old.named_parameters(remove_duplicate=False):
        other = first.setdefault(tensor_identity(parameter), name)
        if other != name and name in present and other in present:
            owner, _, attribute = name.rpartition(".")
            setattr(new.get_submodule(owner), attribute, new.get_parameter(other))


def _fill(name: str, new: nn.Module, tensors: Mapping[str, Tensor], later: Collection[str]) -> None:
    state = new.state_dict(keep_vars=True)
    problems = [f"{key} {tuple(t.shape)}" for key, t in tensors.items() if key not in state]
    filled = {tensor_identity(state[key]) for key in (*tensors, *later) if key in state}
    problems += [key for key, t in state.items() if tensor_identity(t) not in filled]
    for key, tensor in tensors.items():
        if key in state and state[key].shape != tensor.shape:
            expected = tuple(state[key].shape)
            problems.append(f"{key} {tuple(tensor.shape)}, expected {expected}")
    if not problems:
        for key, tensor in tensors.items():
            state[key].copy_(tensor)
        # Two tensors that differ cannot both be in a parameter that the new model ties.
        problems = [
            key
            for key, tensor in tensors.items()
            if not torch.equal(state[key], tensor.to(state[key]))
        ]
    if problems:
        raise UnsupportedArchitectureError(
            f"The smaller {type(new).__name__} of {name} does not take {len(problems)} of its"
            f" tensors (first: {problems[0]}), so its structure cannot be changed."
        )


def _copy_buffers(old: nn.Module, new: nn.Module) -> None:
    """Copy buffers outside of the blocks that are not stored, such as rotary frequencies."""
    stored = new.state_dict(keep_vars=True)
    blocks = tuple(f"{name}." for name in find_blocks(new))
    given = dict(old.named_buffers())
    for name, buffer in list(new.named_buffers()):
        source = given.get(name)
        fits = source is not None and source.shape == buffer.shape
        if source is not None and fits and name not in stored and not name.startswith(blocks):
            owner, _, attribute = name.rpartition(".")
            setattr(new.get_submodule(owner), attribute, source.clone())
