"""Which layer before a group can absorb a scale per input channel, by architecture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from workbench.errors import ConfigError
from workbench.models.layers import LinearGroup
from workbench.models.weight_access import find_site


@dataclass(frozen=True)
class Fold:
    """Two layers of a block between which a positive scale per channel can move.

    Attributes
    ----------
    consumer, producer : str
        Suffixes of module names within a block. Nothing else reads what the producer feeds the
        consumer's group, and what lies between commutes with a positive scale per channel.
    parts : int
        Rows of the producer in units of the consumer's inputs; the last of them feed it: 2 for
        gate and up in one matrix, 3 for query, key and value. Zero for a norm.
    offset : float
        What a norm adds to its weight before it multiplies (1 for Gemma).
    """

    consumer: str
    producer: str
    parts: int = 0
    offset: float = 0.0


_LLAMA = (
    Fold("self_attn.q_proj", "input_layernorm"),
    Fold("self_attn.o_proj", "self_attn.v_proj", 1),
    Fold("mlp.gate_proj", "post_attention_layernorm"),
    Fold("mlp.down_proj", "mlp.up_proj", 1),
)
_GEMMA2 = (
    Fold("self_attn.q_proj", "input_layernorm", offset=1.0),
    Fold("self_attn.o_proj", "self_attn.v_proj", 1),
    Fold("mlp.gate_proj", "pre_feedforward_layernorm", offset=1.0),
    Fold("mlp.down_proj", "mlp.up_proj", 1),
)
# The norm before the experts feeds their router too, so it absorbs nothing (in a block without
# experts the Llama rule holds). Within an expert, gate and up lie in one matrix.
_EXPERTS = (
    *_LLAMA,
    Fold("mlp.experts.down_proj", "mlp.experts.gate_up_proj", 2),
    Fold("mlp.shared_expert.down_proj", "mlp.shared_expert.up_proj", 1),
)
# The norm comes after the residual, which reads it too.
_BERT = (Fold("attention.output.dense", "attention.self.value", 1),)
_T5 = (
    Fold("layer.0.SelfAttention.q", "layer.0.layer_norm"),
    Fold("layer.0.SelfAttention.o", "layer.0.SelfAttention.v", 1),
    Fold("layer.1.EncDecAttention.q", "layer.1.layer_norm"),
    Fold("layer.1.EncDecAttention.o", "layer.1.EncDecAttention.v", 1),
    *(
        fold
        for i in (1, 2)  # the feed-forward part of the encoder, and of the decoder
        for fold in (
            Fold(f"layer.{i}.DenseReluDense.wi", f"layer.{i}.layer_norm"),
            Fold(f"layer.{i}.DenseReluDense.wi_0", f"layer.{i}.layer_norm"),
            Fold(f"layer.{i}.DenseReluDense.wo", f"layer.{i}.DenseReluDense.wi_1", 1),
        )
    ),
)

FOLDS: dict[str, tuple[Fold, ...]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": (
        Fold("self_attn.q_proj", "input_layernorm", offset=1.0),
        Fold("self_attn.o_proj", "self_attn.v_proj", 1),
        Fold("mlp.gate_proj", "post_attention_layernorm", offset=1.0),
        Fold("mlp.down_proj", "mlp.up_proj", 1),
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "phi3": (
        Fold("self_attn.qkv_proj", "input_layernorm"),
        Fold("self_attn.o_proj", "self_attn.qkv_proj", 3),
        Fold("mlp.gate_up_proj", "post_attention_layernorm"),
        Fold("mlp.down_proj", "mlp.gate_up_proj", 2),
    ),
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "opt": (
        Fold("self_attn.q_proj", "self_attn_layer_norm"),
        Fold("self_attn.out_proj", "self_attn.v_proj", 1),
        Fold("fc1", "final_layer_norm"),
    ),
    "gpt2": (
        Fold("attn.c_attn", "ln_1"),
        Fold("attn.c_proj", "attn.c_attn", 3),
        Fold("mlp.c_fc", "ln_2"),
    ),
    # Values are interleaved by head with queries and keys here and in Falcon.
    "gpt_neox": (
        Fold("attention.query_key_value", "input_layernorm"),
        Fold("mlp.dense_h_to_4h", "post_attention_layernorm"),
    ),
    # With parallel attention one norm feeds both, and both are in the first one's group.
    "falcon": (
        Fold("self_attention.query_key_value", "input_layernorm"),
        Fold("self_attention.query_key_value", "ln_attn"),
        Fold("mlp.dense_h_to_4h", "ln_mlp"),
        Fold("mlp.dense_h_to_4h", "post_attention_layernorm"),
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": (Fold("attention.out_lin", "attention.v_lin", 1),),
    "deberta-v2": (Fold("attention.output.dense", "attention.self.value_proj", 1),),
    "modernbert": (
        Fold("attn.Wqkv", "attn_norm"),
        Fold("attn.Wo", "attn.Wqkv", 3),
        Fold("mlp.Wi", "mlp_norm"),
        Fold("mlp.Wo", "mlp.Wi", 2),
    ),
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "vit": (
        Fold("attention.q_proj", "layernorm_before"),
        Fold("attention.o_proj", "attention.v_proj", 1),
        Fold("mlp.fc1", "layernorm_after"),
    ),
}


@dataclass(frozen=True)
class FoldTarget:
    """What absorbs the inverse of a group's input scales.

    Attributes
    ----------
    name : str
        Of a module, or of an expert's matrix.
    is_norm : bool
    offset : float
        See :class:`Fold`.
    n_outputs : int
        Outputs of the target; the last of them feed the group.
    """

    name: str
    is_norm: bool
    offset: float
    n_outputs: int

    def divisor(self, scales: Tensor) -> Tensor:
        """Return what each of the target's outputs is divided by: the scales, before them ones."""
        return nn.functional.pad(scales, (self.n_outputs - len(scales), 0), value=1.0)


def find_fold(hf_model: nn.Module, group: LinearGroup) -> FoldTarget | None:
    """Return the layer before a group that can absorb a scale per input channel.

    Returns
    -------
    FoldTarget or None
        None where the architecture is not listed, or where the shapes differ (grouped-query
        attention between v and o).
    """
    config = getattr(hf_model, "config", None)
    if getattr(config, "do_layer_norm_before", True) is False:
        return None  # OPT-350m: the norm comes after the residual, which reads it too
    number = f".{group.key.rpartition('.')[2]}" if group.routed else ""
    for fold in FOLDS.get(getattr(config, "model_type", ""), ()):
        if f"{group.block}.{fold.consumer}{number}" not in group.names:
            continue
        name = f"{group.block}.{fold.producer}{number if fold.parts else ''}"
        try:
            site = find_site(hf_model, name)
        except ConfigError:
            continue
        n_outputs = site.shape[0] if fold.parts else len(site.stored)
        if n_outputs == max(fold.parts, 1) * group.in_features:
            return FoldTarget(name, not fold.parts, fold.offset, n_outputs)
    return None
