"""Runs written in every format: what fits, what is refused and why, and what is read again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exported import exported
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from tests.toy import CALIBRATION, toy_study, toy_task
from workbench.errors import ConfigError, ExportError, StudyError
from workbench.export import FORMATS, offers
from workbench.export.convert import convert
from workbench.models.load import load_model
from workbench.models.loaded import ClassificationHead
from workbench.models.sources import read_headers
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    DepthPruning,
    LowRankCorrection,
    MagnitudePruning,
    Mixed,
    QuantizeEmbeddings,
)
from workbench.study import Study
from workbench.tensors.packing import mlx

RTN4 = RTN(4, group_size=8)
WIDE = {
    **ARCHITECTURES["Llama"],
    "intermediate_size": 64,
    "vocab_size": 264,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return toy_study(tmp_path_factory.mktemp("export") / "study")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A model whose layers have whole blocks of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Wide", WIDE | {"class": "LlamaForCausalLM"})
        model = load_model(tiny_model("Wide").half(), tiny_tokenizer(("q", "u")))
    folder = tmp_path_factory.mktemp("wide") / "study"
    return Study(model, toy_task(), folder, calibration=CALIBRATION)


@pytest.mark.parametrize(
    ("format", "step"),
    [
        ("hf", MagnitudePruning(0.5)),
        ("hf", DepthPruning(1)),
        ("hf", RTN4),
        ("gptq", RTN4),
        ("gptq", RTN(4, group_size=None)),
        ("gptq_v1", RTN(4, group_size=8, symmetric=True)),
        ("gptq_v2", RTN(8, group_size=8)),
        ("awq", RTN4),
        ("awq", AWQ(4, group_size=8, exportable=True)),
        ("compressed-tensors", RTN4),
        ("compressed-tensors", RTN(8, group_size=None, symmetric=True)),
        ("int-quantized", RTN(8, group_size=8, symmetric=True)),
    ],
    ids=str,
)
def test_what_is_written_is_read_again(
    study: Study, format: str, step: Any, tmp_path: Path
) -> None:
    run = study.run(step)
    predicted = run.export_bytes(format)
    exported = run.export(tmp_path / "out", format)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert sum(n for _, n in read_headers(files).values()) == predicted == exported.tensor_bytes
    model, found = run.model(), load_model(tmp_path / "out")
    assert found.stored_dtype == model.stored_dtype
    if format != "hf":
        # Of 8 rows in 4 bits compressed-tensors does not read the zero points.
        dense = exported.kept_dense
        assert set(dense) <= {f"model.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "kv"}
        assert bool(dense) == (format == "compressed-tensors" and step == RTN4)
        assert dense or found.size_bytes == model.size_bytes
        assert set(found.weights) == set(model.weights) - set(dense)
        for name, weight in found.weights.items():
            assert torch.equal(weight.dequantize(), model.weights[name].dequantize())
    rows = {m.metric: m for m in run.record.measurements if m.part == "export"}
    assert rows["export_bytes"].value == exported.bytes_on_disk
    assert rows["export_difference"].value == exported.largest_difference
    assert {row.how for row in rows.values()} >= {format}
    assert exported.proof.relative <= exported.proof.bound


@pytest.mark.parametrize(
    "recipe",
    [
        [],
        MagnitudePruning(0.5),
        GPTQ(4, group_size=32),
        RTN(3, group_size=32, symmetric=True),
        [RTN(8, group_size=None, symmetric=True), QuantizeEmbeddings(8, symmetric=True)],
    ],
    ids=str,
)
def test_a_gguf_file_is_read_again(wide: Study, recipe: Any, tmp_path: Path) -> None:
    run = wide.run(recipe)
    exported = run.export(tmp_path / "out", "gguf")
    assert exported.tensor_bytes == run.export_bytes("gguf")
    assert exported.largest_difference < 1e-5  # dense tensors lie elsewhere in memory
    found = load_model(tmp_path / "out")
    codes = {n for n, w in run.model().weights.items() if w.kind == "quantized"}
    assert set(found.weights) == codes


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A model of which only the last layer of a network has no width of a multiple of 256."""
    wide = WIDE | {"hidden_size": 256, "intermediate_size": 288, "class": "LlamaForCausalLM"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Blocks", wide)
        model = load_model(tiny_model("Blocks"), tiny_tokenizer(("q", "u")))
    folder = tmp_path_factory.mktemp("blocks") / "study"
    return Study(model, toy_task(), folder, calibration=CALIBRATION)


@pytest.mark.parametrize(
    "recipe",
    [
        GPTQ(4, grid="q4_k"),
        AWQ(5, grid="q5_k", exportable=True),
        [RTN(2, grid="q2_k"), QuantizeEmbeddings(6, grid="q6_k")],
        [MagnitudePruning(0.3), GPTQ(3, grid="q3_k")],
    ],
    ids=str,
)
def test_k_quants_are_read_again_as_they_are(blocks: Study, recipe: Any, tmp_path: Path) -> None:
    run = blocks.run(recipe)
    assert blocks.predict(recipe).size_bytes == run.size_bytes
    done = run.export(tmp_path / "out", "gguf")
    assert done.tensor_bytes == run.export_bytes("gguf")
    assert not done.kept_dense
    found, model = load_model(tmp_path / "out"), run.model()
    assert set(found.weights) == set(model.weights)
    for name, weight in model.weights.items():
        assert found.weights[name].kind == weight.kind
        # The minimum of Q5_1 is a product that is rounded to float16.
        assert torch.allclose(found.weights[name].dequantize(), weight.dequantize(), atol=1e-4)
        if weight.kind == "superblocks":
            assert torch.equal(found.weights[name].dequantize(), weight.dequantize())
    beside = run.record.facts["beside_grid"]
    assert set(beside) == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    assert "is no multiple of 256" in (tmp_path / "out/README.md").read_text()
    offer = {offer.format: offer for offer in run.export_offers()}["mlx"]
    reason = "which GGUF files alone hold"
    assert any(reason in why for why in [offer.refusal or "", *offer.kept_dense.values()])


def test_k_quants_pass_through_a_conversion(blocks: Study, tmp_path: Path) -> None:
    made = blocks.run(RTN(4, grid="q4_k")).export(tmp_path / "one", "gguf")
    convert(made.path, tmp_path / "two", "gguf")
    first, second = load_model(made.path), load_model(tmp_path / "two")
    for name, weight in first.weights.items():
        assert torch.equal(second.weights[name].dequantize(), weight.dequantize())
    with pytest.raises(ExportError, match="which GGUF files alone hold"):
        convert(made.path, tmp_path / "three", "mlx")


@pytest.mark.parametrize(
    "recipe",
    [
        GPTQ(4, group_size=32),
        RTN(3, group_size=32, symmetric=True),
        [RTN(5, group_size=None), QuantizeEmbeddings(8)],
    ],
    ids=str,
)
def test_an_mlx_folder_is_read_again(wide: Study, recipe: Any, tmp_path: Path) -> None:
    run = wide.run(recipe)
    exported = run.export(tmp_path / "out", "mlx")
    assert exported.tensor_bytes == run.export_bytes("mlx")
    found, model = load_model(tmp_path / "out"), run.model()
    assert set(found.weights) == set(model.weights)
    for name, weight in found.weights.items():
        assert torch.equal(weight.dequantize(), model.weights[name].dequantize())
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["quantization"]["bits"] in mlx.BITS
    assert about["rope_theta"] == model.hf_model.config.rope_parameters["rope_theta"]


def test_the_table_does_not_show_proofs_as_metrics(study: Study, tmp_path: Path) -> None:
    study.run(RTN4).export(tmp_path / "out", "gptq")
    assert not [name for name in study.table().columns if "export" in name]


def refused(study: Study, recipe: Any, format: str) -> str:
    """Return the reason, after making sure that nothing is written."""
    run = study.run(recipe)
    offer = next(offer for offer in run.export_offers() if offer.format == format)
    assert offer.size_bytes is None
    assert offer.refusal is not None
    target = study.path.parent / "refused"
    with pytest.raises(ExportError) as caught:
        run.export(target, format)
    assert str(caught.value) == offer.refusal
    assert not target.exists()
    return offer.refusal


@pytest.mark.parametrize(
    ("recipe", "format", "reason", "nearest"),
    [
        ([], "gptq", "none of its layers is stored as integer codes", "hf"),
        (MagnitudePruning(0.5), "awq", "none of its layers is stored as integer codes", "hf"),
        ([RTN4, LowRankCorrection(2)], "gptq", "low-rank correction", "hf"),
        (RTN(3, group_size=8), "compressed-tensors", "3 bits, and it has 2, 4, 8 only", "hf"),
        (RTN(4, group_size=32), "gptq", "16 inputs in groups of 32", "onnx"),
        (RTN(4, group_size=128), "awq", "16 inputs in groups of 128", "onnx"),
        (RTN(2, group_size=8), "awq", "2 bits, and it has 4 only", "gptq"),
        (RTN(8, group_size=8), "int-quantized", "symmetric codes only", "gptq"),
        (RTN4, "gguf", "multiple of 32", "awq"),
        (RTN4, "mlx", "whole groups of a multiple of 32", "awq"),
    ],
    ids=str,
)
def test_refusals(study: Study, recipe: Any, format: str, reason: str, nearest: str) -> None:
    text = refused(study, recipe, format)
    assert reason in text
    assert repr(nearest) in text


def test_mixed_precision_goes_where_every_layer_has_its_own(study: Study, tmp_path: Path) -> None:
    groups = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj"]
    steps = [RTN(4, group_size=8, symmetric=True), RTN(8, group_size=8, symmetric=True)]
    mixed = Mixed(steps, dict(zip(groups, (0, 1), strict=True)))
    text = refused(study, mixed, "gptq")
    assert "2 different number formats" in text
    assert "'compressed-tensors'" in text
    study.run(mixed).export(tmp_path / "out", "compressed-tensors")
    about = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert [g["weights"]["num_bits"] for g in about["config_groups"].values()] == [4, 8]
    assert "model.layers.1.mlp.up_proj" in about["ignore"]
    asymmetric = Mixed([RTN4, RTN(8, group_size=8)], dict(zip(groups, (0, 1), strict=True)))
    assert "symmetric=True" in refused(study, asymmetric, "compressed-tensors")


def test_zero_points_of_zero_need_version_two(wide: Study) -> None:
    run = wide.run(RTN(2, group_size=8))
    zeros = [w.zeros for w in run.model().weights.values()]  # type: ignore[attr-defined]
    assert any(bool((z == 0).any()) for z in zeros)
    assert "version 1 cannot store" in refused(wide, RTN(2, group_size=8), "gptq_v1")


def test_an_unknown_format(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'hf', 'gptq'"):
        study.run(RTN4).export(tmp_path / "out", "ggml")


def test_a_run_that_is_not_done(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour = tmp_path / "behaviour"
    behaviour.write_text("fail")
    monkeypatch.setenv("TOY_BEHAVIOUR", str(behaviour))
    with pytest.raises(MemoryError):
        study.run(RTN(5, group_size=8))
    with pytest.raises(StudyError, match="is failed"):
        study.runs[-1].export(tmp_path / "out")


@pytest.mark.parametrize("architecture", ["GPT2", "Mixtral", "Bert", "Qwen3Moe"])
def test_other_architectures_are_offered_what_they_fit(architecture: str) -> None:
    from workbench.compression.compress import compress
    from workbench.recipes.recipe import Recipe

    model = load_model(tiny_model(architecture), tiny_tokenizer())
    found = {o.format: o for o in offers(compress(model, Recipe.of(RTN4)).model)}
    assert found["hf"].refusal is None
    assert found["gptq"].refusal is not None
    packed = found["compressed-tensors"]
    assert (packed.refusal is None) == (architecture != "GPT2")
    assert all("symmetric=True" in why for why in packed.kept_dense.values())
    assert bool(packed.kept_dense) == ("Moe" in architecture or architecture == "Mixtral")


@pytest.mark.parametrize(
    "format", ["compressed-tensors", "int-quantized", "gptq", "gptq_v2", "awq"]
)
def test_a_layer_that_does_not_fit_is_dense_and_named_and_counted(
    format: str, study: Study, tmp_path: Path
) -> None:
    """Groups of 16 do not divide the 24 inputs of the last layer of a network."""
    bits = 8 if format == "int-quantized" else 4
    run = study.run(RTN(bits, group_size=16, symmetric=True))
    offer = {offer.format: offer for offer in run.export_offers()}[format]
    done = run.export(tmp_path / "out", format)
    assert set(done.kept_dense) == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    assert done.kept_dense == offer.kept_dense
    assert "2 compressed layers are dense in it (first: model.layers.0" in str(done)
    assert done.tensor_bytes == done.predicted_bytes == offer.size_bytes
    found = load_model(tmp_path / "out")
    assert set(found.weights) == set(run.model().weights) - set(done.kept_dense)  # type: ignore[attr-defined]
    card = (tmp_path / "out/README.md").read_text()
    assert "2 layers that are compressed in the run are stored densely" in card
    assert "24 inputs in groups of 16, so its last group is short" in card
    about = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    if format == "awq":
        assert about["modules_to_not_convert"] == list(done.kept_dense)
    elif "gptq" in format:  # GPTQModel and vLLM read the one, optimum the other
        rules = [rule.removeprefix("-:") for rule in about["dynamic"]]
        left = {name for name in run.model().weights for rule in rules if re.match(rule, name)}
        assert left == set(done.kept_dense)
        assert set(about["modules_in_block_to_quantize"][0]) == set(found.weights)
    else:
        assert set(done.kept_dense) < set(about["ignore"])


def test_layers_that_loaders_join_are_dense_together(tmp_path: Path) -> None:
    """Keys and values of 4 rows do not fill words of 4 bits, so that queries are dense, too."""
    narrow = WIDE | {"num_key_value_heads": 1, "head_dim": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Narrow", narrow | {"class": "LlamaForCausalLM"})
        model = load_model(tiny_model("Narrow"), tiny_tokenizer(("q", "u")))
    study = Study(model, toy_task(), tmp_path / "study", calibration=CALIBRATION)
    for format in ("gptq", "awq"):
        done = study.run(RTN4).export(tmp_path / format, format)
        names = {name.rpartition(".")[2] for name in done.kept_dense}
        assert names == {"q_proj", "k_proj", "v_proj"}
        assert "join it with" in done.kept_dense["model.layers.0.self_attn.q_proj"]


def test_inputs_that_a_format_does_not_scale_are_of_dense_layers(
    study: Study, tmp_path: Path
) -> None:
    run = study.run(AWQ(4, group_size=8))
    done = run.export(tmp_path / "out", "awq")
    scaled = {n for n, w in run.model().weights.items() if w.input_scales is not None}
    assert set(done.kept_dense) == scaled
    assert all("exportable=True" in why for why in done.kept_dense.values())


def test_embeddings_that_a_format_has_no_codes_for_are_dense(study: Study, tmp_path: Path) -> None:
    done = study.run([RTN4, QuantizeEmbeddings(8)]).export(tmp_path / "out", "gptq")
    assert all("outside of the blocks" in why for why in done.kept_dense.values())
    about = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert "dynamic" not in about  # loaders look for codes within the blocks only


def test_an_encoder_keeps_its_head(tmp_path: Path) -> None:
    from workbench.compression.compress import compress
    from workbench.recipes.recipe import Recipe

    model = load_model(tiny_model("Bert"), tiny_tokenizer())
    model.head = ClassificationHead(torch.randn(2, 32), torch.zeros(2), ("yes", "no"))
    small = compress(model, Recipe.of(RTN4)).model
    done = exported(small, tmp_path / "out", "compressed-tensors")
    assert done.tensor_bytes == done.predicted_bytes
    found = load_model(tmp_path / "out")
    assert found.head is not None
    assert found.head.labels == ("yes", "no")
    assert torch.equal(found.head.weight, model.head.weight)
    assert set(found.weights) == set(small.weights)


def test_the_card_does_not_say_where_folders_lie(study: Study, tmp_path: Path) -> None:
    base = study.run([]).export(tmp_path / "secret" / "base", "hf").path
    own = Study(base, toy_task(), tmp_path / "study", calibration=CALIBRATION)
    folder = own.run(RTN4).export(tmp_path / "out", "gptq").path
    card = (folder / "README.md").read_text()
    assert "A compressed copy of `" in card
    assert not [p for p in folder.iterdir() if b"secret" in p.read_bytes()]
    folder = own.run([]).export(tmp_path / "dense", "hf").path
    assert "\nA copy of `" in (folder / "README.md").read_text()


def test_the_card_says_what_the_model_is(study: Study, tmp_path: Path) -> None:
    run = study.run(GPTQ(4, group_size=8))
    run.export(tmp_path / "out", "gptq")
    card = (tmp_path / "out/README.md").read_text()
    assert "study.run(wb.GPTQ(4, group_size=8))" in card
    assert "512 tokens to solve" in card
    found = run.record.measurement("mean_loss")
    assert found is not None
    assert found.stderr is not None
    low, high = found.value - 1.96 * found.stderr, found.value + 1.96 * found.stderr
    assert f"| mean_loss | {found.value:.4g} ({low:.4g} to {high:.4g}) |" in card
    assert 'from_pretrained("FOLDER"' in card
    assert f"| tensors in this format | {run.export_bytes('gptq'):,} |" in card
    assert "torch" in card
    for name in FORMATS:
        if FORMATS[name].obstacle(run.model()) is None:
            assert "FOLDER" in FORMATS[name].loading(run.model())
