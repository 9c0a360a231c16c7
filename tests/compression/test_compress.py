from __future__ import annotations

import pytest
import torch

from tests.calibration.test_calibrate import OPTIONS, RowsTask
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import compress
from workbench.errors import CancelledError
from workbench.models.layers import find_linears
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    Cast,
    LowRankCorrection,
    MagnitudePruning,
    QuantizeEmbeddings,
    SparseGPT,
    Wanda,
)
from workbench.recipes.recipe import Recipe
from workbench.storage.artifacts import load_weights, save_weights
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight

ARCHITECTURES = ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel", "BertModel"]
IDS = torch.tensor([[5, 9, 77, 120, 33, 200, 41]])


def calibrated(model, folder):
    calibrator = Calibrator(RowsTask(), OPTIONS, folder=folder)
    calibrator.statistics(model)
    return calibrator


@pytest.fixture(params=ARCHITECTURES)
def prepared(request, tmp_path):
    model = load_model(tiny_model(request.param), tiny_tokenizer(), device="cpu")
    return model, calibrated(model, tmp_path / "statistics")


@pytest.fixture
def llama(tmp_path):
    model = load_model(tiny_model("LlamaForCausalLM"), tiny_tokenizer(), device="cpu")
    return model, calibrated(model, tmp_path / "statistics")


@torch.no_grad()
def outputs(model):
    return model.hf_model(input_ids=IDS)[0]


@pytest.mark.parametrize(
    "step",
    [
        RTN(4, group_size=8),
        GPTQ(4, group_size=8),
        AWQ(4, group_size=8),
        MagnitudePruning(0.5),
        Wanda(0.5),
        SparseGPT(0.5),
    ],
    ids=lambda s: s.title,
)
def test_whole_path(prepared, step, tmp_path):
    model, calibrator = prepared
    before = {n: t.clone() for n, t in model.hf_model.state_dict().items()}
    result = compress(model, Recipe.of(step), calibrator)

    assert set(result.model.weights) == set(find_linears(model.hf_model))
    for name, tensor in model.hf_model.state_dict().items():
        assert torch.equal(tensor, before[name]), "the given model was changed"
    share = sum(s.stored.numel() for s in find_linears(model.hf_model).values())
    assert result.facts["compressed_share"] == pytest.approx(share / model.n_parameters)
    assert set(result.facts["layer_errors"]) == set(result.model.weights)
    assert 0 < max(result.facts["layer_errors"].values()) < 1
    if isinstance(step, (MagnitudePruning, Wanda, SparseGPT)):
        assert result.facts["zero_share"] == pytest.approx(0.5, abs=0.01)
        assert result.model.size_bytes == model.size_bytes, "zeros stored densely save nothing"
    else:
        assert result.model.size_bytes < model.size_bytes

    path = tmp_path / "weights.safetensors"
    digest = save_weights(path, result.model)
    assert digest == save_weights(tmp_path / "again.safetensors", result.model)
    restored = load_weights(path, model)
    assert torch.equal(outputs(restored), outputs(result.model))
    assert restored.size_bytes == result.model.size_bytes
    stored = path.stat().st_size
    assert stored - result.model.size_bytes == pytest.approx(0, abs=12_000), "header only"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_scales_into_the_layer_before_changes_no_output(architecture, tmp_path):
    """The same model with its scales stored beside the layers gives the same outputs."""
    hf_model = tiny_model(architecture)
    model = load_model(hf_model, tiny_tokenizer(), device="cpu")
    calibrator = calibrated(model, tmp_path)
    recipe = Recipe.of(AWQ(8, group_size=8))
    folded = compress(model, recipe, calibrator)

    unknown = load_model(hf_model, tiny_tokenizer(), device="cpu")
    unknown.hf_model.config.model_type = "not-in-the-table"
    stored = compress(unknown, recipe, calibrator)

    assert stored.facts["scales_stored"] == 8
    assert "scales_folded" not in stored.facts
    expected = {"LlamaForCausalLM": 6, "OPTForCausalLM": 6, "GPT2LMHeadModel": 6, "BertModel": 2}
    assert folded.facts.get("scales_folded", 0) == expected[architecture]
    # 8 bits and float32 storage: what differs is the rounding of scales to float16.
    assert torch.allclose(outputs(folded.model), outputs(stored.model), rtol=1e-2, atol=5e-3)
    n_folded = sum(
        w.input_scales is None
        for w in folded.model.weights.values()
        if isinstance(w, QuantizedWeight)
    )
    assert (n_folded > 0) == (expected[architecture] > 0)
    if expected[architecture]:
        assert folded.model.size_bytes < stored.model.size_bytes


def test_pruning_then_quantizing_keeps_zeros_and_stores_codes(llama):
    model, calibrator = llama
    result = compress(model, Recipe.of([MagnitudePruning(0.5), GPTQ(4, group_size=8)]), calibrator)
    assert result.facts["zero_share"] >= 0.49
    assert all(isinstance(w, QuantizedWeight) for w in result.model.weights.values())
    only = compress(model, Recipe.of(GPTQ(4, group_size=8)), calibrator)
    assert result.model.size_bytes == only.model.size_bytes


QUANTIZED = GPTQ(3, group_size=8)


@pytest.mark.parametrize(
    "before", [QUANTIZED, AWQ(3, group_size=8), MagnitudePruning(0.5)], ids=lambda s: s.title
)
def test_correction_restores_part_of_the_output_and_is_stored(prepared, before, tmp_path):
    model, calibrator = prepared
    plain = compress(model, Recipe.of(before), calibrator)
    result = compress(model, Recipe.of([before, LowRankCorrection(4)]), calibrator)
    assert all(isinstance(w, CorrectedWeight) for w in result.model.weights.values())
    less = [
        result.facts["layer_errors"][name] < error
        for name, error in plain.facts["layer_errors"].items()
    ]
    assert sum(less) >= 0.8 * len(less)
    assert sum(result.facts["layer_errors"].values()) < 0.8 * sum(
        plain.facts["layer_errors"].values()
    )
    factors = sum(2 * 4 * sum(w.shape) for w in result.model.weights.values())
    assert result.model.size_bytes == pytest.approx(plain.model.size_bytes + factors, abs=1000)

    save_weights(tmp_path / "weights.safetensors", result.model)
    restored = load_weights(tmp_path / "weights.safetensors", model)
    assert torch.equal(outputs(restored), outputs(result.model))
    assert restored.size_bytes == result.model.size_bytes


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel"])
def test_folding_the_scales_of_corrected_layers_changes_no_output(architecture, tmp_path):
    """Layers before are corrected too: their products are divided along with their scales."""
    hf_model = tiny_model(architecture)
    model = load_model(hf_model, tiny_tokenizer(), device="cpu")
    calibrator = calibrated(model, tmp_path)
    recipe = Recipe.of([AWQ(3, group_size=8), LowRankCorrection(2)])
    folded = compress(model, recipe, calibrator)
    unknown = load_model(hf_model, tiny_tokenizer(), device="cpu")
    unknown.hf_model.config.model_type = "not-in-the-table"
    stored = compress(unknown, recipe, calibrator)
    assert stored.facts["scales_stored"] == 8
    assert folded.facts["scales_folded"] >= 4
    changed = (outputs(folded.model) - outputs(stored.model)).norm()
    assert changed < 2e-3 * outputs(stored.model).norm()
    alone = compress(model, recipe.prefix(1), calibrator)
    assert changed < 0.1 * (outputs(alone.model) - outputs(stored.model)).norm()


def test_cast_keeps_the_products_of_corrected_layers(llama):
    model, calibrator = llama
    recipe = Recipe.of([MagnitudePruning(0.5), LowRankCorrection(2), Cast("bfloat16")])
    result = compress(model, recipe, calibrator).model
    for weight in result.weights.values():
        assert isinstance(weight, CorrectedWeight)
        assert isinstance(weight.base, PrunedWeight)
        assert weight.base.values.dtype == torch.bfloat16
        assert weight.left.dtype == torch.float16


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "last"])
def test_embeddings_and_blocks_are_quantized_in_any_order(prepared, order, tmp_path):
    model, calibrator = prepared
    steps = [QuantizeEmbeddings(8), QUANTIZED]
    result = compress(model, Recipe.of([steps[i] for i in order]), calibrator)
    blocks = compress(model, Recipe.of(QUANTIZED), calibrator)
    assert result.facts["embeddings"]
    assert set(result.model.weights) - set(blocks.model.weights) == set(result.facts["embeddings"])
    for name, weight in blocks.model.weights.items():
        assert torch.equal(weight.codes, result.model.weights[name].codes)
    save_weights(tmp_path / "weights.safetensors", result.model)
    restored = load_weights(tmp_path / "weights.safetensors", model)
    assert torch.equal(outputs(restored), outputs(result.model))
    assert restored.size_bytes == result.model.size_bytes < blocks.model.size_bytes
    stored = (tmp_path / "weights.safetensors").stat().st_size
    assert stored - result.model.size_bytes == pytest.approx(0, abs=12_000), "header only"


def test_cast_halves_a_float32_model(llama):
    model, _ = llama
    result = compress(model, Recipe.of(Cast("bfloat16")), None)
    assert result.model.size_bytes * 2 == model.size_bytes
    weight = next(result.model.hf_model.parameters())
    assert torch.equal(weight, weight.bfloat16().float())
    pruned = compress(model, Recipe.of([MagnitudePruning(0.5), Cast()]), None).model
    assert all(
        isinstance(w, PrunedWeight) and w.values.dtype == torch.float16
        for w in pruned.weights.values()
    )
    assert pruned.size_bytes == result.model.size_bytes


def test_dense_recipe_changes_nothing(llama):
    model, _ = llama
    result = compress(model, Recipe(), None)
    assert torch.equal(outputs(result.model), outputs(model))
    assert result.facts["compressed_share"] == 0


def test_factors_are_computed_once_for_all_bits(llama, monkeypatch):
    import workbench.tensors.statistics as module

    model, calibrator = llama
    calls = []
    real = module.inverse_factor
    monkeypatch.setattr(
        module, "inverse_factor", lambda *a, **k: (calls.append(1), real(*a, **k))[1]
    )
    for bits in (2, 3, 4):
        compress(model, Recipe.of(GPTQ(bits, group_size=8)), calibrator)
    assert len(calls) == len(calibrator.statistics(model).groups)


def test_progress_and_cancel(llama):
    model, calibrator = llama
    reports = []
    compress(model, Recipe.of(GPTQ(4)), calibrator, monitor=Monitor(reports.append))
    assert [r.done for r in reports] == list(range(1, 9))
    assert {r.stage for r in reports} == {"gptq"}
    with pytest.raises(CancelledError):
        compress(model, Recipe.of(GPTQ(4)), calibrator, monitor=Monitor(None, lambda: True))
