"""Checkpoints converted between formats: the codes stay what they are, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.export.test_export_formats import WIDE
from tests.models.families import family_model
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.errors import ConfigError, ExportError
from workbench.export.convert import prove_on_texts
from workbench.models.layers import shared_inputs
from workbench.models.load import load_model
from workbench.models.loaded import LoadedModel
from workbench.recipes import RTN, Mixed
from workbench.recipes.recipe import Recipe

SIZE = {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture(scope="module")
def dense() -> LoadedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Wide", {**WIDE, **SIZE, "class": "LlamaForCausalLM"})
        return load_model(tiny_model("Wide").half(), tiny_tokenizer(("q", "u")))


@pytest.fixture(scope="module")
def gptq(dense: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 4-bit g32 checkpoint in GPTQ's format."""
    model = compress(dense, Recipe.of(RTN(4, group_size=32))).model
    return wb.convert(model, tmp_path_factory.mktemp("source") / "gptq", "gptq").path


def test_four_formats_hold_the_same_codes(gptq: Path, tmp_path: Path) -> None:
    source = load_model(gptq)
    path = gptq
    for format in ("mlx", "awq", "compressed-tensors", "gptq_v2"):
        path = wb.convert(path, tmp_path / format, format).path
        found = load_model(path)
        assert set(found.weights) == set(source.weights)
        for name, weight in source.weights.items():
            assert torch.equal(found.weights[name].codes, weight.codes)
            assert torch.equal(found.weights[name].dequantize(), weight.dequantize())
    assert "nothing was rounded again" in (path / "README.md").read_text()


def test_a_symmetric_one_becomes_gguf(dense: LoadedModel, tmp_path: Path) -> None:
    model = compress(dense, Recipe.of(RTN(4, group_size=32, symmetric=True))).model
    path = wb.convert(model, tmp_path / "mlx", "mlx").path
    found = load_model(wb.convert(path, tmp_path / "gguf", "gguf").path)
    for name, weight in model.weights.items():
        assert torch.equal(found.weights[name].dequantize(), weight.dequantize())


def test_what_does_not_fit_is_named_and_rounded_only_if_asked(
    dense: LoadedModel, tmp_path: Path
) -> None:
    keys = [group.key for group in shared_inputs(dense.hf_model)]
    steps = [RTN(3, group_size=32), RTN(4, group_size=32)]
    parts = {key: int(number > 0) for number, key in enumerate(keys)}
    model = compress(dense, Recipe.of(Mixed(steps, parts))).model
    first = keys[0]
    with pytest.raises(ExportError, match=r"cannot be converted without rounding it again"):
        wb.convert(model, tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()
    step = RTN(4, group_size=32, symmetric=True)
    made = wb.convert(model, tmp_path / "out", "awq", requantize=RTN(4, group_size=32))
    found = load_model(made.path)
    assert {weight.scheme.bits for weight in found.weights.values()} == {4}
    assert "rounded to nearest again" in (made.path / "README.md").read_text()
    kept = [name for name, weight in model.weights.items() if weight.scheme.bits == 4]
    assert len(kept) > 5
    for name in kept:
        assert torch.equal(found.weights[name].codes, model.weights[name].codes)
    assert model.weights[first].scheme.bits == 3  # the source is not changed
    with pytest.raises(ConfigError, match=r"give RTN\(bits"):
        wb.convert(model, tmp_path / "no", "awq", requantize=[step])  # type: ignore[arg-type]


def test_a_dense_checkpoint_is_rounded_openly(dense: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="none of its layers is stored as integer codes"):
        wb.convert(dense, tmp_path / "out", "mlx")
    found = load_model(
        wb.convert(dense, tmp_path / "out", "mlx", requantize=RTN(4, group_size=32)).path
    )
    expected = compress(dense, Recipe.of(RTN(4, group_size=32))).model
    for name, weight in expected.weights.items():
        assert torch.equal(found.weights[name].dequantize(), weight.dequantize())


def test_a_classifier_is_proved_by_its_logits(tmp_path: Path) -> None:
    """One row per text: taken for one row per class all would agree, whatever was written."""
    model = load_model(family_model("Roberta"), tiny_tokenizer(), device="cpu")
    assert type(model.hf_model).__name__ == "RobertaForSequenceClassification"
    other = model.copy()
    other.hf_model.classifier.out_proj.bias.data[0] += 1  # type: ignore[union-attr,operator]
    with pytest.raises(ExportError, match="gives other logits"):
        prove_on_texts(model, other, torch.float32)
    assert prove_on_texts(model, model.copy(), torch.float32).agreement == 1
