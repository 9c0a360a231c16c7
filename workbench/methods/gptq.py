"""GPTQ (Frantar et al. 2023): quantize column by column, compensate in the columns to come."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import GPTQ, OWN_BACKEND, Step
from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.linalg import InverseFactor
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, QuantizedWeight

_PANEL = 32
"""Columns between products within a block: few enough for the cache, enough for the product."""

_ALIGNED = 16
"""Products of fewer rows are summed in another order, so rows are padded to a multiple of this."""

_WORK_BYTES = 256 << 20
"""Rows are solved so many at a time that their copies stay about this small."""


class GPTQSolver(LayerMethod):
    """Layers of one shared input are stacked and solved as one matrix."""

    step: ClassVar[type[Step]] = GPTQ
    version: ClassVar[int] = 2
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        return self.solve_many(group, statistics, [config])[0]

    def together(self, config: Step) -> Hashable | None:
        assert isinstance(config, GPTQ)
        if config.sequential or config.backend != OWN_BACKEND:
            return None
        # In the natural order scales are chosen on the way, at the columns where groups begin.
        groups = None if config.act_order else (config.group_size,)
        return (config.damping, config.act_order, config.block_size, groups)

    def solve_many(
        self,
        group: GroupWeights,
        statistics: GroupStatistics | None,
        configs: Sequence[Step],
    ) -> list[dict[str, CompressedWeight]]:
        first = configs[0]
        assert isinstance(first, GPTQ)
        assert statistics is not None
        schemes = [config.scheme for config in configs if isinstance(config, GPTQ)]
        found = gptq_many(
            group.stacked(),
            statistics.inverse_factor(damping=first.damping, act_order=first.act_order),
            schemes,
            block_size=first.block_size,
            mask=group.stacked_mask(),
        )
        return [
            {
                name: QuantizedWeight.from_codes(c, s, z, scheme)
                for name, c, s, z in zip(
                    group.weights,
                    group.split(codes).values(),
                    group.split(scales).values(),
                    group.split(zeros).values(),
                    strict=True,
                )
            }
            for scheme, (codes, scales, zeros) in zip(schemes, found, strict=True)
        ]


def gptq(
    weight: Tensor,
    factor: InverseFactor,
    scheme: IntScheme,
    *,
    block_size: int = 128,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize one matrix; see :func:`gptq_many`."""
    return gptq_many(weight, factor, [scheme], block_size=block_size, mask=mask)[0]


def gptq_many(
    weight: Tensor,
    factor: InverseFactor,
    schemes: Sequence[IntScheme],
    *,
    block_size: int = 128,
    mask: Tensor | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Quantize one matrix by several schemes at once (algorithm 1 of the paper for each).

    Rows do not depend on each other, so the rows of all schemes go through the columns side by
    side: most of the time that one matrix takes is spent on starting operations on short columns.
    The result for a scheme is the same, bit for bit, whichever others are solved with it.

    With an order in ``factor`` the scales are chosen from the original weights before the first
    column (static groups), so that groups stay runs of consecutive inputs. Without one, a group's
    scales are chosen when its first column is reached, from the corrected weights.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    factor : InverseFactor
        Of the damped gram matrix of this layer's inputs.
    schemes : sequence of IntScheme
        Of one group size if ``factor`` has no order.
    block_size : int
        Columns whose corrections are gathered before they reach the rest of the matrix.
    mask : Tensor of bool, same shape, optional
        False where a weight was pruned; it stays zero and its loss is compensated too.

    Returns
    -------
    list of (codes, scales, zeros), one for each scheme
        codes : Tensor of shape (out_features, in_features), uint8;
        scales, zeros : Tensor of shape (out_features, n_groups), float32.
    """
    n_rows, n_columns = weight.shape
    missing = -n_rows % _ALIGNED
    weight = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    mask = None if mask is None else torch.nn.functional.pad(mask, (0, 0, 0, missing), value=True)
    chunk = _WORK_BYTES // (12 * n_columns * len(schemes))
    chunk = max(_ALIGNED, chunk - chunk % _ALIGNED)
    parts = []
    with fast_products():
        for first in range(0, len(weight), chunk):
            rows = slice(first, first + chunk)
            kept = None if mask is None else mask[rows]
            parts.append(_solve_rows(weight[rows], factor, schemes, block_size, kept))
    return [
        (
            torch.cat([codes for codes, _, _ in found])[:n_rows],
            torch.cat([scales for _, scales, _ in found])[:n_rows],
            torch.cat([zeros for _, _, zeros in found])[:n_rows],
        )
        for found in zip(*parts, strict=True)
    ]


def _solve_rows(
    weight: Tensor,
    factor: InverseFactor,
    schemes: Sequence[IntScheme],
    block_size: int,
    mask: Tensor | None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    n_rows, n_columns = weight.shape
    order = torch.arange(n_columns) if factor.order is None else factor.order.cpu()
    grid = _Grid.choose(weight, schemes)
    # Columns lie in the rows of these, so that each step reads and writes contiguous memory; the
    # rows of the schemes lie side by side.
    work = weight.T[order].repeat(1, len(schemes))
    keep = None if mask is None else mask.T[order].repeat(1, len(schemes))
    levels = torch.empty_like(work)
    # An error divided by its pivot corrects by a row of U; so does the error by the row so divided.
    unit = factor.upper / factor.upper.diagonal()[:, None]

    edges = {*range(0, n_columns, block_size), n_columns}
    if factor.order is None:
        edges |= set(range(0, n_columns, grid.length))
    for first, last in pairwise(sorted(edges)):
        if factor.order is None and first % grid.length == 0:
            grid.choose_again(first // grid.length, work[first : first + grid.length], schemes)
        errors = torch.empty_like(work[first:last])
        for begin in range(first, last, _PANEL):
            end = min(begin + _PANEL, last)
            panel = slice(begin - first, end - first)
            _quantize_panel(
                work[begin:end],
                levels[begin:end],
                errors[panel],
                grid,
                [int(column) // grid.length for column in order[begin:end]],
                unit[begin:end, begin:end],
                None if keep is None else keep[begin:end],
            )
            if end < last:
                work[end:last].addmm_(unit[begin:end, end:last].T, errors[panel], alpha=-1)
        if last < n_columns:
            work[last:].addmm_(unit[first:last, last:].T, errors, alpha=-1)

    codes = levels.add_(grid.zero[order // grid.length]).to(torch.uint8)
    codes = torch.empty_like(codes).index_copy_(0, order.to(codes.device), codes)
    return [
        (codes[:, at : at + n_rows].T, *grid.of_scheme(at, n_rows, scheme, n_columns))
        for at, scheme in zip(range(0, len(schemes) * n_rows, n_rows), schemes, strict=True)
    ]


def _quantize_panel(
    work: Tensor,
    levels: Tensor,
    errors: Tensor,
    grid: _Grid,
    groups: Sequence[int],
    unit: Tensor,
    keep: Tensor | None,
) -> None:
    """Quantize a few columns in place, each corrected by the errors of those before it."""
    columns = zip(groups, work, levels, errors, strict=True)
    for i, (group, column, level, error) in enumerate(columns):
        step, inverse, low, high = grid.rows[group]
        torch.mul(column, inverse, out=level)
        level.round_().clamp_(low, high)
        if keep is not None:
            level.mul_(keep[i])
        torch.addcmul(column, level, step, value=-1, out=error)
        # Not addr_, whose last digits depend on where in the matrix a row lies.
        work[i + 1 :].addcmul_(unit[i, i + 1 :, None], error, value=-1)


@dataclass
class _Grid:
    """The levels that every row may take: one row per group of inputs, all schemes side by side.

    Where schemes have different groups, these are the largest groups that all of theirs consist
    of. ``rows`` holds for each group the step, its inverse, and the lowest and the highest level
    relative to the zero point, each of shape (rows,).
    """

    length: int
    step: Tensor
    zero: Tensor
    top: Tensor

    def __post_init__(self) -> None:
        values = (self.step, self.step.reciprocal(), -self.zero, self.top - self.zero)
        self.rows = list(zip(*values, strict=True))

    @classmethod
    def choose(cls, weight: Tensor, schemes: Sequence[IntScheme]) -> _Grid:
        n_rows, n_columns = weight.shape
        lengths = [scheme.group_length(n_columns) for scheme in schemes]
        length = math.gcd(*lengths)
        count = math.ceil(n_columns / length)
        steps, zeros, tops = [], [], []
        for scheme, own in zip(schemes, lengths, strict=True):
            found = affine.choose_scales(weight, scheme)
            s, z = (x.repeat_interleave(own // length, dim=1)[:, :count].T for x in found)
            steps.append(s)
            zeros.append(z)
            tops.append(weight.new_full((n_rows,), scheme.max_code))
        return cls(length, torch.cat(steps, 1), torch.cat(zeros, 1), torch.cat(tops))

    def choose_again(self, group: int, columns: Tensor, schemes: Sequence[IntScheme]) -> None:
        """Choose one group's levels from its columns, (group length, rows), as they are by now."""
        for index, part in enumerate(columns.chunk(len(schemes), dim=1)):
            scheme = schemes[index]
            own = IntScheme(scheme.bits, None, scheme.symmetric)
            s, z = affine.choose_scales(part.T, own)
            rows = slice(index * len(s), (index + 1) * len(s))
            self.step[group, rows], self.zero[group, rows] = s[:, 0], z[:, 0]
        step, zero = self.step[group], self.zero[group]
        self.rows[group] = (step, step.reciprocal(), -zero, self.top - zero)

    def of_scheme(
        self, first: int, n_rows: int, scheme: IntScheme, n_columns: int
    ) -> tuple[Tensor, Tensor]:
        """Return scales and zero points, (rows, n_groups), of the scheme whose rows begin there."""
        every = scheme.group_length(n_columns) // self.length
        rows = slice(first, first + n_rows)
        return self.step[::every, rows].T, self.zero[::every, rows].T
