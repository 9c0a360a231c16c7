"""Every listed method keeps the same contract, on tiny layers with awkward shapes."""

from __future__ import annotations

import copy

import pytest
import torch

from workbench.methods import LAYER_METHODS, METHODS, GroupWeights
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    STEPS,
    LowRankCorrection,
    MagnitudePruning,
    Mixed,
    SparseGPT,
    Step,
    Wanda,
)
from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.statistics import GroupStatistics, InputStatistics
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight, weight_from

CONFIGS: list[Step] = [
    RTN(2, group_size=16),
    RTN(8, group_size=None),
    GPTQ(3, group_size=16),
    GPTQ(3, group_size=16, act_order=False, block_size=10),
    GPTQ(4, group_size=None, symmetric=True),
    AWQ(3, group_size=16, n_grid=5),
    AWQ(4, group_size=None, symmetric=True, clip=False),
    MagnitudePruning(0.5),
    MagnitudePruning(0.3, scope="global"),
    MagnitudePruning(n=2, m=4),
    Wanda(0.5),
    Wanda(n=2, m=4),
    SparseGPT(0.5, block_size=10),
    SparseGPT(n=2, m=4, block_size=10),
    SparseGPT(0.5, bits=4, group_size=16),
    SparseGPT(n=2, m=4, bits=3, group_size=None, symmetric=True),
    LowRankCorrection(4),
    Mixed([GPTQ(3, group_size=16)], {"a": 0}),
]
PRUNING = (MagnitudePruning, Wanda, SparseGPT)
DEAD = 5


def make_group(in_features: int = 37, *, dead: bool = True) -> tuple[GroupWeights, GroupStatistics]:
    """Two layers that share 37 correlated inputs (a short last group), one input never active."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400, in_features, generator=generator)
    x = x @ torch.randn(in_features, in_features, generator=generator) * 0.3 + x
    if dead:
        x[:, DEAD] = 0
    halves = [InputStatistics(h.T @ h, h.abs().sum(0), len(h)) for h in (x[:300], x[300:])]
    weights = {
        "a": torch.randn(12, in_features, generator=generator),
        "b": torch.randn(6, in_features, generator=generator),
    }
    return GroupWeights(weights, {}, originals=weights), GroupStatistics(*halves)


def make_latent_group(in_features: int = 64) -> tuple[GroupWeights, GroupStatistics]:
    """Inputs as language models have them: few directions, mixed, and of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, in_features, generator=generator) / 8**0.5
    x = torch.randn(2000, 8, generator=generator) @ mixing
    x += 0.5 * torch.randn(2000, in_features, generator=generator)
    x *= torch.exp(0.7 * torch.randn(in_features, generator=generator))
    halves = [InputStatistics(h.T @ h, h.abs().sum(0), len(h)) for h in (x[:1500], x[1500:])]
    weights = {
        "a": torch.randn(40, in_features, generator=generator),
        "b": torch.randn(24, in_features, generator=generator),
    }
    return GroupWeights(weights, {}, originals=weights), GroupStatistics(*halves)


def after(first: Step, group: GroupWeights, statistics: GroupStatistics | None) -> GroupWeights:
    """What a second step is given."""
    compressed = solve(first, group, statistics)
    weights = {name: weight.dequantize() for name, weight in compressed.items()}
    masks = {n: w.mask for n, w in compressed.items() if isinstance(w, PrunedWeight)}
    return GroupWeights(weights, masks, originals=group.originals, compressed=compressed)


def solve(config: Step, group: GroupWeights, statistics: GroupStatistics | None):
    if isinstance(config, LowRankCorrection) and not group.compressed:
        group = after(RTN(3, group_size=16), group, None)
    method = LAYER_METHODS[type(config)].prepared(group.weights.values(), config)
    return method.solve(group, statistics, config)


def error(weights, group: GroupWeights, statistics: GroupStatistics) -> float:
    """Squared output error over the group's layers, on data that no solver saw."""
    deltas = [weights[n].dequantize() - w for n, w in group.originals.items()]
    return sum(float(((d @ statistics.judge.gram) * d).sum()) for d in deltas)


def output_error(config: Step, group: GroupWeights, statistics: GroupStatistics) -> float:
    return error(solve(config, group, statistics), group, statistics)


def test_every_step_has_a_method():
    assert set(METHODS) == {*STEPS.values(), Mixed}


def test_every_listed_method_is_covered():
    assert {type(c) for c in CONFIGS} == set(LAYER_METHODS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.code())
def test_contract(config: Step):
    group, statistics = make_group()
    before = copy.deepcopy((dict(group.weights), statistics.solve, statistics.judge))
    needs = LAYER_METHODS[type(config)].needs
    solved = solve(config, group, statistics if needs else None)
    again = solve(config, *make_group())

    assert list(solved) == ["a", "b"]
    for name, weight in solved.items():
        dense = weight.dequantize()
        assert dense.shape == group.weights[name].shape == weight.shape
        assert dense.dtype == torch.float32
        assert torch.isfinite(dense).all()
        assert torch.equal(dense, again[name].dequantize()), "not deterministic"
        assert weight.stored_bytes == sum(
            t.numel() * t.element_size() for t in weight.tensors().values()
        )
        restored = weight_from(weight.describe(), weight.tensors())
        assert torch.equal(restored.dequantize(), dense), "the packed form lost something"
    for name, weight in before[0].items():
        assert torch.equal(weight, group.weights[name]), "the input weight was changed"
    assert torch.equal(before[1].gram, statistics.solve.gram)
    assert torch.equal(before[2].gram, statistics.judge.gram)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.code())
def test_the_scheme_is_honoured(config: Step):
    group, statistics = make_group()
    for weight in solve(config, group, statistics).values():
        if isinstance(config, PRUNING) and config.n:
            groups = (weight.dequantize() == 0)[:, :36].reshape(weight.shape[0], 9, 4)
            exactly = isinstance(weight, PrunedWeight)  # rounding may add zeros
            assert (groups.sum(-1) == 2).all() if exactly else (groups.sum(-1) >= 2).all()
        if isinstance(weight, CorrectedWeight):
            assert isinstance(config, LowRankCorrection)
            assert weight.left.shape == (weight.shape[0], config.rank)
            assert weight.right.shape == (config.rank, weight.shape[1])
        elif isinstance(weight, QuantizedWeight):
            chosen = config.steps[0] if isinstance(config, Mixed) else config
            scheme: IntScheme = chosen.scheme
            assert weight.scheme == scheme
            assert int(weight.codes.max()) <= scheme.max_code
            assert weight.scales.shape == (weight.shape[0], scheme.n_groups(37))
            assert (weight.zeros is None) == scheme.symmetric
            for row in weight.codes[:, : scheme.group_length(37)]:
                assert len(row.unique()) <= 2**scheme.bits
        else:
            assert isinstance(weight, PrunedWeight)
            assert weight.sparsity == config.sparsity
    if isinstance(config, PRUNING) and not config.n:
        solved = solve(config, group, statistics).values()
        removed = sum(int((w.dequantize() == 0).sum()) for w in solved)
        # Wanda removes 18 of 37 in every row; zeros that rounding adds come on top.
        most = 1.3 if isinstance(config, SparseGPT) and config.bits else 1.0
        assert config.ratio * 18 * 37 - 10 <= removed <= most * config.ratio * 18 * 37 + 2


@pytest.mark.parametrize("config", [GPTQ(3, group_size=16), AWQ(3, group_size=16)], ids=str)
def test_data_driven_methods_beat_rounding(config: Step):
    group, statistics = make_group(64, dead=False)
    rounded = solve(RTN(3, group_size=16), group, None)
    assert output_error(config, group, statistics) < 0.8 * error(rounded, group, statistics)


@pytest.mark.parametrize(
    "config", [Wanda(0.5), SparseGPT(0.5), Wanda(n=2, m=4), SparseGPT(n=2, m=4)], ids=str
)
def test_data_driven_pruning_beats_magnitude(config):
    group, statistics = make_latent_group()
    pattern = {"n": config.n, "m": config.m}
    by_magnitude = solve(MagnitudePruning(config.ratio, **pattern), group, None)
    assert output_error(config, group, statistics) < 0.5 * error(by_magnitude, group, statistics)


def test_compensation_beats_scores_alone_and_one_pass_beats_two():
    group, statistics = make_latent_group()
    assert output_error(SparseGPT(0.5), group, statistics) < 0.6 * output_error(
        Wanda(0.5), group, statistics
    )
    one = output_error(SparseGPT(0.5, bits=4, group_size=16), group, statistics)
    pruned = after(SparseGPT(0.5), group, statistics)
    two = error(solve(RTN(4, group_size=16), pruned, statistics), group, statistics)
    assert one < two


@pytest.mark.parametrize(
    "config",
    [c for c in CONFIGS if isinstance(c, (RTN, GPTQ)) or (isinstance(c, AWQ) and not c.clip)],
    ids=lambda c: c.code(),
)
def test_weights_of_a_dead_input_are_rounded_and_nothing_else(config: Step):
    """No compensation drifts into them and nothing zeroes them: other data may wake the input."""
    group, statistics = make_group()
    for name, weight in solve(config, group, statistics).items():
        assert isinstance(weight, QuantizedWeight)
        scales = affine.expand(weight.scales.float(), config.scheme, 37)[:, DEAD]
        if weight.input_scales is not None:
            scales = scales / weight.input_scales[DEAD].float()
        moved = weight.dequantize()[:, DEAD] - group.weights[name][:, DEAD]
        assert (moved.abs() <= 1.01 * scales).all()


@pytest.mark.parametrize(
    "first", [MagnitudePruning(0.5), Wanda(0.5), SparseGPT(0.5), SparseGPT(n=2, m=4)], ids=str
)
def test_quantizing_pruned_weights_keeps_the_zeros(first: Step):
    group, statistics = make_group()
    both = after(first, group, statistics)
    assert set(both.masks) == {"a", "b"}
    for config in (
        RTN(4, group_size=16),
        GPTQ(4, group_size=16),
        AWQ(4, group_size=16),
        SparseGPT(0.2, bits=4, group_size=16),
    ):
        for name, weight in solve(config, both, statistics).items():
            assert (weight.dequantize()[~both.masks[name]] == 0).all(), config


@pytest.mark.parametrize("config", [MagnitudePruning(0.6), Wanda(0.6), SparseGPT(0.6)], ids=str)
def test_pruning_further_keeps_what_was_removed(config):
    group, statistics = make_group()
    both = after(Wanda(0.3), group, statistics)
    for name, weight in solve(config, both, statistics).items():
        zeros = weight.dequantize() == 0
        assert zeros[~both.masks[name]].all()
        assert int(zeros.sum()) == pytest.approx(0.6 * zeros.numel(), abs=13)
