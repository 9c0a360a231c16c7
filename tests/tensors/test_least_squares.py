from __future__ import annotations

import pytest
import torch

from workbench.errors import CompressionError
from workbench.tensors.least_squares import input_energy, refit, relative_error

KEEP = torch.tensor([0, 2, 3, 7, 8, 11])


@pytest.fixture
def layer():
    """A weight and 300 correlated inputs, with their mean gram matrix."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 12, generator=generator)
    x = x + x @ torch.randn(12, 12, generator=generator)
    return torch.randn(5, 12, generator=generator), x, x.T @ x / len(x)


def test_refit_is_the_least_squares_solution(layer):
    weight, x, gram = layer
    solution = torch.linalg.lstsq(x[:, KEEP].double(), (x @ weight.T).double()).solution.T
    found = refit(weight, gram, KEEP, damping=1e-9)
    assert torch.allclose(found.double(), solution, rtol=1e-3, atol=1e-4)
    assert (found - weight[:, KEEP]).abs().max() > 0.1, "there was nothing to refit"


def test_damping_pulls_towards_the_weights_as_they_are(layer):
    weight, _, gram = layer
    distances = [
        float((refit(weight, gram, KEEP, damping=d) - weight[:, KEEP]).norm())
        for d in (1e-6, 0.1, 10.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-3 * distances[0]


def test_refit_of_all_inputs_changes_nothing(layer):
    weight, _, gram = layer
    assert torch.allclose(refit(weight, gram, torch.arange(12), damping=0.01), weight)


def test_relative_error_is_that_of_the_outputs(layer):
    weight, x, gram = layer
    kept = weight[:, KEEP] * 0.9
    expected = (x[:, KEEP] @ kept.T - x @ weight.T).square().sum() / (x @ weight.T).square().sum()
    assert relative_error(weight, gram, KEEP, kept) == pytest.approx(float(expected), rel=1e-4)
    fitted = refit(weight, gram, KEEP, damping=0.01)
    plain = relative_error(weight, gram, KEEP, weight[:, KEEP])
    assert relative_error(weight, gram, KEEP, fitted) < 0.7 * plain


@pytest.mark.parametrize("group", [1, 4])
def test_energy_is_what_a_group_adds_to_the_output(layer, group):
    weight, x, gram = layer
    expected = [
        (x[:, i : i + group] @ weight[:, i : i + group].T).square().sum() / len(x)
        for i in range(0, 12, group)
    ]
    assert torch.allclose(input_energy(weight, gram, group), torch.stack(expected), rtol=1e-4)


def test_inputs_that_were_never_active_do_no_harm():
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    found = refit(weight, torch.zeros(6, 6), torch.tensor([1, 4]), damping=0.01)
    assert torch.equal(found, weight[:, [1, 4]])


def test_a_matrix_that_cannot_be_solved_is_an_error(layer):
    weight, _, gram = layer
    gram[0, 0] = torch.nan
    with pytest.raises(CompressionError, match="compensate=False"):
        refit(weight, gram, KEEP, damping=0.01)
