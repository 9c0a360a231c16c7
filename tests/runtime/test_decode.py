"""The short decoding path against transformers, on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from tests.runtime.test_pack_model import compress, llama, rounded
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.models.load import load_model
from workbench.models.loaded import LoadedModel
from workbench.recipes.schemes import IntScheme
from workbench.runtime.packed import Decoder, pack_model, why_not_lean
from workbench.runtime.packed.linear import PackedEmbedding, PackedLinear
from workbench.tensors.weights import CorrectedWeight

PROMPT = [5, 9, 200, 31, 77, 14, 8]
TOLERANCE = 0.03


def sharp(model: LoadedModel) -> LoadedModel:
    """Return the model with attention that differs by position, and a head of its own.

    With weights as they are drawn attention is nearly even, so that its rotation and scale would
    not matter; a tied head mostly gives back the token that was read.
    """
    for name, parameter in model.hf_model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            parameter.data *= 8
        if name.endswith(("v_proj.weight", "o_proj.weight")):
            parameter.data *= 4
    return model


def other(kind: str, **changes: Any) -> LoadedModel:
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        vocab_size=272,
        tie_word_embeddings=False,
        **changes,
    )
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():  # norms and biases that matter
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return sharp(load_model(model, tiny_tokenizer()))


def own_head(**changes: Any) -> LoadedModel:
    return sharp(llama(tie_word_embeddings=False, **changes))


def far_apart(model: LoadedModel, decoder: Decoder) -> float:
    """Return how far the decoder's logits are from the model's, in units of their largest."""
    ids = [*PROMPT, 40, 41, 42]
    expected = model.hf_model(torch.tensor([ids])).logits[0]
    given = [decoder.prefill(PROMPT), *(decoder.step(token) for token in ids[len(PROMPT) :])]
    assert decoder.position == len(ids)
    return max(
        float((logits.float() - row).abs().max() / expected.abs().max())
        for logits, row in zip(given, expected[len(PROMPT) - 1 :], strict=True)
    )


MODELS = {
    "llama": lambda: own_head(),
    "llama, wide keys": lambda: own_head(num_key_value_heads=4, head_dim=32),
    "llama 3 rotation": lambda: own_head(
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    ),
    "mistral": lambda: other("Mistral", sliding_window=None),
    "qwen2, with biases": lambda: other("Qwen2"),
    "qwen3, with head norms": lambda: other("Qwen3", head_dim=16),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
@torch.no_grad()
def test_logits_are_those_of_transformers(
    name: str, packed: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        for module in ("native", "model"):
            monkeypatch.setattr(
                f"workbench.runtime.packed.{module}.native_library", lambda: (None, "off")
            )
    model = MODELS[name]()
    if packed:
        model = compress(model)
    decoder = Decoder(pack_model(model).hf_model, 32)
    assert far_apart(model, decoder) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrong", ["rotation", "direction", "scale"])
@torch.no_grad()
def test_the_tolerance_tells_wrong_attention_apart(name: str, wrong: str) -> None:
    model = MODELS[name]()
    decoder = Decoder(pack_model(model).hf_model, 32)
    if wrong == "rotation":
        decoder._cos, decoder._sin = torch.ones_like(decoder._cos), 0 * decoder._sin
    elif wrong == "direction":
        decoder._sin = -decoder._sin
    else:
        attend = decoder._attend
        decoder._attend = lambda q, *rest: attend(1.5 * q, *rest)  # type: ignore[method-assign]
    assert far_apart(model, decoder) > 2 * TOLERANCE


@torch.no_grad()
def test_a_packed_head_and_table() -> None:
    model = compress(sharp(llama()))
    table = model.site("model.embed_tokens").matrix
    model.set_weight("model.embed_tokens", rounded(table, IntScheme(8, None, True)))
    packed: Any = pack_model(model).hf_model
    assert isinstance(packed.lm_head, PackedLinear)
    assert isinstance(packed.model.embed_tokens, PackedEmbedding)
    decoder = Decoder(packed, 32)
    assert far_apart(model, decoder) < TOLERANCE
    table *= 1.2
    assert far_apart(model, decoder) > 2 * TOLERANCE


@torch.no_grad()
def test_dense_layers_of_one_input_are_one_product() -> None:
    packed: Any = pack_model(other("Qwen2")).hf_model
    expected = packed(torch.tensor([PROMPT])).logits
    before = sum(p.numel() for p in packed.parameters())
    Decoder(packed, 16)
    attention = packed.model.layers[0].self_attn
    parts = [layer.weight for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1  # and no second copy
    assert sum(p.numel() for p in packed.parameters()) == before
    assert torch.equal(packed(torch.tensor([PROMPT])).logits, expected)


@torch.no_grad()
def test_greedy_text_is_that_of_transformers() -> None:
    model = compress(llama(seed=3))
    found = Decoder(pack_model(model).hf_model, 64).generate(PROMPT, 20)
    ids = list(PROMPT)
    for token in found:  # at a near tie bfloat16 may choose the other one
        logits = model.hf_model(torch.tensor([ids])).logits[0, -1]
        assert logits[token] > logits.max() - 0.03 * logits.abs().max()
        ids.append(token)
    assert len(found) == 20


@torch.no_grad()
def test_a_corrected_layer_is_not_left_out() -> None:
    model = compress(llama())
    name = "model.layers.1.mlp.up_proj"
    weight = model.weights[name]
    left, right = torch.randn(96, 4).half(), torch.randn(4, 64).half()
    model.set_weight(name, CorrectedWeight(weight, left, right))
    given = Decoder(pack_model(model).hf_model, 16).prefill(PROMPT).float()
    expected = model.hf_model(torch.tensor([PROMPT])).logits[0, -1]
    assert (given - expected).abs().max() < 0.03 * expected.abs().max()


def test_a_new_prompt_starts_anew() -> None:
    decoder = Decoder(pack_model(llama()).hf_model, 16)
    first = decoder.prefill(PROMPT)
    decoder.step(3)
    assert torch.equal(decoder.prefill(PROMPT), first)


def test_the_capacity_is_kept() -> None:
    model = pack_model(llama()).hf_model
    decoder = Decoder(model, 8)
    decoder.prefill(PROMPT)
    decoder.step(1)
    with pytest.raises(ConfigError, match="used up"):
        decoder.step(1)
    with pytest.raises(ConfigError, match="give 1 to 8"):
        decoder.prefill([1] * 9)
    with pytest.raises(ConfigError, match="1 to 128"):
        Decoder(model, 129)
    window = pack_model(other("Mistral", sliding_window=16)).hf_model
    with pytest.raises(ConfigError, match="1 to 16"):
        Decoder(window, 17)


def test_other_architectures_are_refused() -> None:
    model = load_model(tiny_model("GPT2LMHeadModel"), tiny_tokenizer()).hf_model
    assert why_not_lean(pack_model(llama()).hf_model) is None
    assert "float32" in (why_not_lean(llama().hf_model) or "")
    elsewhere = pack_model(llama()).hf_model.to("meta")
    assert "meta" in (why_not_lean(elsewhere) or "")
    assert "GPT2LMHeadModel" in (why_not_lean(model) or "")
    with pytest.raises(UnsupportedArchitectureError, match=r"hf_model\.generate"):
        Decoder(model, 8)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert "dynamic" in (why_not_lean(llama(rope_parameters=dynamic).hf_model) or "")
