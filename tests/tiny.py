"""Tiny models and a byte-level tokenizer, built in a moment, for tests of any part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

SMALL: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {
        "config": "LlamaConfig",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
    "OPTForCausalLM": {
        "config": "OPTConfig",
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "GPT2LMHeadModel": {
        "config": "GPT2Config",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
    },
    "BertModel": {
        "config": "BertConfig",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "BertForMaskedLM": {
        "config": "BertConfig",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "BartForConditionalGeneration": {
        "config": "BartConfig",
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 64,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    },
    "RobertaForSequenceClassification": {
        "config": "RobertaConfig",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 65,
        "num_labels": 3,
    },
}

_DECODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_FALCON: dict[str, Any] = {
    "class": "FalconForCausalLM",
    "config": "FalconConfig",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {"config": "LlamaConfig", **_DECODER},
    "Llama-MHA-tied": {
        "class": "LlamaForCausalLM",
        "config": "LlamaConfig",
        **_DECODER,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    "Mistral": {"config": "MistralConfig", **_DECODER, "sliding_window": 8},
    "Qwen2": {"config": "Qwen2Config", **_DECODER, "tie_word_embeddings": True},
    "Qwen3": {"config": "Qwen3Config", **_DECODER, "head_dim": 16},
    "Gemma": {"config": "GemmaConfig", **_DECODER, "head_dim": 16, "num_key_value_heads": 1},
    "Gemma2": {
        "config": "Gemma2Config",
        **_DECODER,
        "head_dim": 16,
        "num_key_value_heads": 4,
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
    },
    "Gemma3": {
        "config": "Gemma3TextConfig",
        **_DECODER,
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Phi3": {"config": "Phi3Config", **_DECODER, "num_key_value_heads": 4},
    "OPT": {
        "config": "OPTConfig",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "GPT2": {
        "class": "GPT2LMHeadModel",
        "config": "GPT2Config",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
    },
    "GPTNeoX": {"config": "GPTNeoXConfig", **_ENCODER},
    "Falcon": {**_FALCON, "multi_query": True, "alibi": False},
    "Falcon-sequential": {**_FALCON, "multi_query": False, "alibi": True, "parallel_attn": False},
    "Falcon-new": {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "Mixtral": {
        "config": "MixtralConfig",
        **_DECODER,
        "num_key_value_heads": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "Qwen2Moe": {
        "config": "Qwen2MoeConfig",
        **_DECODER,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "Qwen3Moe": {
        "config": "Qwen3MoeConfig",
        **_DECODER,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "mlp_only_layers": [0],
    },
    "Bert": {"class": "BertModel", "config": "BertConfig", **_ENCODER},
    "Roberta": {
        "class": "RobertaForSequenceClassification",
        "config": "RobertaConfig",
        **_ENCODER,
        "max_position_embeddings": 65,
        "num_labels": 3,
    },
    "DistilBert": {
        "class": "DistilBertModel",
        "config": "DistilBertConfig",
        "dim": 32,
        "hidden_dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 64,
    },
    "DebertaV2": {
        "class": "DebertaV2Model",
        "config": "DebertaV2Config",
        **_ENCODER,
        "relative_attention": True,
        "position_buckets": 8,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
        "position_biased_input": False,
    },
    "DebertaV2-own": {
        "class": "DebertaV2ForSequenceClassification",
        "config": "DebertaV2Config",
        **_ENCODER,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "num_labels": 3,
    },
    "ModernBert": {
        "class": "ModernBertModel",
        "config": "ModernBertConfig",
        **_ENCODER,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    },
    "T5": {
        "class": "T5ForConditionalGeneration",
        "config": "T5Config",
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
    "ViT": {
        "class": "ViTForImageClassification",
        "config": "ViTConfig",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
    },
}
"""Every architecture that is promised to work; by default the class is ``<key>ForCausalLM``.

Small, and with what is particular to each: grouped queries, norms of queries and keys, tied
embeddings, sliding windows, fused projections, shared and routed experts, relative positions.
"""


def tiny_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes, four special tokens and what these pairs become."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[*merges], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def tiny_model(architecture: str = "LlamaForCausalLM", seed: int = 0) -> PreTrainedModel:
    """Return a model of random weights, in train mode, as a user might hand it over.

    ``architecture`` is a key of ``SMALL`` or of ``ARCHITECTURES``.
    """
    values = dict(SMALL.get(architecture) or ARCHITECTURES[architecture])
    default = architecture if architecture in SMALL else f"{architecture}ForCausalLM"
    name = values.pop("class", default)
    kind = getattr(transformers, values.pop("config"))
    if architecture != "ViT":
        values.setdefault("vocab_size", 260)
        values |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, name)(kind(**values))
    return model.train()


def tiny_folder(
    folder: Path,
    architecture: str = "LlamaForCausalLM",
    *,
    dtype: torch.dtype = torch.float16,
    tokenizer: bool = True,
) -> Path:
    """Save a tiny model (and its tokenizer) the way transformers does."""
    tiny_model(architecture).to(dtype).save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return folder
