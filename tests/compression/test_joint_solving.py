"""What is solved ahead is what would have been solved, is handed out once, and stays in bounds."""

from __future__ import annotations

import pytest
import torch

from tests.calibration.test_calibrate import OPTIONS, RowsTask
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import compress
from workbench.compression.joint_solving import SolvedAhead
from workbench.methods import LAYER_METHODS
from workbench.models.load import load_model
from workbench.recipes import AWQ, GPTQ, RTN
from workbench.recipes.recipe import Recipe

STEPS = (
    GPTQ(4, group_size=8),
    GPTQ(3, group_size=None),
    GPTQ(2, group_size=8, symmetric=True),
    GPTQ(2, group_size=8, damping=0.1),
    GPTQ(2, group_size=8, act_order=False),
)


@pytest.fixture
def model():
    return load_model(tiny_model(), tiny_tokenizer(), device="cpu")


@pytest.fixture
def calibrator(tmp_path):
    return Calibrator(RowsTask(), OPTIONS, folder=tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """How many configurations each call of the solver was given."""
    method = type(LAYER_METHODS[GPTQ])
    real, seen = method.solve_many, []

    def counted(self, group, statistics, configs):
        seen.append(len(configs))
        return real(self, group, statistics, configs)

    monkeypatch.setattr(method, "solve_many", counted)
    return seen


def weights_of(compressed):
    return {name: weight.tensors() for name, weight in compressed.model.weights.items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name][key], b[name][key]) for name in a for key in a[name]
    )


def test_equal_to_the_last_bit_and_solved_once(model, calibrator, calls):
    alone = [weights_of(compress(model, Recipe.of(step), calibrator)) for step in STEPS]
    n_groups = len(calibrator.statistics(model).groups)
    calls.clear()
    ahead = SolvedAhead()
    for index, step in enumerate(STEPS):
        ahead.expect(STEPS[index:])
        found = compress(model, Recipe.of(step), calibrator, ahead=ahead)
        assert same(weights_of(found), alone[index])
        assert found.facts.get("solved_together") == (3 if index < 3 else None)
        assert (step in ahead) is False
    # Three agree in damping and order; the other two are alone.
    assert calls == [3] * n_groups + [1] * 2 * n_groups


def test_what_is_no_longer_expected_is_forgotten(model, calibrator):
    ahead = SolvedAhead()
    ahead.expect(STEPS)
    compress(model, Recipe.of(STEPS[0]), calibrator, ahead=ahead)
    assert STEPS[1] in ahead
    ahead.expect(STEPS[2:])
    assert STEPS[1] not in ahead
    assert STEPS[2] in ahead


def test_no_more_than_fits_the_budget(model, calibrator, calls):
    n_weights = sum(w.numel() for n, w in model.hf_model.named_parameters() if "proj" in n)
    ahead = SolvedAhead(budget_bytes=int(1.5 * n_weights))
    ahead.expect(STEPS)
    compress(model, Recipe.of(STEPS[0]), calibrator, ahead=ahead)
    assert set(calls) == {2}
    assert STEPS[2] not in ahead


def test_other_statistics_are_solved_anew(model, calibrator, tmp_path):
    """The same steps on another model take nothing from what was kept for the first."""
    other = load_model(tiny_model(seed=1), tiny_tokenizer(), device="cpu")
    expected = weights_of(compress(other, Recipe.of(STEPS[1]), calibrator))
    ahead = SolvedAhead()
    ahead.expect(STEPS)
    compress(model, Recipe.of(STEPS[0]), calibrator, ahead=ahead)
    assert same(weights_of(compress(other, Recipe.of(STEPS[1]), calibrator, ahead=ahead)), expected)


@pytest.mark.parametrize("step", [RTN(4), AWQ(4), GPTQ(4, sequential=True)])
def test_methods_that_gain_nothing_are_left_alone(step):
    assert LAYER_METHODS[type(step)].together(step) is None
