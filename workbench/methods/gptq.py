"""GPTQ (Frantar et al. 2023): quantize column by column, compensate in the columns to come."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from torch import Tensor

from workbench import affine
from workbench.linalg import InverseFactor
from workbench.methods.base import GroupWeights, LayerMethod
from workbench.schemes import IntScheme
from workbench.statistics import GroupStatistics
from workbench.steps import GPTQ, Step
from workbench.weights import CompressedWeight, QuantizedWeight


class GPTQSolver(LayerMethod):
    """Layers of one shared input are stacked and solved as one matrix."""

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, GPTQ)
        assert statistics is not None
        factor = statistics.inverse_factor(damping=config.damping, act_order=config.act_order)
        weight = group.stacked()
        codes, scales, zeros = gptq(
            weight,
            factor,
            config.scheme,
            block_size=config.block_size,
            mask=group.stacked_mask(),
        )
        return {
            name: QuantizedWeight.from_codes(c, s, z, config.scheme)
            for name, c, s, z in zip(
                group.weights,
                group.split(codes).values(),
                group.split(scales).values(),
                group.split(zeros).values(),
                strict=True,
            )
        }


def gptq(
    weight: Tensor,
    factor: InverseFactor,
    scheme: IntScheme,
    *,
    block_size: int = 128,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize one matrix (algorithm 1 of the paper).

    With an order in ``factor`` the scales are chosen from the original weights before the first
    column (static groups), so that groups stay runs of consecutive inputs. Without one, a group's
    scales are chosen when its first column is reached, from the corrected weights.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    factor : InverseFactor
        Of the damped gram matrix of this layer's inputs.
    scheme : IntScheme
    block_size : int
        Columns whose corrections are gathered before they reach the rest of the matrix.
    mask : Tensor of bool, same shape, optional
        False where a weight was pruned; it stays zero and its loss is compensated too.

    Returns
    -------
    codes : Tensor of shape (out_features, in_features), uint8
    scales, zeros : Tensor of shape (out_features, n_groups), float32
    """
    n_columns = weight.shape[1]
    order = factor.order
    static = order is not None
    length = scheme.group_length(n_columns)
    # Columns lie in the rows of these, so that each step reads and writes contiguous memory.
    work = weight.T.contiguous() if order is None else weight.T[order].contiguous()
    keep = None if mask is None else (mask.T if order is None else mask.T[order]).contiguous()
    levels = torch.empty_like(work)
    scales, zeros = affine.choose_scales(weight, scheme)
    if static:
        step = affine.expand(scales, scheme, n_columns).T[order].contiguous()
        zero = affine.expand(zeros, scheme, n_columns).T[order].contiguous()
    else:
        step, zero = torch.empty_like(work), torch.empty_like(work)

    edges = set(range(0, n_columns, block_size)) | {n_columns}
    if not static:
        edges |= set(range(0, n_columns, length))
    starts = sorted(edges)
    for first, last in itertools.pairwise(starts):
        if not static and first % length == 0:
            group = first // length
            own = IntScheme(scheme.bits, None, scheme.symmetric)
            s, z = affine.choose_scales(work[first : first + length].T, own)
            scales[:, group : group + 1], zeros[:, group : group + 1] = s, z
            step[first : first + length], zero[first : first + length] = s.T, z.T
        errors = _quantize_block(
            work[first:last],
            levels[first:last],
            step[first:last],
            -zero[first:last],
            scheme.max_code - zero[first:last],
            factor.upper[first:last, first:last],
            None if keep is None else keep[first:last],
        )
        if last < n_columns:
            work[last:].addmm_(factor.upper[first:last, last:].T, errors, alpha=-1)
    codes = levels.add_(zero)
    if order is not None:
        codes = torch.empty_like(codes).index_copy_(0, order, codes)
    return codes.T.to(torch.uint8), scales, zeros


def _quantize_block(
    work: Tensor,
    levels: Tensor,
    step: Tensor,
    low: Tensor,
    high: Tensor,
    upper: Tensor,
    keep: Tensor | None,
) -> Tensor:
    """Quantize the columns of one block in place; return their scaled errors for the rest."""
    errors = torch.empty_like(work)
    inverse_step = step.reciprocal()
    diagonal = upper.diagonal().tolist()
    for i, pivot in enumerate(diagonal):
        column, level = work[i], levels[i]
        torch.mul(column, inverse_step[i], out=level)
        level.round_().clamp_(low[i], high[i])
        if keep is not None:
            level.mul_(keep[i])
        error = errors[i]
        torch.addcmul(column, level, step[i], value=-1, out=error)
        error.div_(pivot)
        if i + 1 < len(diagonal):
            work[i + 1 :].addr_(upper[i, i + 1 :], error, alpha=-1)
    return errors
