"""GPTQ (Frantar et al. 2023): quantize column by column, compensate in the columns to come."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import GPTQ, OWN_BACKEND, Step
from workbench.recipes.schemes import BlockScheme, IntScheme
from workbench.tensors import affine, superblocks
from workbench.tensors.linalg import InverseFactor
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, QuantizedWeight, SuperBlockWeight

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
        if config.sequential or config.backend != OWN_BACKEND or config.grid is not None:
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
        weight = group.stacked()
        factor = statistics.inverse_factor(damping=first.damping, act_order=first.act_order)
        grid = first.stored_as(weight.shape[1])
        if isinstance(grid, BlockScheme):
            importance = statistics.solve.mean_gram.diagonal()
            chosen = superblocks.choose_scales(weight, grid, importance)
            codes = gptq_on_grid(
                weight,
                factor,
                grid,
                chosen,
                block_size=first.block_size,
                mask=group.stacked_mask(),
            )
            places = group.split(torch.arange(len(weight)))
            solved: dict[str, CompressedWeight] = {}
            for name, rows in places.items():
                own = slice(int(rows[0]), int(rows[-1]) + 1)
                solved[name] = SuperBlockWeight(codes[own], chosen.rows(own), grid)
            return [solved]
        schemes = [config.scheme for config in configs if isinstance(config, GPTQ)]
        found = gptq_many(
            weight,
            factor,
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
    n_rows = len(weight)
    parts = []
    with fast_products():
        for rows, kept in _parts(weight, mask, len(schemes)):
            grid = _Grid.choose(rows, schemes)
            codes = _solve_rows(rows, factor, grid, schemes, block_size, kept)
            parts.append(
                [
                    (codes[:, at : at + len(rows)].T, *grid.of_scheme(at, rows.shape, scheme))
                    for at, scheme in zip(range(0, codes.shape[1], len(rows)), schemes, strict=True)
                ]
            )
    return [
        (
            torch.cat([codes for codes, _, _ in found])[:n_rows],
            torch.cat([scales for _, scales, _ in found])[:n_rows],
            torch.cat([zeros for _, _, zeros in found])[:n_rows],
        )
        for found in zip(*parts, strict=True)
    ]


def gptq_on_grid(
    weight: Tensor,
    factor: InverseFactor,
    scheme: BlockScheme,
    scales: superblocks.BlockScales,
    *,
    block_size: int = 128,
    mask: Tensor | None = None,
) -> Tensor:
    """Quantize one matrix on a grid whose levels are all fixed; return its codes, uint8.

    Parameters
    ----------
    weight, factor, block_size, mask
        As for :func:`gptq_many`.
    scheme : BlockScheme
    scales : BlockScales
        Of this matrix.
    """
    n_rows = len(weight)
    solved, first = [], 0
    with fast_products():
        for rows, kept in _parts(weight, mask, 1):
            own = scales.rows(slice(first, first + len(rows)))
            grid = _FixedGrid.of(own, scheme, len(rows))
            solved.append(_solve_rows(rows, factor, grid, (), block_size, kept).T)
            first += len(rows)
    return torch.cat(solved)[:n_rows].contiguous()


def _parts(
    weight: Tensor, mask: Tensor | None, n_schemes: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield rows to be solved together, padded, and what of them was kept."""
    missing = -len(weight) % _ALIGNED
    weight = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    mask = None if mask is None else torch.nn.functional.pad(mask, (0, 0, 0, missing), value=True)
    chunk = _WORK_BYTES // (12 * weight.shape[1] * n_schemes)
    chunk = max(_ALIGNED, chunk - chunk % _ALIGNED)
    for first in range(0, len(weight), chunk):
        rows = slice(first, first + chunk)
        yield weight[rows], None if mask is None else mask[rows]


def _solve_rows(
    weight: Tensor,
    factor: InverseFactor,
    grid: _Grid | _FixedGrid,
    schemes: Sequence[IntScheme],
    block_size: int,
    mask: Tensor | None,
) -> Tensor:
    """Return the codes, (in_features, rows), uint8; the rows of all schemes lie side by side."""
    n_columns = weight.shape[1]
    order = torch.arange(n_columns) if factor.order is None else factor.order.cpu()
    copies = max(len(schemes), 1)
    # Columns lie in the rows of these, so that each step reads and writes contiguous memory; the
    # rows of the schemes lie side by side.
    work = weight.T[order].repeat(1, copies)
    keep = None if mask is None else mask.T[order].repeat(1, copies)
    levels = torch.empty_like(work)
    # An error divided by its pivot corrects by a row of U; so does the error by the row so divided.
    unit = factor.upper / factor.upper.diagonal()[:, None]

    edges = {*range(0, n_columns, block_size), n_columns}
    on_the_way = factor.order is None and isinstance(grid, _Grid)
    if on_the_way:
        edges |= set(range(0, n_columns, grid.length))
    for first, last in pairwise(sorted(edges)):
        if on_the_way and isinstance(grid, _Grid) and first % grid.length == 0:
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

    codes = levels.add_(grid.zeros(order // grid.length)).to(torch.uint8)
    return torch.empty_like(codes).index_copy_(0, order.to(codes.device), codes)


def _quantize_panel(
    work: Tensor,
    levels: Tensor,
    errors: Tensor,
    grid: _Grid | _FixedGrid,
    groups: Sequence[int],
    unit: Tensor,
    keep: Tensor | None,
) -> None:
    """Quantize a few columns in place, each corrected by the errors of those before it."""
    columns = zip(groups, work, levels, errors, strict=True)
    for i, (group, column, level, error) in enumerate(columns):
        step, inverse, low, high = grid.rows[group]
        offset = None if grid.offsets is None else grid.offsets[group]
        if offset is None:
            torch.mul(column, inverse, out=level)
        else:
            torch.add(column, offset, out=level).mul_(inverse)
        level.round_().clamp_(low, high)
        if keep is not None:
            level.mul_(keep[i])
        torch.addcmul(column, level, step, value=-1, out=error)
        if offset is not None:
            error.add_(offset)
        # Not addr_, whose last digits depend on where in the matrix a row lies.
        work[i + 1 :].addcmul_(unit[i, i + 1 :, None], error, value=-1)


@dataclass
class _Grid:
    """The levels that every row may take: one row per group of inputs, all schemes side by side.

    Where schemes have different groups, these are the largest groups that all of theirs consist
    of. ``rows`` holds for each group the step, its inverse, and the lowest and the highest level
    relative to the zero point, each of shape (rows,).
    """

    offsets: ClassVar[None] = None

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

    def zeros(self, groups: Tensor) -> Tensor:
        """Return what has to be added to the levels of some groups' columns to make them codes."""
        return self.zero[groups]

    def of_scheme(
        self, first: int, shape: Sequence[int], scheme: IntScheme
    ) -> tuple[Tensor, Tensor]:
        """Return scales and zero points, (rows, n_groups), of the scheme whose rows begin there."""
        n_rows, n_columns = shape
        every = scheme.group_length(n_columns) // self.length
        rows = slice(first, first + n_rows)
        return self.step[::every, rows].T, self.zero[::every, rows].T


@dataclass
class _FixedGrid:
    """The levels of a k-quant: as of :class:`_Grid`, moved by an offset where it has minima.

    A step may be negative, or 0 where all weights of a sub-block are the same.
    """

    length: int
    middle: int
    rows: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
    offsets: list[Tensor] | None

    @classmethod
    def of(cls, scales: superblocks.BlockScales, scheme: BlockScheme, n_rows: int) -> _FixedGrid:
        """Return the levels of these scales, for rows that may be padded."""

        def padded(values: Tensor) -> Tensor:
            return torch.nn.functional.pad(values.T, (0, n_rows - len(values)))

        step = padded(scales.step)
        inverse = torch.where(step == 0, 0.0, step.reciprocal())
        low = step.new_full((n_rows,), -scheme.middle)
        high = low + scheme.max_code
        rows = [(s, i, low, high) for s, i in zip(step, inverse, strict=True)]
        offset = scales.offset
        offsets = None if offset is None else list(padded(offset))
        return cls(scheme.length, scheme.middle, rows, offsets)

    def zeros(self, groups: Tensor) -> float:
        """Return what has to be added to levels to make them codes."""
        return float(self.middle)
