"""Every architecture that users bring is the checkpoint that transformers loads, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

from tests.models.families import (
    FAMILIES,
    PARTLY,
    WRAPPERS,
    family_folder,
    family_model,
    wrapper_model,
)
from tests.models.test_architectures import OPTIONS, RowsTask
from tests.tiny import ARCHITECTURES, tiny_tokenizer
from tests.toy import texts
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import Compressed, compress
from workbench.export.awq import AWQCheckpoint
from workbench.export.base import Format
from workbench.export.compressed_tensors import IntQuantized, PackQuantized
from workbench.export.gptq import GPTQCheckpoint
from workbench.export.hf import HuggingFace
from workbench.export.proof import prove
from workbench.models import layers
from workbench.models.architectures import auto_class
from workbench.models.expert_names import expert_rows
from workbench.models.layers import find_linears
from workbench.models.load import LoadedModel, load_model, save_model
from workbench.models.precision import generic_name
from workbench.models.structure import drop_blocks
from workbench.recipes import GPTQ, RTN, Cast
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import Reference, evaluate
from workbench.storage.artifacts import load_weights, save_weights
from workbench.tasks import LanguageModeling

IDS = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))
README = [kind for kind in ARCHITECTURES if kind != "ViT"]
SMALL_PARTS = ("conv", "A_log", "time_", "per_layer", "router", "relative")
LEFT = {
    "Mamba": "conv1d.weight",
    "Mamba2": "conv1d.weight",
    "Jamba": "A_log",
    "Zamba2": "conv1d.weight",
    "RecurrentGemma": "rg_lru.input_gate_weight",
    "Llama4": "experts.gate_up_proj",
    "Dbrx": "experts.mlp.w1",
    "JetMoe": "mlp.input_linear.weight",
    "SwitchTransformers": "relative_attention_bias.weight",
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    LANGUAGE = LanguageModeling(texts(12), sequence_length=32, max_evaluation_tokens=200)

KEPT = {
    "DeepseekV3": {"gate.weight", "gate.e_score_correction_bias"},
    "Glm4Moe": {"gate.weight", "gate.e_score_correction_bias"},
    "Lfm2Moe": {"expert_bias"},
    "NemotronH": {"gate.weight", "gate.e_score_correction_bias"},
    "Ernie4_5_Moe": {"gate.weight", "gate.moe_statics.e_score_correction_bias"},
    "HunYuanMoEV1": {"gate.wg.weight"},  # made so by its constructor, no list names it
}


@torch.no_grad()
def logits(hf_model: PreTrainedModel) -> torch.Tensor:
    for parameter in hf_model.parameters():
        # The last bits of small products depend on where in memory a matrix begins.
        parameter.data = parameter.data.clone()
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
    for block in model.hf_model.model.layers:
        block.input_layernorm.float()
    smaller = drop_blocks(model, [1]).hf_model
    assert dtypes(smaller)["model.layers.0.input_layernorm.weight"] == torch.float32
    assert dtypes(smaller)["model.norm.weight"] == torch.bfloat16


def compressed_by_gptq(model: LoadedModel, folder: Path) -> Compressed:
    """Return a model after the whole path: calibrated, solved, evaluated."""
    calibrator = Calibrator(RowsTask(), OPTIONS, folder=folder)
    result = compress(model, Recipe.of(GPTQ(4, group_size=16)), calibrator)
    if not model.is_encoder_decoder:
        reference = Reference(model, LANGUAGE)
        dense = evaluate(model, LANGUAGE, reference=reference).measurements
        found = evaluate(result.model, LANGUAGE, reference=reference).measurements
        values = {m.metric: m.value for m in found}
        assert 0 < values["kl"] < 0.1
        assert values["perplexity"] == pytest.approx(dense[0].value, rel=0.2)
    return result


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_goes_through_gptq_and_is_evaluated(kind: str, tmp_path: Path) -> None:
    model = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
    result = compressed_by_gptq(model, tmp_path)
    assert set(result.model.weights) == set(find_linears(model.hf_model))
    # Convolutions of four columns and the like, which are named; all else is compressed.
    left = result.facts.get("left_dense", {})
    assert all(any(part in name for part in SMALL_PARTS) for name in left), left
    assert result.model.size_bytes < model.size_bytes


@pytest.mark.parametrize("kind", PARTLY)
def test_what_no_step_compresses_is_named_and_the_rest_is_compressed(
    kind: str, tmp_path: Path
) -> None:
    model = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
    result = compressed_by_gptq(model, tmp_path)
    left = result.facts["left_dense"]
    assert any(LEFT[kind] in name for name in left)
    kept = result.facts["kept_dense"]
    assert {name for name in left if name in kept or f"{name}.weight" in kept} == set(left)
    assert set(result.model.weights) == set(find_linears(model.hf_model)) - set(left)
    rounded = compress(model, Recipe.of(RTN(8, group_size=16)))
    assert rounded.facts["left_dense"] == left
    path = tmp_path / "run.safetensors"
    save_weights(path, result.model)
    assert torch.equal(logits(load_weights(path, model).hf_model), logits(result.model.hf_model))


def test_a_layer_that_a_short_probe_does_not_touch_is_reached_by_a_longer_one() -> None:
    """Switch has a linear layer per expert, and four tokens do not reach all of them."""
    model = load_model(family_model("SwitchTransformers"), tiny_tokenizer(), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "PROBE_TOKENS", (4,))
        few = {n for group in layers.shared_inputs(model.hf_model) for n in group.names}
        result = compress(model, Recipe.of(RTN(4, group_size=16)))
    every = {n for group in layers.shared_inputs(model.hf_model) for n in group.names}
    assert few < every == set(find_linears(model.hf_model))
    unread = {n for n, why in result.facts["left_dense"].items() if why.startswith("no token")}
    assert unread == every - few
    assert set(result.model.weights) == few


@pytest.mark.parametrize("kind", WRAPPERS)
def test_of_a_model_of_images_and_texts_the_text_part_is_compressed(
    kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    wrapper_model(kind).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    for dtype in (torch.bfloat16, torch.float32):
        model = load_model(folder, dtype=dtype, device="cpu")
        expected = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        assert type(model.hf_model) is type(expected)
        assert torch.equal(logits(model.hf_model), logits(expected))
    assert model.is_decoder
    assert model.max_length == 64
    result = compressed_by_gptq(model, tmp_path / "cache")
    assert {name.split("layers.")[0] for name in result.model.weights} <= {
        "model.language_model.",
        "model.text_model.",
    }
    given = model.hf_model.state_dict()
    changed = {
        name
        for name, tensor in result.model.hf_model.state_dict().items()
        if not torch.equal(tensor, given[name])
    }
    assert changed == {f"{name}.weight" for name in result.model.weights}

    HuggingFace().write(result.model, tmp_path / "out")
    assert (tmp_path / "out/preprocessor_config.json").read_text() == '{"image_mean": [0.5]}'
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    assert torch.equal(logits(whole), logits(result.model.hf_model))
    assert whole.state_dict().keys() == given.keys()
    live = load_model(expected, tiny_tokenizer(), device="cpu")
    assert torch.equal(logits(live.hf_model), logits(expected))


def exported(model: LoadedModel, folder: Path, format: Format) -> PreTrainedModel:
    """Return what transformers loads of an export by the code that its card prints."""
    format.write(model, folder)
    found: dict[str, Any] = {}
    exec(format.loading(model).replace("FOLDER", str(folder)), found)
    return found["model"]


EXPERTS = ("Mixtral", "Olmoe", "Qwen3Moe", "DeepseekV3", "NemotronH", "Jamba")
CARDS = ("Falcon", "ModernBert", "GPTBigCode", "Rwkv", "Bloom", "Lfm2", "Gemma3n", *EXPERTS)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", CARDS)
def test_compressed_tensors_are_loaded_as_the_card_says(
    kind: str, symmetric: bool, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    model = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
    small = compress(model, Recipe.of(RTN(4, group_size=8, symmetric=symmetric))).model
    format = PackQuantized()
    assert format.obstacle(small) is None
    theirs = exported(small, tmp_path, format)
    expected = logits(small.hf_model)
    assert float((logits(theirs) - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    ours = load_model(tmp_path, device="cpu")
    assert set(ours.weights) == set(small.weights) - set(format.kept_dense(small))
    assert torch.equal(logits(ours.hf_model), expected)


@pytest.mark.parametrize("kind", EXPERTS)
def test_experts_are_packed_matrix_by_matrix_if_they_are_symmetric(
    kind: str, tmp_path: Path
) -> None:
    model = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
    sites = find_linears(model.hf_model)
    places = expert_rows(model.hf_model).values()
    experts = {name for name, site in sites.items() if site.index is not None}
    assert {place.site for place in places} == experts
    for name in experts:  # gate and up are one matrix in the model, and two in a checkpoint
        rows = sorted((p.start, p.stop) for p in places if p.site == name)
        stops = [*(start for start, _ in rows[1:]), sites[name].shape[0]]
        assert [stop for _, stop in rows] == stops
    small = compress(model, Recipe.of(RTN(4, group_size=8, symmetric=True))).model
    format = PackQuantized()
    assert not experts & set(format.kept_dense(small))
    format.write(small, tmp_path)
    found = [t for f in tmp_path.glob("*.safetensors") for t in load_file(f).items()]
    assert not any("experts.gate_up_proj" in name for name, _ in found)
    assert sum(tensor.nbytes for _, tensor in found) == format.predicted_bytes(small)
    even = compress(model, Recipe.of(RTN(8, group_size=8, symmetric=True))).model
    assert experts <= set(IntQuantized().kept_dense(even))
    uneven = compress(model, Recipe.of(RTN(4, group_size=8))).model
    reasons = format.kept_dense(uneven)
    assert experts <= set(reasons)
    assert all("symmetric=True" in reasons[name] for name in experts)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_model_of_images_and_texts_is_exported_packed_and_whole(
    kind: str, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    model = load_model(wrapper_model(kind), tiny_tokenizer(), device="cpu")
    small = compress(model, Recipe.of(RTN(4, group_size=8))).model
    assert GPTQCheckpoint().obstacle(small) is not None
    assert AWQCheckpoint().obstacle(small) is not None
    theirs = exported(small, tmp_path, PackQuantized())
    assert type(theirs) is type(small.hf_model)
    for name, tensor in small.hf_model.state_dict().items():
        assert torch.allclose(theirs.state_dict()[name], tensor, atol=1e-6), name


def test_an_export_of_every_family_agrees_with_the_run_in_bfloat16(tmp_path: Path) -> None:
    """Of experts too, where one rounded number sends a token to another one."""
    for kind in ("Olmoe", "Qwen3Moe", "Granite"):
        given = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
        for parameter in given.hf_model.parameters():
            parameter.data.mul_(2)
        given = dataclasses.replace(given, stored_dtype=torch.bfloat16)
        HuggingFace().write(given, tmp_path / kind)
        proof = prove(given, load_model(tmp_path / kind, device="cpu"), LANGUAGE)
        assert 0 < proof.kl < proof.kl_bound
        assert proof.n_predictions > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rwkv_of_many_blocks_keeps_its_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    """Behind six blocks transformers divides the weights when they first run, in place."""
    family_model("Rwkv", num_hidden_layers=14).to(dtype).save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    model = load_model(tmp_path / "m", dtype=dtype, device="cpu")
    known, own = model.fingerprint, theirs(tmp_path / "m", model, dtype)
    expected = logits(own)
    assert torch.equal(logits(model.hf_model), expected)
    assert torch.equal(logits(model.copy().hf_model), expected)
    assert dataclasses.replace(model).fingerprint == known
    live = load_model(own, tiny_tokenizer(), device="cpu", dtype=dtype)  # its weights are divided
    assert live.fingerprint == known
    assert torch.equal(logits(live.hf_model), expected)
    assert torch.equal(logits(own), expected)
    made = compressed_by_gptq(model, tmp_path / "c").model
    for name, given in (("dense", model), ("gptq", made)):
        HuggingFace().write(given, tmp_path / name)
        if dtype == torch.float32:
            found = logits(theirs(tmp_path / name, model, dtype))
            assert torch.equal(found, logits(given.hf_model))
            again = logits(load_model(tmp_path / name, device="cpu").hf_model)
            assert torch.equal(again, found)
    assert not torch.equal(logits(made.hf_model), expected)
