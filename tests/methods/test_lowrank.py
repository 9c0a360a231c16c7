"""Known answers for the low-rank correction."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import CompressionError
from workbench.methods import GroupWeights
from workbench.methods.lowrank import LowRankCorrector, gram_root, low_rank_correction
from workbench.recipes import LowRankCorrection
from workbench.recipes.schemes import Sparsity
from workbench.tensors.linalg import output_error
from workbench.tensors.statistics import GroupStatistics, InputStatistics
from workbench.tensors.weights import PrunedWeight, weight_from


def gram_of(k: int, n: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, k, generator=generator) @ torch.randn(k, k, generator=generator)
    return x.T @ x / n


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_with_an_identity_gram_it_is_the_truncated_svd(shape):
    torch.manual_seed(0)
    lost = torch.randn(shape)
    left, right = low_rank_correction(lost, gram_root(torch.eye(shape[1])), 3)
    u, s, v = torch.linalg.svd(lost)
    assert torch.allclose(left @ right, u[:, :3] * s[:3] @ v[:3], atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_what_is_left_is_the_sum_of_the_cut_singular_values(shape):
    """The Eckart-Young bound in the eigenspace of the gram matrix: nothing of this rank is better.

    The paper's own form is written out: E Q Λ^½ is cut and mapped back by Λ^-½ Qᵀ.
    """
    torch.manual_seed(1)
    lost, gram = torch.randn(shape), gram_of(shape[1])
    left, right = low_rank_correction(lost, gram_root(gram), 4)
    values, q = torch.linalg.eigh(gram.double())
    u, s, v = torch.linalg.svd(lost.double() @ q * values.sqrt(), full_matrices=False)
    rest = float(output_error((lost - left @ right).double(), gram.double()).sum())
    assert rest == pytest.approx(float((s[4:] ** 2).sum()), rel=1e-4)
    papers = (u[:, :4] * s[:4]) @ v[:4] @ (q / values.sqrt()).T
    assert torch.allclose((left @ right).double(), papers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_few_tokens_and_full_rank_restore_everything_that_was_seen(shape):
    torch.manual_seed(2)
    lost, gram = torch.randn(shape), gram_of(shape[1], n=5)  # a singular gram matrix
    left, right = low_rank_correction(lost, gram_root(gram), 100)
    assert left.shape[1] == 12
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()
    assert float(output_error(lost - left @ right, gram).sum()) < 1e-6 * float(
        output_error(lost, gram).sum()
    )


def solve(weight: torch.Tensor, rank: int):
    kept = weight.abs() > weight.abs().median()
    pruned = PrunedWeight(weight * kept, Sparsity(ratio=0.5))
    sums = InputStatistics(gram_of(20) * 200, torch.ones(20), 200)
    group = GroupWeights(
        {"a": pruned.dequantize(), "dense": weight},
        {},
        originals={"a": weight, "dense": weight},
        compressed={"a": pruned},
    )
    config = LowRankCorrection(rank)
    return LowRankCorrector().solve(group, GroupStatistics(sums, sums), config), pruned


def test_the_base_stays_as_it_is_and_dense_layers_are_left_alone():
    torch.manual_seed(3)
    weight = torch.randn(12, 20)
    solved, pruned = solve(weight, 2)
    assert set(solved) == {"a"}
    assert solved["a"].base is pruned
    assert solved["a"].stored_bytes == pruned.stored_bytes + 2 * 2 * (12 + 20)
    restored = weight_from(solved["a"].describe(), solved["a"].tensors())
    assert torch.equal(restored.dequantize(), solved["a"].dequantize())
    full, _ = solve(weight, 12)
    assert torch.allclose(full["a"].dequantize(), weight, atol=5e-3)


def test_weights_beyond_float16_are_an_error():
    with pytest.raises(CompressionError, match="float16"):
        solve(torch.randn(12, 20) * 1e12, 2)
