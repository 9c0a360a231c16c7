"""Every listed method keeps the same contract, on tiny layers with awkward shapes."""

from __future__ import annotations

import copy

import pytest
import torch

from workbench import affine
from workbench.methods import LAYER_METHODS, GroupWeights
from workbench.schemes import IntScheme
from workbench.statistics import GroupStatistics, InputStatistics
from workbench.steps import AWQ, GPTQ, RTN, MagnitudePruning, Step
from workbench.weights import PrunedWeight, QuantizedWeight, weight_from

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
]
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
    return GroupWeights(weights, {}), GroupStatistics(*halves)


def solve(config: Step, group: GroupWeights, statistics: GroupStatistics | None):
    method = LAYER_METHODS[type(config)].prepared(group.weights.values(), config)
    return method.solve(group, statistics, config)


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
        if isinstance(weight, QuantizedWeight):
            scheme: IntScheme = config.scheme
            assert weight.scheme == scheme
            assert int(weight.codes.max()) <= scheme.max_code
            assert weight.scales.shape == (weight.shape[0], scheme.n_groups(37))
            assert (weight.zeros is None) == scheme.symmetric
            for row in weight.codes[:, : scheme.group_length(37)]:
                assert len(row.unique()) <= 2**scheme.bits
        else:
            assert isinstance(weight, PrunedWeight)
            if config.n:
                groups = (~weight.mask)[:, :36].reshape(weight.shape[0], 9, 4)
                assert (groups.sum(-1) == 2).all()
    if isinstance(config, MagnitudePruning) and not config.n:
        removed = sum(int((~w.mask).sum()) for w in solve(config, group, None).values())
        assert removed == pytest.approx(config.ratio * 18 * 37, abs=2)


@pytest.mark.parametrize("config", [GPTQ(3, group_size=16), AWQ(3, group_size=16)], ids=str)
def test_data_driven_methods_beat_rounding(config: Step):
    group, statistics = make_group(64, dead=False)
    rounded = solve(RTN(3, group_size=16), group, None)
    gram = statistics.judge.gram

    def error(weights) -> float:
        deltas = [weights[n].dequantize() - w for n, w in group.weights.items()]
        return sum(float(((d @ gram) * d).sum()) for d in deltas)

    assert error(solve(config, group, statistics)) < 0.8 * error(rounded)


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


def test_quantizing_pruned_weights_keeps_the_zeros():
    group, statistics = make_group()
    pruned = solve(MagnitudePruning(0.5), group, None)
    masks = {n: w.mask for n, w in pruned.items()}
    weights = {n: w.dequantize() for n, w in pruned.items()}
    both = GroupWeights(weights, masks)
    for config in (RTN(4, group_size=16), GPTQ(4, group_size=16), AWQ(4, group_size=16)):
        for name, weight in solve(config, both, statistics).items():
            assert (weight.dequantize()[~masks[name]] == 0).all(), config
