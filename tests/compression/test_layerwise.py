"""What happens to experts that calibration hardly reached."""

from __future__ import annotations

import pytest
import torch

from tests.calibration.test_calibrate import RowsTask
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.models.load import load_model
from workbench.recipes import AWQ, GPTQ, RTN, Mixed, Wanda
from workbench.recipes.recipe import Recipe

OPTIONS = CalibrationOptions(solve_tokens=300, judge_tokens=40, batch_tokens=256)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Eight experts, of which one is never chosen and the others are chosen unevenly."""
    hf_model = tiny_model("Qwen2Moe")
    with torch.no_grad():
        for layer in hf_model.model.layers:
            layer.post_attention_layernorm.weight.fill_(1)
            bias = torch.tensor([3.0, 2, 1, -9, 0, -1, -2, 0])[:, None]
            layer.mlp.gate.weight.copy_(0.1 * torch.randn(8, 32) + bias)
        hf_model.model.embed_tokens.weight.add_(0.05)  # inputs that the bias can act on
    model = load_model(hf_model, tiny_tokenizer(), device="cpu")
    calibrator = Calibrator(RowsTask(), OPTIONS, folder=tmp_path_factory.mktemp("statistics"))
    return model, calibrator, calibrator.statistics(model)


def run(prepared, *steps):
    return compress(prepared[0], Recipe.of(list(steps)), prepared[1])


def test_gptq_rounds_to_nearest_where_tokens_are_few_and_says_so(prepared):
    _, _, statistics = prepared
    result = run(prepared, GPTQ(4, group_size=8))
    rounded = run(prepared, RTN(4, group_size=8))
    assert "undersampled" not in rounded.facts
    expected = {
        group.key: statistics[group.key].solve.n_tokens
        for group in statistics.groups
        if group.routed and statistics[group.key].solve.n_tokens < max(64, group.in_features)
    }
    assert result.facts["undersampled"] == expected
    routed = {group.key for group in statistics.groups if group.routed}
    assert set() < set(expected) < routed
    assert 0 in expected.values()
    for name, weight in result.model.weights.items():
        same = torch.equal(weight.dequantize(), rounded.model.weights[name].dequantize())
        assert same == (name in expected), name


def test_every_other_method_goes_through_and_records_it(prepared):
    _, _, statistics = prepared
    for step in (AWQ(4, group_size=8), Wanda(0.5)):
        result = run(prepared, step)
        assert set(result.model.weights) == set(run(prepared, RTN(4)).model.weights)
        counts = result.facts["undersampled"]
        assert all(count < 64 for count in counts.values())  # both learn from fewer tokens
        assert all(torch.isfinite(w.dequantize()).all() for w in result.model.weights.values())
    unseen = [g.key for g in statistics.groups if g.routed and not statistics[g.key].solve.n_tokens]
    assert unseen
    for name in unseen:  # nothing is known of the inputs: by magnitude, row by row
        kept = result.model.weights[name].dequantize() != 0
        largest = prepared[0].site(name).matrix.abs().topk(kept.shape[1] // 2).indices
        assert torch.equal(kept, torch.zeros_like(kept).scatter(1, largest, True))


def test_a_mixture_needs_tokens_only_where_its_methods_do(prepared):
    _, _, statistics = prepared
    few = [g.key for g in statistics.groups if g.routed and not statistics[g.key].solve.n_tokens]
    assert len(few) >= 2
    learns, rounds, *_ = few
    mixed = Mixed([GPTQ(4, group_size=8), RTN(4, group_size=8)], {learns: 0, rounds: 1})
    assert run(prepared, mixed).facts["undersampled"] == {learns: 0}


def test_errors_are_left_out_where_no_token_judges(prepared):
    _, _, statistics = prepared
    result = run(prepared, RTN(4, group_size=8))
    unjudged = {
        g.key for g in statistics.groups if g.routed and not statistics[g.key].judge.n_tokens
    }
    assert unjudged
    assert set(result.facts["layer_errors"]) == set(result.model.weights) - unjudged
