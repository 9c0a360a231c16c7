"""Known answers for SparseGPT, and agreement with optimal brain surgeon column by column."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import ConfigError
from workbench.methods.sparsegpt import sparsegpt
from workbench.recipes import SparseGPT
from workbench.recipes.schemes import IntScheme, Sparsity
from workbench.tensors import affine
from workbench.tensors.linalg import inverse_factor
from workbench.tensors.masks import keep_mask

HALF = Sparsity(ratio=0.5)


def correlated_gram(k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * k, k, generator=generator) @ torch.randn(k, k, generator=generator)
    return x.T @ x / len(x)


def factor_of(gram: torch.Tensor):
    return inverse_factor(gram, damping=0.01, act_order=False)


@pytest.mark.parametrize("sparsity", [HALF, Sparsity(n=2, m=4)], ids=str)
def test_with_a_diagonal_gram_it_is_wanda_over_the_matrix(sparsity):
    """Nothing can make up for a weight: [H⁻¹] is 1 / ‖x‖², and what stays stays as it is."""
    torch.manual_seed(0)
    weight, norms = torch.randn(9, 48), torch.rand(48) + 0.1
    solution = sparsegpt(weight, factor_of(torch.diag(norms**2)), sparsity)
    damped = (norms**2 + 0.01 * (norms**2).mean()).sqrt()
    mask = keep_mask(weight.abs() * damped, sparsity)
    assert torch.equal(solution.keep, mask)
    assert torch.equal(solution.values, weight * mask)


@pytest.mark.parametrize("scheme", [None, IntScheme(4, None)], ids=str)
def test_agrees_with_optimal_brain_surgeon_column_by_column(scheme):
    """Remove or round a column, then correct the free ones by the closed form (equation 3)."""
    torch.manual_seed(2)
    weight = torch.randn(5, 12)
    gram = correlated_gram(12).double()
    h = gram + 0.01 * gram.diagonal().mean() * torch.eye(12)
    work = weight.double().clone()
    expected = torch.zeros(5, 12)
    scales, zeros = affine.choose_scales(weight, IntScheme(4, None))
    for j in range(12):
        inverse = torch.linalg.inv(h[j:, j:])
        if j % 4 == 0:  # 2:4: the mask of four columns, when the first of them is reached
            diagonal = [torch.linalg.inv(h[i:, i:])[0, 0] for i in range(j, j + 4)]
            scores = work[:, j : j + 4] ** 2 / torch.stack(diagonal)
            keep = keep_mask(scores.float(), Sparsity(n=2, m=4))
        column = (work[:, j] * keep[:, j % 4]).float()
        if scheme is not None:
            level = (torch.round(column / scales[:, 0]) + zeros[:, 0]).clamp(0, 15)
            column = (level - zeros[:, 0]) * scales[:, 0]
        expected[:, j] = column
        error = work[:, j] - column.double()
        work[:, j:] -= torch.outer(error / inverse[0, 0], inverse[0])
    found = sparsegpt(weight, factor_of(gram), Sparsity(n=2, m=4), scheme=scheme)
    assert torch.allclose(found.values, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.values == 0, expected == 0)


def test_each_block_and_each_layer_of_a_stack_loses_its_share():
    torch.manual_seed(3)
    weight = torch.cat([torch.randn(10, 64), 100 * torch.randn(6, 64)])
    solution = sparsegpt(weight, factor_of(correlated_gram(64)), HALF, block_size=16, rows=[10, 6])
    removed = (~solution.keep).reshape(16, 4, 16).sum(-1)
    assert (removed[:10].sum(0) == 80).all()
    assert (removed[10:].sum(0) == 48).all()


@pytest.mark.parametrize("length", [8, 12, 24, 64])
def test_groups_that_start_within_a_block_see_corrected_weights(length):
    """Gathering corrections changes no result: columns one by one give the same levels."""
    torch.manual_seed(4)
    weight, factor = torch.randn(6, 48), factor_of(correlated_gram(48))
    scheme = IntScheme(4, length)
    one = sparsegpt(weight, factor, Sparsity(n=2, m=4), scheme=scheme, block_size=4)
    for block_size in (12, 16, 48):
        found = sparsegpt(weight, factor, Sparsity(n=2, m=4), scheme=scheme, block_size=block_size)
        assert (found.values - one.values).abs().lt(1e-3).float().mean() > 0.98


def test_removed_weights_have_the_code_of_zero():
    torch.manual_seed(5)
    weight, scheme = torch.rand(6, 32) + 0.5, IntScheme(3, 16)  # all positive: zero is at the edge
    solution = sparsegpt(weight, factor_of(correlated_gram(32)), HALF, scheme=scheme)
    codes = affine.quantize(solution.values, solution.scales, solution.zeros, scheme)
    dense = affine.dequantize(codes, solution.scales, solution.zeros, scheme)
    assert torch.equal(dense, solution.values)
    assert (dense[~solution.keep] == 0).all()


def test_what_is_stored_depends_on_bits():
    assert SparseGPT(0.5).produces == "masks"
    assert SparseGPT(0.5, bits=4).produces == "codes"
    assert SparseGPT(n=2, m=4, bits=4).label == "SparseGPT 2:4 4-bit g128"
    with pytest.raises(ConfigError, match="give a multiple of 4"):
        SparseGPT(n=2, m=4, bits=4, group_size=50)
