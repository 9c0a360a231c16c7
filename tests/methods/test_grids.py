"""Methods on the grids of k-quants: what is solved there, what does not fit, what is refused."""

from __future__ import annotations

import pytest
import torch

from tests.methods.test_contract import make_latent_group, output_error, solve
from workbench.errors import ConfigError
from workbench.methods import LAYER_METHODS, GroupWeights
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    MagnitudePruning,
    Mixed,
    QuantizeEmbeddings,
    Step,
    step_from_dict,
)
from workbench.recipes.recipe import Recipe
from workbench.recipes.schemes import GRIDS
from workbench.tensors.weights import PrunedWeight, QuantizedWeight, SuperBlockWeight, weight_from


@pytest.mark.parametrize("name", GRIDS)
def test_gptq_beats_rounding_on_the_same_grid(name: str) -> None:
    bits = GRIDS[name].bits
    group, statistics = make_latent_group(256)
    gptq, rtn = GPTQ(bits, grid=name), RTN(bits, grid=name)
    solved = solve(gptq, group, statistics)
    assert all(isinstance(weight, SuperBlockWeight) for weight in solved.values())
    error = output_error(gptq, group, statistics)
    assert error < 0.7 * output_error(rtn, group, statistics)
    natural = GPTQ(bits, grid=name, act_order=False, block_size=48)
    assert output_error(natural, group, statistics) < 0.8 * output_error(rtn, group, statistics)


@pytest.mark.parametrize("step", [RTN, GPTQ, AWQ])
@pytest.mark.parametrize("name", ["q4_k", "q3_k"])
def test_the_contract_on_a_grid(name: str, step: type[Step]) -> None:
    group, statistics = make_latent_group(256)
    config = step(GRIDS[name].bits, grid=name)  # type: ignore[call-arg]
    again = solve(config, group, statistics)
    for layer, weight in solve(config, group, statistics).items():
        dense = weight.dequantize()
        assert dense.shape == group.weights[layer].shape
        assert torch.isfinite(dense).all()
        assert torch.equal(dense, again[layer].dequantize())
        stored = weight.tensors().values()
        assert weight.stored_bytes == sum(t.numel() * t.element_size() for t in stored)
        assert (weight.input_scales is not None) == (step is AWQ)
        restored = weight_from(weight.describe(), weight.tensors())
        assert torch.equal(restored.dequantize(), dense)


def test_rows_are_solved_alike_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    group, statistics = make_latent_group(256)
    whole = solve(GPTQ(4, grid="q4_k"), group, statistics)
    monkeypatch.setattr("workbench.methods.gptq._WORK_BYTES", 12 * 256 * 16)
    parts = solve(GPTQ(4, grid="q4_k"), group, statistics)
    for name, weight in whole.items():
        assert torch.equal(weight.dequantize(), parts[name].dequantize())


def test_widths_that_are_no_multiple_of_256_are_stored_beside() -> None:
    group, statistics = make_latent_group(96)
    for config in (GPTQ(4, grid="q4_k"), RTN(4, grid="q4_k"), AWQ(4, grid="q4_k")):
        for weight in solve(config, group, statistics).values():
            assert isinstance(weight, QuantizedWeight)
            assert weight.scheme == GRIDS["q4_k"].beside


def test_pruned_weights_stay_zero_where_the_grid_has_a_zero() -> None:
    group, statistics = make_latent_group(256)
    pruned = solve(MagnitudePruning(0.5), group, None)
    masks = {name: w.mask for name, w in pruned.items() if isinstance(w, PrunedWeight)}
    dense = {name: weight.dequantize() for name, weight in pruned.items()}
    sparse = GroupWeights(dense, masks, originals=group.originals)
    for config in (GPTQ(3, grid="q3_k"), RTN(6, grid="q6_k")):
        solver = LAYER_METHODS[type(config)]
        for name, weight in solver.solve(sparse, statistics, config).items():
            assert bool((weight.dequantize()[~masks[name]] == 0).all())
    for step in (GPTQ(4, grid="q4_k"), Mixed([RTN(2, grid="q2_k")], {"a": 0})):
        with pytest.raises(ConfigError, match="would destroy them"):
            Recipe.of([MagnitudePruning(0.5), step])


@pytest.mark.parametrize(
    "step",
    [
        GPTQ(4, grid="q4_k"),
        RTN(2, grid="q2_k"),
        AWQ(6, grid="q6_k"),
        QuantizeEmbeddings(6, grid="q6_k"),
    ],
    ids=lambda step: step.code(),
)
def test_a_step_on_a_grid_is_written_and_read(step: Step) -> None:
    import workbench as wb

    assert step_from_dict(step.to_dict()) == step
    assert eval(step.code(), {"wb": wb}) == step
    assert "group_size" not in step.code()
    assert step.label.endswith(f"{step.grid.upper()}")  # type: ignore[attr-defined]


def test_what_a_grid_fixes_is_not_asked_for_twice() -> None:
    assert "grid" not in GPTQ(4).to_dict()
    assert RTN(4, group_size=32, grid="q4_k") == RTN(4, grid="q4_k")
    for wrong, said in [
        (lambda: GPTQ(3, grid="q4_k"), r"give GPTQ\(4, grid='q4_k'\), or a grid of 3 bits"),
        (lambda: GPTQ(4, grid="q4_k", group_size=64), "Leave group_size out"),
        (lambda: RTN(4, grid="q4_k", symmetric=True), "Leave symmetric out"),
        (lambda: AWQ(4, grid="q4_k", backend="gptqmodel"), "knows no k-quants"),
        (lambda: RTN(4, grid="q4"), "'q2_k', 'q3_k'"),
        (lambda: QuantizeEmbeddings(8, grid="q6_k"), r"QuantizeEmbeddings\(6, grid='q6_k'\)"),
        (lambda: QuantizeEmbeddings(6, grid="q6_k", symmetric=True), "leave group_size"),
    ]:
        with pytest.raises(ConfigError, match=said):
            wrong()
