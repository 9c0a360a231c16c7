"""AWQ (Lin et al. 2024): scale salient inputs up before rounding, and clip rare large weights.

The reference searches both by running the layer on samples. With the gram matrix the error of
every candidate is exact and needs no data: tr(ΔW H ΔWᵀ).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import AWQ, Step
from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.linalg import output_error
from workbench.tensors.statistics import GroupStatistics, InputStatistics
from workbench.tensors.weights import CompressedWeight, rounded

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
"""Shares of the range that the clip search tries; the reference stops at 0.5 as well."""


class AWQSolver(LayerMethod):
    """One scale per shared input, so that the layer before can absorb it."""

    step: ClassVar[type[Step]] = AWQ
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram", "abs_sum"})
    tokens_per_input: ClassVar[float] = 1 / 8

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, AWQ)
        assert statistics is not None
        weight = group.stacked()
        scheme = config.stored_as(weight.shape[1])
        # A grid's own scales follow the weights closely; the free ones of its groups stand for them
        # while input scales are tried, and its search of ranges takes the place of clipping.
        alike = scheme if isinstance(scheme, IntScheme) else IntScheme(scheme.bits, scheme.length)
        input_scales = search_scales(weight, statistics.solve, alike, config.n_grid)
        scaled = weight * input_scales
        gram = statistics.solve.mean_gram / torch.outer(input_scales, input_scales)
        shrink: Tensor | float = 1.0
        if config.clip and isinstance(scheme, IntScheme):
            shrink = search_shrink(scaled, gram, scheme)
        shrinks = group.split(shrink) if isinstance(shrink, Tensor) else {}
        return {
            name: rounded(
                part,
                scheme,
                shrink=shrinks.get(name, 1.0),
                importance=gram.diagonal(),
                input_scales=input_scales,
            )
            for name, part in group.split(scaled).items()
        }


def _rounded(weight: Tensor, scheme: IntScheme, shrink: Tensor | float = 1.0) -> Tensor:
    scales, zeros = affine.choose_scales(weight, scheme, shrink=shrink)
    return affine.dequantize(affine.quantize(weight, scales, zeros, scheme), scales, zeros, scheme)


def search_scales(
    weight: Tensor, statistics: InputStatistics, scheme: IntScheme, n_grid: int
) -> Tensor:
    """Return the scale per input channel with the smallest output error.

    Candidates are ``abs_mean ** alpha`` for alpha in [0, 1) (equation 5 of the paper), each
    divided by the geometric mean of its extremes and rounded to float16, as it is stored.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    statistics : InputStatistics
    scheme : IntScheme
    n_grid : int
        Number of values of alpha; alpha = 0 (no scaling) is always among them.

    Returns
    -------
    Tensor of shape (in_features,), float32, positive
    """
    activity = statistics.abs_mean
    # An input that was never active says nothing about its weights: it gets a typical scale.
    typical = activity[activity > 0].median() if bool((activity > 0).any()) else 1.0
    activity = torch.where(activity > 0, activity, typical).clamp(min=1e-4 * float(activity.max()))
    gram = statistics.mean_gram
    best, best_error = torch.ones_like(activity), float("inf")
    for index in range(n_grid):
        candidate = activity ** (index / n_grid)
        candidate = candidate / (candidate.max() * candidate.min()).sqrt()
        candidate = candidate.clamp(1e-3, 1e3).half().float()
        delta = _rounded(weight * candidate, scheme) / candidate - weight
        error = float(output_error(delta, gram).sum())
        if error < best_error:
            best, best_error = candidate, error
    return best


def search_shrink(weight: Tensor, gram: Tensor, scheme: IntScheme) -> Tensor:
    """Return for every row and group the share of its range with the smallest output error.

    Inputs of different groups are taken as uncorrelated, as the reference does: the error of a
    group is judged with its own diagonal block of the gram matrix.

    Returns
    -------
    Tensor of shape (out_features, n_groups), float32, in [0.5, 1]
    """
    n_columns = weight.shape[1]
    length = scheme.group_length(n_columns)
    n_groups = scheme.n_groups(n_columns)
    missing = n_groups * length - n_columns
    padded = torch.nn.functional.pad(gram, (0, missing, 0, missing))
    blocks = padded.reshape(n_groups, length, n_groups, length)
    blocks = torch.diagonal(blocks, dim1=0, dim2=2).permute(2, 0, 1)
    best = torch.ones(len(weight), n_groups)
    best_error = torch.full_like(best, torch.inf)
    for shrink in _SHRINKS:
        delta = affine.grouped(_rounded(weight, scheme, shrink) - weight, scheme).transpose(0, 1)
        error = ((delta @ blocks) * delta).sum(-1).T
        better = error < best_error
        best[better] = shrink
        best_error = torch.where(better, error, best_error)
    return best
