"""Remove inputs of a linear layer, and let the inputs that stay make up for them."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import CompressionError
from workbench.tensors.devices import in_float64


def input_energy(weight: Tensor, gram: Tensor, group: int = 1) -> Tensor:
    """Return what each group of inputs adds to a layer's output, squared: tr(W_g H_gg W_gᵀ).

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    gram : Tensor of shape (in_features, in_features)
        Mean of x xᵀ per token.
    group : int
        Consecutive inputs that stay or go together: 1 for neurons, the width of the heads that
        share keys and values for attention.

    Returns
    -------
    Tensor of shape (in_features / group,), float32
    """
    if group == 1:
        return gram.diagonal() * weight.square().sum(0)
    energies = []
    for start in range(0, weight.shape[1], group):
        part = slice(start, start + group)
        energies.append(((weight[:, part] @ gram[part, part]) * weight[:, part]).sum())
    return torch.stack(energies)


def refit(weight: Tensor, gram: Tensor, keep: Tensor, *, damping: float) -> Tensor:
    """Return the weights of the inputs that stay, fitted to the output of all inputs.

    The least-squares solution of ‖W X − W' X_K‖² + λ ‖W' − W_K‖², in closed form
    W' = W_K + W_R H_RK (H_KK + λI)⁻¹, with K the inputs that stay and R the removed ones. It is the
    update of optimal brain surgeon for whole columns (Hassibi & Stork 1993; ZipLM, Kurtic et al.
    2023, section 3; SlimGPT, Ling et al. 2024); λ pulls towards the weights as they are.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    gram : Tensor of shape (in_features, in_features)
        Mean of x xᵀ per token.
    keep : Tensor of int64
        Inputs that stay, in order.
    damping : float
        λ as a share of the mean of H's diagonal.

    Returns
    -------
    Tensor of shape (out_features, len(keep)), float32

    Raises
    ------
    CompressionError
        If the damped matrix is not positive definite.
    """
    h, exact = in_float64(gram), in_float64(weight)
    exact, keep = exact.to(h.device), keep.to(h.device)
    removed = torch.ones(weight.shape[1], dtype=torch.bool, device=h.device)
    removed[keep] = False
    kept = h[keep][:, keep]
    scale = float(h.diagonal().mean())
    kept.diagonal().add_(damping * scale if scale > 0 else 1.0)
    lower, info = torch.linalg.cholesky_ex(kept)
    if int(info) or not bool(torch.isfinite(lower).all()):
        raise CompressionError(
            f"The inputs that stay are too alike to refit with damping={damping:g}. Give a larger"
            " damping (such as 0.1), more calibration tokens, or compensate=False."
        )
    owed = exact[:, removed] @ h[removed][:, keep]
    fitted = exact[:, keep] + torch.cholesky_solve(owed.T, lower).T
    return fitted.float().to(weight.device)


def relative_error(weight: Tensor, gram: Tensor, keep: Tensor, kept_weight: Tensor) -> float:
    """Return the squared error of the output relative to the squared output.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features)
    gram : Tensor of shape (in_features, in_features)
    keep : Tensor of int64
    kept_weight : Tensor of shape (out_features, len(keep))
    """
    delta = weight.clone().neg_()
    delta[:, keep] += kept_weight
    total = float(((weight @ gram) * weight).sum())
    return float(((delta @ gram) * delta).sum()) / total if total > 0 else 0.0
