"""Known answers for Wanda."""

from __future__ import annotations

import torch

from workbench.methods import GroupWeights
from workbench.methods.wanda import WandaPruner
from workbench.recipes import Wanda
from workbench.tensors.statistics import GroupStatistics, InputStatistics


def statistics_of(x: torch.Tensor) -> GroupStatistics:
    sums = InputStatistics(x.T @ x, x.abs().sum(0), len(x))
    return GroupStatistics(sums, sums)


def test_weights_go_by_size_times_the_norm_of_their_input():
    """The example of the paper's figure 1: magnitude alone would keep other weights."""
    weight = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
    norms = torch.tensor([1.0, 2.0, 8.0, 3.0])
    group = GroupWeights({"layer": weight}, {})
    solved = WandaPruner().solve(group, statistics_of(torch.diag(norms)), Wanda(0.5))
    expected = [[4.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, -3.0], [-3.0, 0.0, 0.0, 2.0]]
    assert solved["layer"].dequantize().tolist() == expected


def test_every_row_loses_the_same_share():
    torch.manual_seed(0)
    weight = torch.randn(10, 40) * torch.logspace(-3, 3, 10)[:, None]
    group = GroupWeights({"layer": weight}, {})
    solved = WandaPruner().solve(group, statistics_of(torch.randn(99, 40)), Wanda(0.25))
    assert ((solved["layer"].dequantize() == 0).sum(1) == 10).all()


def test_weights_of_a_dead_input_go_first():
    torch.manual_seed(1)
    x = torch.randn(50, 8)
    x[:, 3] = 0
    group = GroupWeights({"layer": torch.randn(5, 8) + 9 * torch.eye(5, 8)}, {})
    solved = WandaPruner().solve(group, statistics_of(x), Wanda(0.125))
    assert (solved["layer"].dequantize()[:, 3] == 0).all()
