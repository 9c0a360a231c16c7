"""Token embeddings and output heads by row: what is found, what is stored."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.methods.embeddings import find_tables
from workbench.models.load import load_model
from workbench.recipes import QuantizeEmbeddings
from workbench.recipes.recipe import Recipe

TABLES = {
    "LlamaForCausalLM": ["model.embed_tokens"],
    "OPTForCausalLM": ["model.decoder.embed_tokens"],
    "GPT2LMHeadModel": ["transformer.wte"],
    "BertModel": ["embeddings.word_embeddings"],
    "RobertaForSequenceClassification": ["roberta.embeddings.word_embeddings"],
}


def untied():
    config = transformers.LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("architecture", TABLES)
def test_tied_tables_are_found_once_and_position_tables_stay(architecture):
    assert list(find_tables(tiny_model(architecture))) == TABLES[architecture]


@pytest.mark.parametrize("bits", [8, 4])
def test_every_row_is_rounded_to_its_own_levels(bits):
    model = load_model(untied(), tiny_tokenizer(), device="cpu")
    result = compress(model, Recipe.of(QuantizeEmbeddings(bits)))
    assert list(result.model.weights) == ["model.embed_tokens", "lm_head"]
    for name, weight in result.model.weights.items():
        before = model.hf_model.get_submodule(name).weight
        after = result.model.hf_model.get_submodule(name).weight
        assert torch.equal(after, weight.dequantize())
        steps = (before.amax(1).clamp(min=0) - before.amin(1).clamp(max=0)) / (2**bits - 1)
        moved = (after - before).abs() / steps[:, None]
        assert moved.max() <= 1.01  # the ends of a range may be clipped
        assert moved.mean() < 0.3
        assert weight.scales.shape == (260, 1)
        assert (after - before).abs().max() > 0
    for name, tensor in model.hf_model.state_dict().items():
        if "embed_tokens" not in name and "lm_head" not in name:
            assert torch.equal(tensor, result.model.hf_model.state_dict()[name])
    assert result.facts["embeddings"] == {
        "model.embed_tokens": {"bits": bits, "shape": [260, 16]},
        "lm_head": {"bits": bits, "shape": [260, 16]},
    }
    saved = 2 * 260 * 16 * 4 - 2 * (260 * 16 * bits // 8 + 260 * 2 + 260 * bits // 8)
    assert model.size_bytes - result.model.size_bytes == saved


def test_a_tied_head_reads_the_rounded_table_and_counts_once():
    model = load_model(tiny_model("LlamaForCausalLM"), tiny_tokenizer(), device="cpu")
    result = compress(model, Recipe.of(QuantizeEmbeddings(8, group_size=8)))
    hf_model = result.model.hf_model
    assert hf_model.lm_head.weight is hf_model.model.embed_tokens.weight
    assert torch.equal(
        hf_model.lm_head.weight, result.model.weights["model.embed_tokens"].dequantize()
    )
    assert result.model.weights["model.embed_tokens"].scales.shape == (260, 2)
    assert result.facts["compressed_share"] == 260 * 16 / model.n_parameters
