"""Known answers for GPTQ, and agreement with the algorithm written column by column."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import CompressionError
from workbench.methods.gptq import gptq, gptq_many
from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.linalg import inverse_factor


def correlated_gram(k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * k, k, generator=generator) @ torch.randn(k, k, generator=generator)
    return x.T @ x / len(x)


@pytest.mark.parametrize("act_order", [True, False])
def test_with_a_diagonal_gram_it_is_round_to_nearest(act_order: bool):
    torch.manual_seed(0)
    weight = torch.randn(9, 50)
    factor = inverse_factor(torch.diag(torch.rand(50) + 0.1), damping=0.01, act_order=act_order)
    scheme = IntScheme(3, 16)
    codes, scales, zeros = gptq(weight, factor, scheme, block_size=7)
    expected_scales, expected_zeros = affine.choose_scales(weight, scheme)
    assert torch.equal(scales, expected_scales)
    assert torch.equal(zeros, expected_zeros)
    assert torch.equal(codes, affine.quantize(weight, scales, zeros, scheme))


def test_factor_is_the_inverse():
    gram = correlated_gram(30)
    factor = inverse_factor(gram, damping=0.05, act_order=True)
    h = gram.double() + 0.05 * gram.double().diagonal().mean() * torch.eye(30)
    h = h[factor.order][:, factor.order]
    product = factor.upper.double().T @ factor.upper.double() @ h
    assert torch.allclose(product, torch.eye(30).double(), atol=1e-4)
    assert torch.equal(factor.upper, factor.upper.triu())


def test_block_size_does_not_change_the_result():
    torch.manual_seed(1)
    weight = torch.randn(8, 48)
    for act_order in (True, False):
        factor = inverse_factor(correlated_gram(48), damping=0.01, act_order=act_order)
        one = gptq(weight, factor, IntScheme(3, 16), block_size=1)[0]
        for block_size in (5, 16, 48, 128):
            codes = gptq(weight, factor, IntScheme(3, 16), block_size=block_size)[0]
            assert (codes == one).float().mean() > 0.99  # float32 ties may fall either way


def test_agrees_with_optimal_brain_surgeon_column_by_column():
    """Quantize a column, then correct the free ones by the closed form of OBQ (equation 2)."""
    torch.manual_seed(2)
    weight = torch.randn(5, 12)
    gram = correlated_gram(12).double()
    scheme = IntScheme(4, None)
    scales, zeros = affine.choose_scales(weight, scheme)
    h = gram + 0.01 * gram.diagonal().mean() * torch.eye(12)
    work = weight.double().clone()
    expected = torch.zeros(5, 12)
    for j in range(12):
        inverse = torch.linalg.inv(h[j:, j:])
        column = work[:, j : j + 1].float()
        level = (torch.round(column / scales) + zeros).clamp(0, 15)
        expected[:, j] = level[:, 0]
        error = work[:, j] - ((level - zeros) * scales)[:, 0].double()
        work[:, j:] -= torch.outer(error / inverse[0, 0], inverse[0])
    # The scales of the natural order are chosen at the first column: the same here.
    factor = inverse_factor(gram, damping=0.01, act_order=False)
    codes, got_scales, _ = gptq(weight, factor, scheme)
    assert torch.equal(got_scales, scales)
    assert torch.equal(codes.float(), expected)


def test_more_activation_means_less_error_with_act_order():
    torch.manual_seed(3)
    weight = torch.randn(64, 64)
    gram = correlated_gram(64)
    gram[7] *= 30
    gram[:, 7] *= 30
    deltas = {}
    for act_order in (True, False):
        factor = inverse_factor(gram, damping=0.01, act_order=act_order)
        codes, scales, zeros = gptq(weight, factor, IntScheme(2, 64))
        dense = affine.dequantize(codes, scales, zeros, IntScheme(2, 64))
        deltas[act_order] = float(((dense - weight) @ gram * (dense - weight)).sum())
    assert deltas[True] < deltas[False]


def test_a_gram_that_is_not_positive_definite_is_an_error():
    gram = torch.eye(4)
    gram[0, 1] = gram[1, 0] = 5.0
    with pytest.raises(CompressionError, match="larger damping"):
        inverse_factor(gram, damping=0.01, act_order=True)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("n_rows", [3, 40])
def test_schemes_solved_together_come_out_as_if_alone(act_order: bool, n_rows: int):
    torch.manual_seed(4)
    weight = torch.randn(n_rows, 200)
    mask = torch.rand(n_rows, 200) > 0.3
    factor = inverse_factor(correlated_gram(200), damping=0.01, act_order=act_order)
    sizes = (None, 128, 48, 7) if act_order else (48,)
    schemes = [IntScheme(b, g, s) for b in (2, 4, 8) for g in sizes for s in (True, False)]
    for kept in (None, mask):
        together = gptq_many(weight * (1 if kept is None else kept), factor, schemes, mask=kept)
        for scheme, found in zip(schemes, together, strict=True):
            alone = gptq(weight * (1 if kept is None else kept), factor, scheme, mask=kept)
            for a, b in zip(found, alone, strict=True):
                assert torch.equal(a, b), scheme
            codes, scales, zeros = found
            assert codes.shape == weight.shape
            assert scales.shape == zeros.shape == (n_rows, scheme.n_groups(200))
            dense = affine.dequantize(codes, scales, zeros, scheme)
            assert kept is None or bool((dense[~kept] == 0).all())


def test_many_rows_are_solved_in_parts_with_the_same_result(monkeypatch):
    torch.manual_seed(5)
    weight = torch.randn(70, 64)
    factor = inverse_factor(correlated_gram(64), damping=0.01, act_order=True)
    schemes = [IntScheme(3, 16), IntScheme(2, None)]
    whole = gptq_many(weight, factor, schemes)
    monkeypatch.setattr("workbench.methods.gptq._WORK_BYTES", 12 * 64 * 2 * 32)
    for a, b in zip(whole, gptq_many(weight, factor, schemes), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
