"""Block by block: every statistic comes from the model as it is compressed by then."""

from __future__ import annotations

import pytest
import torch

from tests.calibration.test_calibrate import OPTIONS, RowsTask
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import Calibrator, InputSums
from workbench.calibration.calibration_data import token_masks
from workbench.compression import sequential
from workbench.compression.compress import compress
from workbench.errors import CancelledError, UnsupportedArchitectureError
from workbench.models.architectures import backbone
from workbench.models.input_hooks import listening
from workbench.models.layers import find_linears
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.recipes import GPTQ, MagnitudePruning
from workbench.recipes.recipe import Recipe

ARCHITECTURES = ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel", "BertModel"]
STEP = GPTQ(2, group_size=8, sequential=True)


def prepared(architecture: str, folder):
    model = load_model(tiny_model(architecture), tiny_tokenizer(), device="cpu")
    return model, Calibrator(RowsTask(), OPTIONS, folder=folder)


@torch.no_grad()
def inputs_of(model, name, rows):
    """Everything that enters one layer, row by row without any padding."""
    seen = []
    hook = model.hf_model.get_submodule(name).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    for row in rows:
        model.hf_model(input_ids=torch.tensor([row]))
    hook.remove()
    return torch.cat(seen)


def distance(a, b) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_group_is_solved_with_what_the_layers_before_it_give_by_then(
    architecture, tmp_path, monkeypatch
):
    """Checked against whole passes of the half-compressed model, row by row without padding."""
    model, calibrator = prepared(architecture, tmp_path)
    real = sequential.solve_group
    seen = []

    def checked(method, dense, half_done, group, statistics, step, facts):
        x = inputs_of(half_done, group.key, calibrator.windows(model)["solve"])
        assert statistics.solve.n_tokens == len(x)
        assert distance(statistics.solve.gram, x.T @ x) < 1e-5, group.key
        seen.append((group.key, set(half_done.weights), statistics.solve.gram))
        real(method, dense, half_done, group, statistics, step, facts)

    monkeypatch.setattr(sequential, "solve_group", checked)
    result = compress(model, Recipe.of(STEP), calibrator)

    statistics = calibrator.statistics(model)
    assert {key for key, _, _ in seen} == {g.key for g in statistics.groups}
    assert set(result.model.weights) == set(find_linears(model.hf_model))
    assert set(result.facts["layer_errors"]) == set(result.model.weights)
    assert not seen[0][1]
    assert distance(seen[0][2], statistics[seen[0][0]].solve.gram) < 1e-5
    for key, _, gram in seen[1:]:
        assert distance(gram, statistics[key].solve.gram) > 3e-4, key


def whole_pass(model, group, batches):
    """The sums over what enters one group in passes of the whole model."""
    sums = {
        group.key: (
            torch.zeros(group.in_features, group.in_features),
            torch.zeros(group.in_features),
        )
    }
    sink = InputSums(sums)
    with torch.no_grad(), listening(model.hf_model, [group], sink.add):
        for batch in batches:
            sink.begin_batch(token_masks(batch))
            backbone(model.hf_model)(**batch)
    sink.finish()
    return sums[group.key][0], sink.counts[group.key]


@pytest.mark.parametrize(
    "architecture", ["Gemma3", "GPTNeoX", "DebertaV2", "ModernBert", "Qwen3Moe"]
)
def test_masks_positions_and_experts_reach_blocks_that_run_alone(
    architecture, tmp_path, monkeypatch
):
    """Blocks with masks of their own, shared tables of positions, and routed tokens."""
    model, calibrator = prepared(architecture, tmp_path)
    batches = calibrator.batches(model)["solve"]
    real = sequential.solve_group
    checked = []

    def check(method, dense, half_done, group, statistics, step, facts):
        if not any(name.rpartition(".")[0] in checked for name in group.names):
            gram, count = whole_pass(half_done, group, batches)
            assert statistics.solve.n_tokens == count
            if count:
                assert distance(statistics.solve.gram, gram) < 1e-4, group.key
        if group.routed:  # experts of one kind are solved together: the first one is checked
            checked.append(group.key.rpartition(".")[0])
        real(method, dense, half_done, group, statistics, step, facts)

    monkeypatch.setattr(sequential, "solve_group", check)
    result = compress(model, Recipe.of(STEP), calibrator)
    assert set(result.model.weights) == set(find_linears(model.hf_model))


def test_the_default_is_not_touched_and_the_sequential_one_is_closer_to_dense(tmp_path):
    """Over several models of random weights: what quantized blocks before do wrong is corrected."""
    ids = torch.tensor(RowsTask().rows[0] + RowsTask().rows[1])[None]
    better = 0
    for seed in range(5):
        hf_model = tiny_model("LlamaForCausalLM", seed=seed)
        for parameter in hf_model.parameters():
            parameter.data.mul_(4 if parameter.ndim > 1 else 1)  # blocks that matter
        model = load_model(hf_model, tiny_tokenizer(), device="cpu")
        calibrator = Calibrator(RowsTask(), OPTIONS, folder=tmp_path / str(seed))
        with torch.no_grad():
            dense = model.hf_model(input_ids=ids)[0]
            errors = []
            for flag in (False, True):
                step = GPTQ(3, group_size=8, sequential=flag)
                made = compress(model, Recipe.of(step), calibrator).model
                errors.append(float((made.hf_model(input_ids=ids)[0] - dense).square().mean()))
        better += errors[1] < errors[0]
    assert better >= 3


def test_masks_of_a_step_before_stay_and_count(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    recipe = Recipe.of([MagnitudePruning(0.5), GPTQ(4, group_size=8, sequential=True)])
    assert compress(model, recipe, calibrator).facts["zero_share"] >= 0.49


def test_progress_and_cancel(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    calibrator.statistics(model)
    reports = []
    compress(model, Recipe.of(STEP), calibrator, monitor=Monitor(reports.append))
    assert [(r.done, r.total) for r in reports] == [(i, 8) for i in range(1, 9)]
    assert {r.stage for r in reports} == {"gptq"}
    with pytest.raises(CancelledError):
        compress(model, Recipe.of(STEP), calibrator, monitor=Monitor(None, lambda: True))


def test_a_decoders_configuration_is_put_back(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    before = model.hf_model.config.use_cache
    result = compress(model, Recipe.of(STEP), calibrator).model
    assert result.hf_model.config.use_cache == before


def test_a_model_that_does_more_between_its_blocks_is_refused(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    calibrator.statistics(model)
    second = model.hf_model.model.layers[1]
    second.register_forward_pre_hook(
        lambda _m, args, kwargs: ((args[0] + 1, *args[1:]), kwargs), with_kwargs=True
    )
    with pytest.raises(UnsupportedArchitectureError, match="sequential"):
        compress(model, Recipe.of(STEP), calibrator)


def test_recipes_without_the_flag_keep_their_ids():
    assert Recipe.of(GPTQ(4)).id == "9b86f75c2e24"
    assert Recipe.of(GPTQ(4, sequential=True)).id != Recipe.of(GPTQ(4)).id
    assert GPTQ(4, sequential=True).label == "GPTQ 4-bit g128 sequential"
