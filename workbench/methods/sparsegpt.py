"""SparseGPT (Frantar & Alistarh 2023): prune column by column, compensate in those to come."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import SparseGPT, Step
from workbench.recipes.schemes import IntScheme, Sparsity
from workbench.tensors import affine
from workbench.tensors.linalg import InverseFactor
from workbench.tensors.masks import keep_mask
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, PrunedWeight, QuantizedWeight


class SparseGPTSolver(LayerMethod):
    """Layers of one shared input are solved as one matrix; each is pruned by its own scores."""

    step: ClassVar[type[Step]] = SparseGPT
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, SparseGPT)
        assert statistics is not None
        # The natural order: an N:M pattern lies over consecutive inputs.
        factor = statistics.inverse_factor(damping=config.damping, act_order=False)
        solution = sparsegpt(
            group.stacked(),
            factor,
            config.sparsity,
            scheme=config.scheme,
            block_size=config.block_size,
            rows=[len(weight) for weight in group.weights.values()],
            mask=group.stacked_mask(),
        )
        if config.scheme is None:
            values = group.split(solution.values)
            return {n: PrunedWeight(v.to(group.dtype), config.sparsity) for n, v in values.items()}
        codes = affine.quantize(solution.values, solution.scales, solution.zeros, config.scheme)
        return {
            name: QuantizedWeight.from_codes(c, s, z, config.scheme)
            for name, c, s, z in zip(
                group.weights,
                group.split(codes).values(),
                group.split(solution.scales).values(),
                group.split(solution.zeros).values(),
                strict=True,
            )
        }


@dataclass(frozen=True)
class Solution:
    """A pruned matrix.

    Attributes
    ----------
    values : Tensor of shape (out_features, in_features), float32
        Zero exactly where a weight was removed; levels of the scheme where one is given.
    keep : Tensor of bool, same shape
    scales, zeros : Tensor of shape (out_features, n_groups), float32
        Of the scheme; empty without one.
    """

    values: Tensor
    keep: Tensor
    scales: Tensor
    zeros: Tensor


def sparsegpt(
    weight: Tensor,
    factor: InverseFactor,
    sparsity: Sparsity,
    *,
    scheme: IntScheme | None = None,
    block_size: int = 128,
    rows: Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Solution:
    """Prune one matrix, and quantize what stays if a scheme is given (algorithm 1 of the paper).

    The mask of a block of columns is chosen when the block is reached, from the weights as they
    are corrected by then: those with the smallest w² / [H⁻¹]² go (section 3.2, "adaptive mask
    selection"); that of an N:M pattern when its m columns are reached.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    factor : InverseFactor
        Of the damped gram matrix of this layer's inputs, in the natural order.
    sparsity : Sparsity
    scheme : IntScheme, optional
        A group's scales are chosen when its first column is reached; zero is always a level.
    block_size : int
        Columns whose mask is chosen together; raised to a multiple of m.
    rows : sequence of int, optional
        Rows of each layer in a stacked matrix; scores are compared within a layer. Default: one.
    mask : Tensor of bool, same shape, optional
        False where a weight was pruned before: it is removed again, and counts as removed.
    """
    n_columns = weight.shape[1]
    rows = [len(weight)] if rows is None else list(rows)
    pattern = sparsity.m or 1
    block_size = math.ceil(block_size / pattern) * pattern
    # Columns lie in the rows of these, so that each step reads and writes contiguous memory.
    work = weight.T.contiguous()
    keep = torch.ones_like(work, dtype=torch.bool)
    before = None if mask is None else mask.T
    inverse = factor.upper.to(weight.device)
    importance = inverse.diagonal()[:, None].square()
    blocks = set(range(0, n_columns, block_size))
    edges = blocks | {n_columns}
    scales = zeros = weight.new_empty(len(weight), 0)
    step = zero = None
    if scheme is not None:
        length = scheme.group_length(n_columns)
        edges |= set(range(0, n_columns, length))
        scales, zeros = affine.choose_scales(weight, scheme)
        step, zero = torch.empty_like(work), torch.empty_like(work)

    def choose(first: int, last: int) -> None:
        """Choose the mask of some columns from the weights as they are now."""
        scores = work[first:last].square() / importance[first:last]
        if before is not None:
            scores = scores.masked_fill(~before[first:last], -1.0)
        chosen = [keep_mask(part.T, sparsity) for part in scores.split(rows, dim=1)]
        keep[first:last] = torch.cat(chosen).T
        if before is not None:
            keep[first:last] &= before[first:last]

    for first, last in itertools.pairwise(sorted(edges)):
        if first in blocks and sparsity.ratio is not None:
            choose(first, min(first + block_size, n_columns))
        if scheme is not None and first % length == 0:
            assert step is not None
            assert zero is not None
            group = first // length
            own = IntScheme(scheme.bits, None, scheme.symmetric)
            s, z = affine.choose_scales(work[first : first + length].T, own)
            scales[:, group : group + 1], zeros[:, group : group + 1] = s, z
            step[first : first + length], zero[first : first + length] = s.T, z.T
        errors = torch.empty_like(work[first:last])
        upper = inverse[first:last]
        for column in range(first, last):
            if sparsity.m is not None and column % pattern == 0:
                choose(column, min(column + pattern, n_columns))
            value = work[column] * keep[column]
            if scheme is not None:
                assert step is not None
                assert zero is not None
                value = _level(value, step[column], zero[column], scheme.max_code)
            row = upper[column - first, column:last]
            error = (work[column] - value).div_(row[0])
            errors[column - first] = error
            work[column] = value
            if column + 1 < last:
                work[column + 1 : last].addr_(row[1:], error, alpha=-1)
        if last < n_columns:
            work[last:].addmm_(upper[:, last:].T, errors, alpha=-1)
    return Solution(work.T.contiguous(), keep.T.contiguous(), scales, zeros)


def _level(value: Tensor, step: Tensor, zero: Tensor, max_code: int) -> Tensor:
    """Return the nearest level; zero is one, so what was removed stays zero."""
    return (value / step).round_().clamp_(-zero, max_code - zero).mul_(step)
