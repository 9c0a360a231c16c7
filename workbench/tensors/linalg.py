"""The one factorization that GPTQ-like solvers need, and the output error of a changed weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import CompressionError
from workbench.tensors.devices import in_float64


@dataclass(frozen=True)
class InverseFactor:
    """Upper-triangular U with UᵀU the inverse of the damped, permuted gram matrix.

    Attributes
    ----------
    upper : Tensor of shape (in_features, in_features), float32
    order : Tensor of shape (in_features,), int64, or None
        ``order[i]`` is the input channel that is quantized i-th; None for the natural order.
    """

    upper: Tensor
    order: Tensor | None


def inverse_factor(gram: Tensor, *, damping: float, act_order: bool) -> InverseFactor:
    """Factor the inverse of a gram matrix for GPTQ (Frantar et al. 2023, section 3.3).

    With J the reversal, J H J = L Lᵀ gives H = R Rᵀ for the upper-triangular R = J L J, and so
    U = R⁻¹: one Cholesky factorization and one triangular inverse, where the reference code
    computes two factorizations and a full inverse.

    Parameters
    ----------
    gram : Tensor of shape (in_features, in_features)
        Σ x xᵀ, any positive scale. Channels that were never active get the mean of the diagonal,
        so that they are rounded to nearest and disturb nothing.
    damping : float
        Share of the diagonal's mean that is added to it (``percdamp``).
    act_order : bool
        Put the channels with the largest diagonal first.

    Raises
    ------
    CompressionError
        If the matrix is not positive definite even with the damping.
    """
    h = in_float64(gram).clone()
    diagonal = h.diagonal()
    mean = diagonal[diagonal > 0].mean() if bool((diagonal > 0).any()) else h.new_tensor(1.0)
    diagonal[diagonal <= 0] = mean
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else None
    diagonal += damping * mean
    if order is not None:
        h = h[order][:, order]
    lower, info = torch.linalg.cholesky_ex(h.flip(0, 1))
    if int(info) or not bool(torch.isfinite(lower).all()):
        raise CompressionError(
            f"The Hessian of this layer is not positive definite with damping={damping:g}. Give a"
            " larger damping (such as 0.1) or more calibration tokens."
        )
    identity = torch.eye(len(h), dtype=h.dtype, device=h.device)
    upper = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
    return InverseFactor(upper.float(), order)


def output_error(delta: Tensor, gram: Tensor) -> Tensor:
    """Return tr(ΔW H ΔWᵀ) by row: the squared error of every output, summed over the tokens.

    Parameters
    ----------
    delta : Tensor of shape (out_features, in_features)
    gram : Tensor of shape (in_features, in_features)

    Returns
    -------
    Tensor of shape (out_features,)
    """
    return ((delta @ gram) * delta).sum(-1)
