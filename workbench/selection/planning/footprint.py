"""What a model is made of, counted from its configuration on the meta device."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.selection.planning.precisions import Precision

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Footprint:
    """Counts of values and shapes; nothing of it is a measurement.

    Attributes
    ----------
    n_parameters : int
        Tied ones once.
    matrices : tuple of (out_features, in_features, count, is_expert)
        The weight matrices in the blocks, which quantization packs.
    n_rest : int
        Every other value: embeddings, head, norms, biases, routers.
    n_looked_up : int
        Of the rest, embeddings of which a token reads only one row (an embedding that is tied to
        the head is read whole).
    n_experts, experts_per_token : int
        1 and 1 for a dense model.
    cache : tuple of (values per token, window or None, count)
        Of the layers' keys and values; a layer with a sliding window keeps so many tokens at most.
    hidden_size, intermediate_size, vocabulary : int
    max_context : int or None
        The most tokens that the configuration allows.
    of_encoder : tuple of (out_features, in_features, count)
        Of an encoder-decoder: those of the matrices that read the prompt once and are not read
        again for every token that is written.
    """

    n_parameters: int
    matrices: tuple[tuple[int, int, int, bool], ...]
    n_rest: int
    n_looked_up: int
    n_experts: int
    experts_per_token: int
    cache: tuple[tuple[int, int | None, int], ...]
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    max_context: int | None
    of_encoder: tuple[tuple[int, int, int], ...] = ()

    @property
    def n_active(self) -> int:
        """Parameters that one token that is written passes through, the embeddings included."""
        idle = sum(out * width * n for out, width, n, expert in self.matrices if expert)
        share = 1 - self.experts_per_token / self.n_experts
        once = sum(out * width * n for out, width, n in self.of_encoder)
        return self.n_parameters - round(idle * share) - once

    def weight_bytes(self, precision: Precision) -> int:
        """Return the bytes of all weights."""
        return round(self._packed(precision, 1.0) + precision.float_bytes * self.n_rest)

    def read_bytes(self, precision: Precision, batch: int) -> float:
        """Return the bytes of weights that one step of decoding reads, for a batch of sequences.

        Of the experts those are read that any token of the batch is sent to, as many as if tokens
        chose them independently.
        """
        touched = 1 - (1 - self.experts_per_token / self.n_experts) ** batch
        rest = precision.float_bytes * (self.n_rest - self.n_looked_up)
        once = _bytes(precision, self.of_encoder)
        return self._packed(precision, touched) - once + rest

    def cache_bytes(self, context: int, batch: int, value_bytes: int = 2) -> int:
        """Return the bytes of keys and values of a batch of sequences of so many tokens.

        Of an encoder-decoder a prompt's tokens have theirs in the attentions over the encoder's
        output, those of an answer in the decoder's attentions over itself: as many of each.
        """
        tokens = sum(
            values * (context if window is None else min(context, window)) * count
            for values, window, count in self.cache
        )
        return tokens * batch * value_bytes

    def working_bytes(self, context: int, batch: int) -> int:
        """Return the bytes of activations while a prompt is read, 512 tokens of it at a time."""
        per_token = 4 * self.hidden_size + 2 * self.intermediate_size
        return batch * (min(context, 512) * per_token * 2 + self.vocabulary * 4)

    def _packed(self, precision: Precision, share_of_experts: float) -> float:
        return sum(
            _bytes(precision, [(out, width, count)]) * (share_of_experts if expert else 1.0)
            for out, width, count, expert in self.matrices
        )


def _bytes(precision: Precision, matrices: Iterable[tuple[int, int, int]]) -> float:
    """Return the bytes of so many matrices of each shape (out_features, in_features)."""
    total = 0.0
    for out, width, count in matrices:
        if precision.scheme is None:
            total += out * width * precision.float_bytes * count
        else:
            total += precision.scheme.stored_bytes(out, width) * count
    return total


def footprint_of(config: PretrainedConfig) -> Footprint:
    """Count a model on the meta device, where it takes no memory.

    Parameters
    ----------
    config : PretrainedConfig
        Not changed.

    Raises
    ------
    UnsupportedArchitectureError
        If transformers cannot build it, or its blocks are not made of weight matrices.
    """
    return _footprint(json.dumps(config.to_dict(), sort_keys=True, default=str))


@functools.lru_cache(maxsize=64)
def _footprint(text: str) -> Footprint:
    import torch
    from torch import nn
    from transformers import AutoConfig

    from workbench.models.architectures import auto_class, is_lone_encoder, quiet
    from workbench.models.layers import block_sides, find_linears

    raw: dict[str, Any] = json.loads(text)
    kind = str(raw.pop("model_type", ""))
    for name in ("dtype", "torch_dtype", "transformers_version", "auto_map"):
        raw.pop(name, None)
    try:
        with torch.device("meta"), quiet():
            config = AutoConfig.for_model(kind, **raw)
            names = getattr(config, "architectures", None) or [_usual(kind)]
            model = auto_class(str(names[0])).from_config(config)
    except (ValueError, KeyError) as error:
        raise UnsupportedArchitectureError(
            f"model_type {kind!r} is not one that transformers can build:"
            f" {str(error).splitlines()[0][:200]}"
        ) from error
    config = config.get_text_config()
    shapes: Counter[tuple[int, int, bool]] = Counter()
    once: Counter[tuple[int, int]] = Counter()
    in_experts = _experts(model)
    encoder = tuple(f"{n}." for n, side in block_sides(model).items() if side == "encoder")
    n_packed = 0
    for name, site in find_linears(model).items():
        expert = any(name.startswith(prefix) for prefix in in_experts)
        out, width = site.shape
        shapes[out, width, expert] += 1
        n_packed += out * width
        if name.startswith(encoder) or (encoder and _OVER_ENCODER.search(name)):
            once[out, width] += 1
    total = sum(parameter.numel() for parameter in model.parameters())
    tables: dict[int, int] = {}
    heads = set()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Embedding) and weight is not None:
            tables[id(weight)] = weight.numel()
        elif isinstance(module, nn.Linear):
            heads.add(id(module.weight))
    n_experts = next((int(n) for a in _EXPERTS if (n := getattr(config, a, None))), 1)
    per_token = int(getattr(config, "num_experts_per_tok", 1) or 1) if in_experts else 1
    return Footprint(
        n_parameters=total,
        matrices=tuple((o, i, n, expert) for (o, i, expert), n in sorted(shapes.items())),
        n_rest=total - n_packed,
        n_looked_up=sum(n for key, n in tables.items() if key not in heads),
        n_experts=n_experts if in_experts else 1,
        experts_per_token=per_token,
        cache=() if is_lone_encoder(str(names[0])) else _cache(config),
        hidden_size=_number(config, "hidden_size", "n_embd", "dim", "d_model"),
        intermediate_size=_number(config, *_INTERMEDIATE),
        vocabulary=_number(config, "vocab_size"),
        max_context=_number(config, "max_position_embeddings", "n_positions") or None,
        of_encoder=tuple((out, width, n) for (out, width), n in sorted(once.items())),
    )


_INTERMEDIATE = (
    *("intermediate_size", "n_inner", "hidden_dim", "ffn_dim"),
    *("d_ff", "encoder_ffn_dim"),  # T5, BART
)

_OVER_ENCODER = re.compile(
    r"\.(EncDecAttention|encoder_attn|cross_attn)\.(k|v|k_proj|v_proj|key_proj|value_proj)$"
)
"""Keys and values of a decoder's attention over the encoder's output (T5, BART, ProphetNet)."""


def _usual(kind: str) -> str:
    """Return the class that a model of this type is most often, where nothing says which."""
    from transformers.models.auto import modeling_auto

    names = {
        **modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }
    return "" if kind in _ENCODERS else str(names.get(kind, ""))


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def _experts(model: Any) -> list[str]:
    """Return the names of the stacks of routed experts, with the dot behind them."""
    from workbench.models.weight_access import is_fused_experts

    return [f"{name}." for name, module in model.named_modules() if is_fused_experts(module)]


def _number(config: Any, *names: str) -> int:
    return next((int(n) for a in names if (n := getattr(config, a, None))), 0)


def _cache(config: Any) -> tuple[tuple[int, int | None, int], ...]:
    """Return what the layers keep of every token: keys and values, grouped and windowed."""
    if getattr(config, "kv_lora_rank", None):
        raise ConfigError(
            f"model_type {config.model_type!r} keeps a compressed form of keys and values (latent"
            " attention), for which there is no estimate; measure it in a study."
        )
    layers = _number(config, "num_hidden_layers", "n_layer", "n_layers")
    heads = _number(config, "num_attention_heads", "n_head", "n_heads")
    if getattr(config, "is_encoder_decoder", False):  # the decoder's own, if they differ
        layers = _number(config, "num_decoder_layers", "decoder_layers") or layers
        heads = _number(config, "decoder_attention_heads") or heads
    width = _number(config, "hidden_size", "n_embd", "dim", "d_model")
    if getattr(config, "model_type", "") in _ENCODERS and not getattr(config, "is_decoder", False):
        return ()
    head = _number(config, "head_dim", "d_kv") or (width // heads if heads else 0)
    grouped = _number(config, "num_key_value_heads") or heads
    if getattr(config, "multi_query", False) and not getattr(
        config, "new_decoder_architecture", False
    ):
        grouped = 1
    values = 2 * grouped * head
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True) is False:
        window = None
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return ((values, None if window is None else int(window), layers),)
    found: Counter[int | None] = Counter()
    for kind in kinds:
        sliding = window is not None and kind in ("sliding_attention", "chunked_attention")
        found[int(window) if sliding and window is not None else None] += 1
    return tuple((values, size, count) for size, count in found.items())


_ENCODERS = {
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "deberta",
    "deberta-v2",
    "mpnet",
    "modernbert",
}
