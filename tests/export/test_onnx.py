"""ONNX files: what onnxruntime computes from them is what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.exported import exported
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from tests.toy import toy_study
from workbench.compression.compress import compress
from workbench.errors import ExportError, UnsupportedArchitectureError
from workbench.export.convert import convert
from workbench.export.onnx import FILE, ONNX
from workbench.export.onnx_graph import read_codes
from workbench.models.load import load_model
from workbench.models.loaded import ClassificationHead, LoadedModel
from workbench.recipes import RTN, QuantizeEmbeddings
from workbench.recipes.recipe import Recipe
from workbench.tasks.head import pooled_features
from workbench.tensors.packing import onnx as packing
from workbench.tensors.weights import QuantizedWeight

onnxruntime = pytest.importorskip("onnxruntime")


FAMILIES = sorted(
    set(ARCHITECTURES)
    - {"T5", "ViT", "Falcon-sequential", "Mixtral", "Qwen2Moe", "Qwen3Moe"}  # refused
)


def written(model: LoadedModel, folder: Path) -> Any:
    """Export a model that is no study's, and return a session of the file."""
    done = exported(model, folder, "onnx")
    assert done.tensor_bytes == done.predicted_bytes
    return onnxruntime.InferenceSession(str(folder / FILE))


def small(architecture: str, *steps: Any) -> LoadedModel:
    """Return a tiny model after a recipe."""
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    return compress(model, Recipe.of(list(steps))).model


@pytest.mark.parametrize("bits", packing.BITS)
@pytest.mark.parametrize(("group_size", "blocks"), [(16, 6), (48, 6), (96, 3), (None, 3)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_packed_and_unpacked(
    bits: int, group_size: int | None, blocks: int, symmetric: bool
) -> None:
    from workbench.recipes.schemes import IntScheme

    scheme = IntScheme(bits, group_size, symmetric)
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (5, 96), generator=generator, dtype=torch.uint8)
    groups = scheme.n_groups(96)
    scales = torch.rand(5, groups, generator=generator) + 0.1
    zeros = torch.randint(0, 2**bits, (5, groups), generator=generator)
    weight = QuantizedWeight.from_codes(codes, scales, zeros, scheme)
    tensors = packing.pack(weight)
    assert tensors["codes"].shape == (5, blocks, 96 * bits // 8 // blocks)
    assert sum(t.nbytes for t in tensors.values()) == packing.packed_bytes((5, 96), scheme)
    found = packing.unpack(tensors, bits)
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.dequantize(), weight.dequantize())


def test_a_run_in_onnxruntime_with_its_cache(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "study")
    recipe = [RTN(4, group_size=16), QuantizeEmbeddings(8, group_size=16)]
    run = study.run(recipe)
    predicted = run.export_bytes("onnx")
    exported = run.export(tmp_path / "out", "onnx")
    assert exported.tensor_bytes == predicted
    assert exported.proof.agreement == 1.0
    # Its 24 inputs are no whole groups of 16.
    assert set(exported.kept_dense) == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}

    about = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert about["tokenizer_class"] == "PreTrainedTokenizerFast"  # which transformers 4 knows too

    model, ids = run.model(), torch.randint(4, 200, (2, 9))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / FILE))
    config = model.hf_model.config  # type: ignore[attr-defined]
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    names = [value.name for value in session.get_inputs()]
    feed: dict[str, Any] = {
        name: np.zeros((2, heads, 0, width), np.float32) for name in names if "past" in name
    }
    assert len(feed) == 2 * config.num_hidden_layers
    outputs = [value.name for value in session.get_outputs()]
    scores = []
    for start, stop in ((0, 6), (6, 9)):  # three more tokens from the cache
        feed |= {
            "input_ids": ids[:, start:stop].numpy(),
            "attention_mask": np.ones((2, stop), np.int64),
            "position_ids": np.arange(start, stop)[None].repeat(2, 0),
        }
        found = dict(zip(outputs, session.run(None, feed), strict=True))
        scores.append(torch.from_numpy(found["logits"]))
        feed |= {
            name.replace("present", "past_key_values"): value
            for name, value in found.items()
            if name != "logits"
        }
    with torch.no_grad():
        expected = model.hf_model(input_ids=ids).logits  # type: ignore[attr-defined]
    assert torch.allclose(torch.cat(scores, 1), expected.float(), atol=1e-4)


def test_a_tied_head_has_the_codes_of_the_embeddings(tmp_path: Path) -> None:
    steps = RTN(2, group_size=16), QuantizeEmbeddings(4, group_size=16, symmetric=True)
    model = small("Llama-MHA-tied", *steps)
    written(model, tmp_path / "out")  # whose bytes are those of one table
    found = read_codes(tmp_path / "out" / FILE)
    assert {w.scheme.bits for w in found.values()} == {2, 4}
    assert set(found) == set(model.weights) - set(ONNX().kept_dense(model))
    for name in found:
        weight = model.weights[name]
        assert torch.equal(found[name].dequantize(), weight.dequantize())
    ids = torch.arange(5, 25)[None]
    loaded = ONNX().reload(model, tmp_path / "out")
    with torch.no_grad():
        expected = model.hf_model(input_ids=ids).logits
        assert torch.allclose(loaded.hf_model(input_ids=ids).logits, expected, atol=1e-4)


def test_a_classifier_is_one_file(tmp_path: Path) -> None:
    model = small("Bert", RTN(8, group_size=16))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 32, generator=generator)
    model.head = ClassificationHead(weight, torch.tensor([0.0, 1.0, 2.0]), ("no", "yes", "why"))
    session = written(model, tmp_path / "out")
    about = json.loads((tmp_path / "out/config.json").read_text())
    assert about["id2label"] == {"0": "no", "1": "yes", "2": "why"}
    assert about["architectures"] == ["BertForSequenceClassification"]
    ids, mask = torch.randint(4, 200, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 5:] = 0
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    known = {value.name for value in session.get_inputs()}
    if "token_type_ids" in known:
        feed["token_type_ids"] = np.zeros((2, 9), np.int64)
    (found,) = session.run(["logits"], feed)
    with torch.no_grad():
        features = pooled_features(model, ids, mask)
        expected = features @ weight.T + model.head.bias
    assert np.allclose(found, expected.numpy(), atol=1e-4)


def test_an_encoder_gives_hidden_states_and_their_mean(tmp_path: Path) -> None:
    model = small("DistilBert", RTN(4, group_size=32))
    session = written(model, tmp_path / "out")
    ids, mask = torch.randint(4, 200, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, 4:] = 0
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    hidden, mean = session.run(["last_hidden_state", "sentence_embedding"], feed)
    with torch.no_grad():
        expected = model.hf_model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert np.allclose(mean, pooled_features(model, ids, mask).numpy(), atol=1e-5)
    real = mask.bool().numpy()
    assert np.allclose(hidden[real], expected.numpy()[real], atol=1e-5)


def test_codes_survive_from_one_format_to_the_next(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wide = {**ARCHITECTURES["Llama"], "intermediate_size": 64, "vocab_size": 264}
        patch.setitem(ARCHITECTURES, "Wide", wide | {"class": "LlamaForCausalLM"})
        model = load_model(tiny_model("Wide").half(), tiny_tokenizer(("q", "u")))
    step = RTN(4, group_size=32)
    dense = load_model(model.hf_model, model.tokenizer)
    convert(dense, tmp_path / "gptq", "gptq", requantize=step)
    convert(tmp_path / "gptq", tmp_path / "mlx", "mlx")
    convert(tmp_path / "mlx", tmp_path / "onnx", "onnx")
    first, last = load_model(tmp_path / "gptq"), read_codes(tmp_path / "onnx" / FILE)
    assert set(last) == set(first.weights)
    for name, weight in first.weights.items():
        assert isinstance(weight, QuantizedWeight)
        assert torch.equal(last[name].codes, weight.codes)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_is_the_same_model_in_onnxruntime(architecture: str, tmp_path: Path) -> None:
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    convert(model, tmp_path / "out", "onnx", requantize=RTN(4, group_size=16))


@pytest.mark.parametrize(
    ("architecture", "words"),
    [("T5", "is an encoder-decoder"), ("Falcon-sequential", "alibi"), ("Mixtral", "'mixtral'")],
)
def test_what_does_not_fit_is_told(architecture: str, words: str) -> None:
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    assert words in str(ONNX().obstacle(model))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = load_model(tiny_model("Bert"), tiny_tokenizer())
    assert "pip install 'compression-workbench[onnx]'" in str(ONNX().obstacle(model))


def test_what_torch_cannot_trace_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("a dimension depends on data")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"cannot trace BertModel for ONNX .*depends on data"):
        written(load_model(tiny_model("Bert"), tiny_tokenizer()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_no_source_of_weights(tmp_path: Path) -> None:
    written(load_model(tiny_model("Bert"), tiny_tokenizer()), tmp_path / "out")
    with pytest.raises(UnsupportedArchitectureError, match=r"only as onnx/model\.onnx"):
        load_model(tmp_path / "out")
