"""Compressed checkpoints as models: read with torch alone, compared, and compressed further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config

from tests.models.families import family_model
from tests.tiny import tiny_tokenizer
from tests.toy import CALIBRATION, toy_study, toy_task
from workbench.errors import ModelNotFoundError, StudyError, UnsupportedArchitectureError
from workbench.models.load import load_model, save_model
from workbench.recipes import RTN, DepthPruning, FineTuning, MagnitudePruning
from workbench.study import Study
from workbench.tensors.weights import PermutedWeight, QuantizedWeight


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return toy_study(tmp_path_factory.mktemp("reading") / "study")


@pytest.fixture
def folder(source: Study, tmp_path: Path) -> Path:
    """A GPTQ checkpoint in 4 bits."""
    return source.run(RTN(4, group_size=8)).export(tmp_path / "gptq", "gptq").path


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= values
    path.write_text(json.dumps(config))


def test_a_study_of_it(folder: Path, source: Study, tmp_path: Path) -> None:
    run = source.run(RTN(4, group_size=8))
    study = Study(folder, toy_task(), tmp_path / "study", calibration=CALIBRATION)
    baseline = study.run([])
    assert baseline.size_bytes == run.size_bytes
    assert baseline.label == "4-bit codes"
    assert list(study.table()["recipe"]) == ["4-bit codes"]
    assert "(4-bit codes baseline)" in study.lineage().table["recipe"].iloc[0]
    assert "4-bit codes baseline" in [trace.name for trace in study.plot().data]
    expected, found = run.record.measurement("mean_loss"), baseline.record.measurement("mean_loss")
    assert expected is not None
    assert found is not None
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    smaller = study.run(RTN(2, group_size=8))
    assert smaller.size_bytes is not None
    assert smaller.size_bytes < (baseline.size_bytes or 0)
    tuned = study.run(FineTuning("scales", epochs=0.5))
    assert tuned.size_bytes == baseline.size_bytes
    assert {w.kind for w in tuned.model().weights.values()} == {
        w.kind for w in baseline.model().weights.values()
    }
    dense = study.run(MagnitudePruning(0.5))
    assert {w.kind for w in dense.model().weights.values()} == {"pruned"}
    shorter = study.run(DepthPruning(1)).model()
    assert shorter.weights == {}
    study.close()
    reopened = Study.open(tmp_path / "study")
    assert reopened.run(RTN(3, group_size=8)).model().weights


def test_it_is_another_model_than_the_dense_one_with_its_values(
    folder: Path, source: Study, tmp_path: Path
) -> None:
    dense = load_model(source.run(RTN(4, group_size=8)).export(tmp_path / "hf", "hf").path)
    assert load_model(folder).fingerprint != dense.fingerprint
    assert load_model(folder).fingerprint == load_model(folder).fingerprint


def test_weights_that_were_compressed_here_are_no_base_model(
    folder: Path, source: Study, tmp_path: Path
) -> None:
    model = source.run(RTN(4, group_size=8)).model()
    with pytest.raises(StudyError, match="export the run"):
        Study(model, toy_task(), tmp_path / "study")
    changed = load_model(folder)
    weight = next(iter(changed.weights.values()))
    assert isinstance(weight, QuantizedWeight)
    name = next(iter(changed.weights))
    changed.set_weight(name, weight.rows_divided(torch.full((weight.shape[0],), 2.0)) or weight)
    with pytest.raises(StudyError, match="compressed here"):
        Study(changed, toy_task(), tmp_path / "study")


def test_where_its_texts_end(folder: Path) -> None:
    """Chat models end at several tokens, and only generation_config.json says so."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, 7]}))
    assert load_model(folder).hf_model.generation_config.eos_token_id == [2, 7]


def test_act_order_is_read_as_permuted(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    names = [name for name in tensors if name.endswith("q_proj.g_idx")]
    for name in names:
        tensors[name] = tensors[name][order].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    model = load_model(folder)
    kinds = {n: type(w) for n, w in model.weights.items()}
    assert {kinds[n.removesuffix(".g_idx")] for n in names} == {PermutedWeight}
    weight = model.weights["model.layers.0.self_attn.q_proj"]
    assert torch.equal(
        weight.dequantize(), model.hf_model.get_submodule("model.layers.0.self_attn.q_proj").weight
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quant_method": "bitsandbytes"}, "the workbench reads gptq, awq, compressed-tensors"),
        ({"checkpoint_format": "marlin"}, "reads gptq and gptq_v2"),
        ({"bits": 8}, "not those of such a checkpoint|cannot be read|could not load"),
        ({"quant_method": "awq", "version": "gemv"}, "reads 'gemm' with 4"),
    ],
    ids=str,
)
def test_what_cannot_be_read(folder: Path, values: dict[str, Any], words: str) -> None:
    change(folder, **values)
    with pytest.raises(UnsupportedArchitectureError, match=words):
        load_model(folder)


def test_missing_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.scales"]
    save_file(tensors, path)
    with pytest.raises(UnsupportedArchitectureError, match="not those of such a checkpoint"):
        load_model(folder)


@pytest.mark.parametrize("place", ["input_activations", "output_activations"])
def test_activations_that_are_quantized_too(source: Study, tmp_path: Path, place: str) -> None:
    folder = source.run(RTN(4, group_size=8)).export(tmp_path / "ct", "compressed-tensors").path
    group = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
    more = {"targets": ["LlamaAttention"], "weights": None}  # a group for what has no weights
    change(folder, config_groups={**group, "group_1": more})
    assert load_model(folder).weights
    more[place] = {"num_bits": 8, "type": "int"}
    change(folder, config_groups={**group, "group_1": more})
    with pytest.raises(UnsupportedArchitectureError, match="quantizes activations too"):
        load_model(folder)
    group["group_0"][place] = {"num_bits": 8, "type": "int"}
    change(folder, config_groups=group)
    with pytest.raises(UnsupportedArchitectureError, match="quantizes activations too"):
        load_model(folder)


def test_a_cache_that_is_quantized_too(source: Study, tmp_path: Path) -> None:
    folder = source.run(RTN(4, group_size=8)).export(tmp_path / "ct", "compressed-tensors").path
    change(folder, kv_cache_scheme={"num_bits": 8, "type": "float", "symmetric": True})
    with pytest.raises(UnsupportedArchitectureError, match="kv_cache_scheme"):
        load_model(folder)
    change(folder, kv_cache_scheme=None)
    assert load_model(folder).weights


def test_both_layouts_in_one_checkpoint(source: Study, tmp_path: Path) -> None:
    """A layer of int8 beside packed ones is codes too, not a dense layer of whole numbers."""
    step = RTN(8, group_size=8, symmetric=True)
    folder = source.run(step).export(tmp_path / "packed", "compressed-tensors").path
    plain = source.run(step).export(tmp_path / "plain", "int-quantized").path
    name = "model.layers.0.mlp.up_proj"
    tensors, other = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    tensors = {n: t for n, t in tensors.items() if not n.startswith(name)}
    tensors |= {n: t for n, t in other.items() if n.startswith(name)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_model(folder).weights[name].dequantize()
    assert torch.equal(found, source.run(step).model().weights[name].dequantize())


@pytest.mark.parametrize("format", ["compressed-tensors", "int-quantized"])
def test_one_scale_for_a_whole_tensor(source: Study, format: str, tmp_path: Path) -> None:
    step = RTN(8, group_size=None, symmetric=True)
    folder = source.run(step).export(tmp_path / "out", format).path
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    tensors[f"{name}.weight_scale"] = torch.tensor([0.5])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    weight = load_model(folder).weights[name]
    assert isinstance(weight, QuantizedWeight)
    assert weight.scales.shape == (weight.shape[0], 1)
    assert torch.equal(weight.dequantize(), 0.5 * (weight.codes.float() - 128))
    assert weight.stored_bytes == sum(t.numel() * t.itemsize for t in weight.tensors().values())


@pytest.mark.parametrize(
    ("location", "read"), [("input", False), ("weight_output", True)], ids=["input", "weight"]
)
def test_transforms_that_a_loader_would_have_to_compute(
    source: Study, location: str, read: bool, tmp_path: Path
) -> None:
    step = RTN(4, group_size=8)
    folder = source.run(step).export(tmp_path / "out", "compressed-tensors").path
    apply = [{"targets": ["Linear"], "location": location}]
    change(folder, transform_config={"config_groups": {"v": {"type": "hadamard", "apply": apply}}})
    if read:
        assert load_model(folder).weights
    else:
        with pytest.raises(UnsupportedArchitectureError, match="transform_config"):
            load_model(folder)


@pytest.mark.parametrize("size", [4, -1])
def test_groups_that_its_scales_are_not_of(source: Study, size: int, tmp_path: Path) -> None:
    folder = source.run(RTN(4, group_size=8)).export(tmp_path / "out", "awq").path
    change(folder, group_size=size)
    with pytest.raises(UnsupportedArchitectureError, match="has scales of shape"):
        load_model(folder)


def test_a_gguf_file_beside_a_model_in_several_files(source: Study, tmp_path: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    folder = source.run([]).export(tmp_path / "out", "hf").path
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_torch_state_dict(tensors, folder, max_shard_size=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    (folder / "other.gguf").write_bytes(b"GGUF")
    assert load_model(folder).fingerprint == source.run([]).model().fingerprint


def test_several_gguf_files(tmp_path: Path, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match="several GGUF files"):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_in_mxfp4_are_read_as_transformers_reads_them(dtype, tmp_path):
    """Random blocks and scales: every code and sixteen powers of two."""
    generator = torch.Generator().manual_seed(0)
    model = family_model("GptOss", intermediate_size=32).bfloat16()
    state = model.state_dict()
    for name in [n for n in state if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = state.pop(name).shape
        shape = (experts, rows, columns // 32)
        state[f"{name}_blocks"] = torch.randint(
            256, (*shape, 16), generator=generator, dtype=torch.uint8
        )
        state[f"{name}_scales"] = torch.randint(
            112, 128, shape, generator=generator, dtype=torch.uint8
        )
    model.config.architectures = ["GptOssForCausalLM"]
    model.config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    about = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    config = json.loads(path.read_text()) | {"quantization_config": about}
    path.write_text(json.dumps(config))
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "model.safetensors")
    tiny_tokenizer().save_pretrained(tmp_path)

    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=dtype, quantization_config=Mxfp4Config(dequantize=True)
    )
    ours = load_model(tmp_path, dtype=dtype, device="cpu")
    assert ours.stored_dtype == torch.bfloat16
    assert ours.weights == {}
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.hf_model.state_dict()[name], tensor), name
    ids = torch.randint(4, 260, (2, 9), generator=generator)
    assert torch.equal(ours.hf_model(input_ids=ids).logits, theirs(input_ids=ids).logits)
    save_model(ours, tmp_path / "dense")  # what is written is no longer quantized
    assert load_model(tmp_path / "dense", dtype=dtype).fingerprint == ours.fingerprint
