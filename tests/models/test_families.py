"""Every architecture that users bring is the checkpoint that transformers loads, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.models.families import FAMILIES, PARTLY, family_folder, family_model
from tests.tiny import ARCHITECTURES, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.export.hf import HuggingFace
from workbench.models.architectures import auto_class
from workbench.models.load import LoadedModel, load_model, save_model
from workbench.models.precision import generic_name
from workbench.models.structure import drop_blocks
from workbench.recipes import Cast
from workbench.recipes.recipe import Recipe
from workbench.storage.artifacts import load_weights, save_weights

IDS = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))
README = [kind for kind in ARCHITECTURES if kind != "ViT"]
KEPT = {
    "DeepseekV3": {"gate.weight", "gate.e_score_correction_bias"},
    "Glm4Moe": {"gate.weight", "gate.e_score_correction_bias"},
    "Lfm2Moe": {"expert_bias"},
    "NemotronH": {"gate.weight", "gate.e_score_correction_bias"},
    "Ernie4_5_Moe": {"gate.weight", "moe_statics.e_score_correction_bias"},
    "HunYuanMoEV1": {"gate.wg.weight"},  # made so by its constructor, no list names it
}


@torch.no_grad()
def logits(hf_model: PreTrainedModel) -> torch.Tensor:
    extra = {"decoder_input_ids": IDS} if hf_model.config.is_encoder_decoder else {}
    return hf_model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra)[0]


def theirs(folder: Path, like: LoadedModel, dtype: str | torch.dtype) -> PreTrainedModel:
    auto = auto_class(like.source.architecture)
    return auto.from_pretrained(folder, dtype=dtype)


def dtypes(hf_model: PreTrainedModel) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in hf_model.state_dict().items()}


@pytest.mark.parametrize("kind", [*FAMILIES, *PARTLY, *README])
def test_logits_are_those_of_transformers_own_loading(kind: str, tmp_path: Path) -> None:
    folder = family_folder(kind, tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(folder, dtype=dtype, device="cpu")
        expected = theirs(folder, model, dtype)
        own = dtypes(expected)  # before it has run: Switch casts its routers then
        assert dtypes(model.hf_model) == own
        assert torch.equal(logits(model.hf_model), logits(expected))
    live = load_model(family_model(kind), tiny_tokenizer(), dtype="bfloat16", device="cpu")
    if type(live.hf_model) is type(expected):
        assert dtypes(live.hf_model) == own
        assert torch.equal(logits(live.hf_model), logits(expected))


@pytest.mark.parametrize("kind", KEPT)
def test_what_a_class_keeps_in_float32_stays_so_wherever_it_is_written(
    kind: str, tmp_path: Path
) -> None:
    family_model(kind).save_pretrained(tmp_path / "wide")
    half = family_folder(kind, tmp_path / "half")
    theirs(half, load_model(half), torch.bfloat16).save_pretrained(half)
    model = load_model(half, dtype="bfloat16", device="cpu")
    assert model.stored_dtype == torch.bfloat16
    assert {name.split("*.")[-1].split(".", 1)[1] for name in model.wide} == KEPT[kind]
    written = sum(f.stat().st_size for f in half.glob("*.safetensors"))
    assert 0 < written - model.size_bytes < 20_000  # the header
    assert load_model(half, device="cpu").wide == model.wide

    save_model(model, tmp_path / "saved")
    HuggingFace().write(model, tmp_path / "exported")
    assert HuggingFace().predicted_bytes(model) == model.size_bytes
    save_weights(tmp_path / "run.safetensors", model)
    restored = load_weights(tmp_path / "run.safetensors", model)
    expected = logits(theirs(half, model, torch.bfloat16))
    assert torch.equal(logits(restored.hf_model), expected)
    assert restored.size_bytes == model.size_bytes
    for folder in (tmp_path / "saved", tmp_path / "exported"):
        assert torch.equal(logits(theirs(folder, model, "auto")), expected)
        again = load_model(folder, dtype="bfloat16", device="cpu")
        assert again.fingerprint == model.fingerprint
        assert again.wide == model.wide


@pytest.mark.parametrize("kind", KEPT)
def test_cast_leaves_what_the_class_keeps(kind: str, tmp_path: Path) -> None:
    model = load_model(family_folder(kind, tmp_path / "wide"), device="cpu")
    cast = compress(model, Recipe.of(Cast("bfloat16"))).model
    kept = {n for n in cast.hf_model.state_dict() if generic_name(n) in cast.wide}
    assert {name for name in kept if name.endswith(tuple(KEPT[kind]))} == kept != set()
    for name, tensor in cast.hf_model.state_dict().items():
        given = model.hf_model.state_dict()[name]
        expected = given if name in kept else given.bfloat16().float()
        assert torch.equal(tensor, expected), name
    HuggingFace().write(cast, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    in_bfloat16 = load_model(tmp_path / "wide", dtype="bfloat16", device="cpu")
    assert torch.equal(logits(theirs(tmp_path / "out", cast, "auto")), logits(in_bfloat16.hf_model))


def test_a_tensor_in_more_bits_than_the_rest_is_kept_through_a_study(tmp_path: Path) -> None:
    """Not only what a class names: a checkpoint may hold any tensor in float32."""
    half = family_model("Granite").bfloat16()
    norm = half.model.layers[1].input_layernorm
    norm.weight.data = norm.weight.data.float() + 1e-4
    half.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for model in (load_model(tmp_path, device="cpu"), load_model(half, tiny_tokenizer())):
        assert model.wide == {"model.layers.*.input_layernorm.weight"}
        assert model.hf_model.dtype == torch.float32
        exact = model.hf_model.model.layers[1].input_layernorm.weight
        assert torch.equal(exact, norm.weight)
        save_weights(tmp_path / "run", model)
        assert load_weights(tmp_path / "run", model).fingerprint == model.fingerprint


def test_a_model_of_fewer_blocks_computes_in_the_same_dtypes(tmp_path: Path) -> None:
    model = load_model(family_model("Llama"), tiny_tokenizer(), dtype="bfloat16", device="cpu")
    norm = model.hf_model.model.layers[0].input_layernorm.weight
    norm.data = norm.data.float()
    smaller = drop_blocks(model, [1]).hf_model
    assert dtypes(smaller)["model.layers.0.input_layernorm.weight"] == torch.float32
    assert dtypes(smaller)["model.norm.weight"] == torch.bfloat16
