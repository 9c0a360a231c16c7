from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from tests.calibration.test_calibrate import OPTIONS
from tests.structured import IDS, OutputsTask, loaded, outputs, run
from tests.tiny import ARCHITECTURES
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import compress
from workbench.errors import (
    CalibrationError,
    CompressionError,
    ConfigError,
    UnsupportedArchitectureError,
)
from workbench.methods.depth import block_influence
from workbench.models.structure import block_names
from workbench.progress import SILENT
from workbench.recipes import DepthPruning
from workbench.recipes.recipe import Recipe

BLOCKS = 5
REFUSED = {"T5": "encoder-decoder", "ViT": "not among the architectures"}
REFUSED |= {"Qwen3Moe": "mlp_only_layers"}


def deep_llama(identities=()):
    """A Llama of five blocks; those named add nothing to their input."""
    model = loaded("Llama", num_hidden_layers=BLOCKS)
    with torch.no_grad():
        for index, block in enumerate(model.hf_model.model.layers):
            for weight in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                weight.mul_(0 if index in identities else 30)
    return model


def dropped(result):
    return result.facts["structure"][0]["dropped_blocks"]


@pytest.mark.parametrize("criterion", ["influence", "loss"])
@pytest.mark.parametrize("identities", [[1], [0, 3], [2, 4]])
def test_blocks_that_do_nothing_go_first_and_cost_nothing(criterion, identities, tmp_path):
    model = deep_llama(identities)
    result = run(model, DepthPruning(len(identities), criterion=criterion), tmp_path)
    assert dropped(result) == identities
    assert result.model.hf_model.config.num_hidden_layers == BLOCKS - len(identities)
    assert torch.allclose(outputs(result.model), outputs(model), atol=1e-6)


def test_influence_is_one_minus_the_cosine_without_padding():
    model = deep_llama()
    rows = [[5, 9, 77], [8, 44, 2, 91, 250, 17], [130, 12]]
    cosines = []
    for row in rows:  # each row by itself, so nothing is padded
        hidden = model.hf_model.model(torch.tensor([row]), output_hidden_states=True).hidden_states
        cosines.append(
            torch.stack(
                [
                    torch.cosine_similarity(a[0], b[0], dim=-1)
                    for a, b in itertools.pairwise(hidden[:-1])
                ]
            )
        )
    expected = 1 - torch.cat(cosines, dim=1).mean(1)
    found = block_influence(model, block_names(model), rows, SILENT)
    # The last hidden state is behind the final norm, so the last block is not compared.
    assert found[:-1] == pytest.approx(expected.tolist(), abs=1e-5)


def test_loss_is_the_divergence_that_the_smaller_model_has(tmp_path):
    """What was computed by skipping blocks is what the rebuilt model gives."""
    model = deep_llama()
    result = run(model, DepthPruning(2), tmp_path)
    windows = Calibrator(OutputsTask(), OPTIONS, folder=tmp_path).windows(model)["judge"]
    total, count = 0.0, 0
    with torch.no_grad():
        for row in windows:
            ids = torch.tensor([row])
            dense, small = (
                torch.log_softmax(m.hf_model(ids).logits[0], -1) for m in (model, result.model)
            )
            total += float((dense.exp() * (dense - small)).sum())
            count += len(row)
    scores = result.facts["structure"][0]["block_scores"]
    assert len(scores) == 2
    assert scores[-1] == pytest.approx(total / count, rel=1e-3)
    assert all("forward" not in vars(m) for m in model.hf_model.modules())


def test_last_and_random(tmp_path):
    model = deep_llama()
    assert dropped(run(model, DepthPruning(2, criterion="last"), tmp_path)) == [3, 4]
    chosen = {
        tuple(dropped(run(model, DepthPruning(2, criterion="random", seed=seed), tmp_path)))
        for seed in (0, 0, 1, 2, 3)
    }
    assert 1 < len(chosen) <= 4
    assert all(a < b for a, b in chosen)


def test_generating_with_a_cache_gives_the_same_tokens(tmp_path):
    model = run(deep_llama([1]), DepthPruning(1), tmp_path).model
    assert [b.self_attn.layer_idx for b in model.hf_model.model.layers] == [0, 1, 2, 3]
    options = {"max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    cached, plain = (
        model.hf_model.generate(IDS[:1], use_cache=use_cache, **options)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)
    assert len(model.generate("abc", max_new_tokens=3)) > 0


@pytest.mark.parametrize("n_blocks", [5, 9])
def test_too_many_blocks_are_refused(n_blocks, tmp_path):
    with pytest.raises(ConfigError, match=r"which has 5 blocks; give 1 to 4"):
        run(deep_llama(), DepthPruning(n_blocks), tmp_path)


def test_without_tokens_to_judge_by_it_is_refused(tmp_path):
    calibrator = Calibrator(
        OutputsTask(), dataclasses.replace(OPTIONS, judge_tokens=0), folder=tmp_path
    )
    model = deep_llama()
    with pytest.raises(CalibrationError, match="judge_tokens=0"):
        compress(model, Recipe.of(DepthPruning(1)), calibrator)
    compress(model, Recipe.of(DepthPruning(1, criterion="last")), calibrator)


@pytest.mark.parametrize("criterion", ["influence", "loss"])
def test_outputs_that_are_not_finite_are_an_error(criterion, tmp_path):
    model = deep_llama()
    with torch.no_grad():
        model.hf_model.model.layers[2].mlp.up_proj.weight.fill_(torch.inf)
    with pytest.raises(CompressionError, match="not finite"):
        run(model, DepthPruning(1, criterion=criterion), tmp_path)


def test_a_first_block_that_is_built_unlike_the_others_stays(tmp_path):
    model = loaded("ModernBert", num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert dropped(run(model, DepthPruning(2), tmp_path)) == [1, 2]
    with pytest.raises(ConfigError, match="the first must stay; give 1 to 2"):
        run(model, DepthPruning(3), tmp_path)


def test_lists_with_an_entry_per_block_follow(tmp_path):
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = loaded("Gemma3", num_hidden_layers=4, layer_types=types)
    result = run(model, DepthPruning(1, criterion="random", seed=2), tmp_path)
    gone = dropped(result)[0]
    assert gone < 3, "choose a seed that removes a block before the last"
    kept = [t for i, t in enumerate(types) if i != gone]
    assert result.model.hf_model.config.layer_types == kept
    assert [b.self_attn.is_sliding for b in result.model.hf_model.model.layers] == [
        "sliding" in t for t in kept
    ]


def test_blocks_whose_scale_depends_on_their_position_are_refused(tmp_path):
    model = loaded("GPT2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(UnsupportedArchitectureError, match="scale_attn_by_inverse_layer_idx=True"):
        run(model, DepthPruning(1), tmp_path)


@pytest.mark.parametrize("criterion", ["influence", "loss"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_works_or_is_refused_clearly(kind, criterion, tmp_path):
    model = loaded(kind)
    if kind in REFUSED:
        with pytest.raises(UnsupportedArchitectureError, match=REFUSED[kind]):
            run(model, DepthPruning(1, criterion=criterion), tmp_path)
        return
    result = run(model, DepthPruning(1, criterion=criterion), tmp_path)
    assert torch.isfinite(outputs(result.model)).all()
    before, after = (len(list(m.hf_model.parameters())) for m in (model, result.model))
    assert after < before
    assert result.model.n_parameters < model.n_parameters
