"""Masks by share, by row and by pattern, and the schedule of gradual pruning."""

from __future__ import annotations

import itertools

import pytest
import torch

from workbench.errors import ConfigError
from workbench.recipes.schemes import Sparsity
from workbench.tensors.masks import cubic_schedule, keep_mask

SCORES = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [1.0, 2.0, 3.0, 4.0, 0.0]])


def test_a_share_of_the_whole_matrix_may_empty_a_row():
    kept = keep_mask(SCORES, Sparsity(ratio=0.5))
    assert kept.tolist() == [[True] * 5, [False] * 5]


def test_a_share_of_every_row_spares_every_row():
    kept = keep_mask(SCORES, Sparsity(ratio=0.4), by_row=True)
    assert kept.tolist() == [[True, True, True, False, False], [False, True, True, True, False]]


def test_n_of_m_keeps_at_most_n_of_a_short_last_group():
    kept = keep_mask(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0, 6.0]]), Sparsity(n=2, m=4))
    assert kept.tolist() == [[False, True, False, True, True, True]]
    assert keep_mask(SCORES[:1], Sparsity(n=1, m=4)).tolist() == [[True, False, False, False, True]]


def test_cubic_schedule_is_the_papers():
    """s_t = s_f (1 - (1 - t/n)^3): equation 1 with no initial sparsity."""
    assert cubic_schedule(0.8, 4) == pytest.approx((0.4625, 0.7, 0.7875, 0.8))
    assert cubic_schedule(0.5, 1) == (0.5,)
    steps = cubic_schedule(0.9, 10)
    gains = [b - a for a, b in zip((0.0, *steps), steps, strict=False)]
    assert all(a > b > 0 for a, b in itertools.pairwise(gains))


def test_rounds_without_training_equal_one_round():
    """Why there is no step for gradual pruning by itself."""
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    gradual = weight
    for ratio in cubic_schedule(0.6, 5):
        gradual = gradual * keep_mask(gradual.abs(), Sparsity(ratio=ratio))
    assert torch.equal(gradual, weight * keep_mask(weight.abs(), Sparsity(ratio=0.6)))


@pytest.mark.parametrize(("ratio", "steps"), [(1.0, 3), (-0.1, 3), (0.5, 0)])
def test_schedules_out_of_range_are_refused(ratio, steps):
    with pytest.raises(ConfigError, match="at least one step"):
        cubic_schedule(ratio, steps)
