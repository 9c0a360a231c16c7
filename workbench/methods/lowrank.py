"""Low-rank correction of compressed layers (EoRA, Liu et al. 2024), in closed form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import CompressionError
from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import LowRankCorrection, Step
from workbench.tensors.devices import in_float64
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, CorrectedWeight


class LowRankCorrector(LayerMethod):
    """Layers that no step compressed have nothing to restore and are left as they are."""

    step: ClassVar[type[Step]] = LowRankCorrection
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, LowRankCorrection)
        assert statistics is not None
        root = gram_root(statistics.solve.mean_gram)
        solved: dict[str, CompressedWeight] = {}
        for name, compressed in group.compressed.items():
            original = group.originals[name]
            lost = original - compressed.dequantize().to(original.device)
            left, right = low_rank_correction(lost, root, config.rank)
            left, right = left.half(), right.half()
            if not bool(torch.isfinite(left).all() and torch.isfinite(right).all()):
                raise CompressionError(
                    f"The low-rank correction of {name} does not fit into float16: its weights are"
                    " too large. Leave LowRankCorrection out for this model."
                )
            solved[name] = CorrectedWeight(compressed, left, right)
        return solved


def gram_root(gram: Tensor) -> Tensor:
    """Return R = Q Λ^½ with R Rᵀ the gram matrix, (in_features, in_features), float64."""
    values, vectors = torch.linalg.eigh(in_float64(gram))
    return vectors * values.clamp(min=0).sqrt()


def low_rank_correction(lost: Tensor, root: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the product of this rank that restores most of a layer's output.

    With H = Q Λ Qᵀ the paper (section 3.2) cuts the singular values of E Q Λ^½ = U S Vᵀ, and maps
    the result back by Λ^-½ Qᵀ. That is U_r U_rᵀ E, so nothing is divided by a small eigenvalue:
    no other product of this rank has a smaller tr((E - AB) H (E - AB)ᵀ).

    Parameters
    ----------
    lost : Tensor of shape (out_features, in_features), float32
        E, the dense weight minus the compressed one.
    root : Tensor of shape (in_features, in_features), float64
        As :func:`gram_root` gives it.
    rank : int
        At most the smaller side of the weight is used, which restores all of it.

    Returns
    -------
    left : Tensor of shape (out_features, rank), float32
    right : Tensor of shape (rank, in_features), float32
    """
    rank = min(rank, *lost.shape)
    exact = in_float64(lost)
    seen = exact @ root.to(exact.device)
    # Singular vectors from the smaller of the two square products; float64 bears the squaring.
    if len(lost) <= lost.shape[1]:
        left = torch.linalg.eigh(seen @ seen.T).eigenvectors.flip(1)[:, :rank]
    else:
        vectors = torch.linalg.eigh(seen.T @ seen).eigenvectors.flip(1)[:, :rank]
        left = seen @ vectors
        left = left / left.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    right = left.T @ exact
    # Both factors of a component get the same range, so that float16 holds them equally well.
    balance = (right.abs().amax(1) / left.abs().amax(0).clamp(min=1e-12)).clamp(min=1e-12).sqrt()
    left, right = left * balance, right / balance[:, None]
    return left.float().to(lost.device), right.float().to(lost.device)
