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


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes and four special tokens."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
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
    """Return a model of random weights, in train mode, as a user might hand it over."""
    values = dict(SMALL[architecture])
    kind = getattr(transformers, values.pop("config"))
    config = kind(vocab_size=260, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values)
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, architecture)(config)
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
