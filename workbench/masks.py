"""Which weights to keep, from a score per weight: by share, by N:M pattern, or by threshold."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from workbench.schemes import Sparsity


def keep_mask(scores: Tensor, sparsity: Sparsity) -> Tensor:
    """Return which weights to keep, those of the largest scores.

    Parameters
    ----------
    scores : Tensor of shape (out_features, in_features)
        Importance, such as the magnitude.
    sparsity : Sparsity
        A ratio counts over the whole matrix; N:M over every m consecutive inputs of a row (a
        short last group keeps at most n).

    Returns
    -------
    Tensor of bool, the scores' shape, True where the weight is kept.
    """
    if sparsity.ratio is not None:
        n_removed = round(sparsity.ratio * scores.numel())
        mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
        # argsort is stable, so ties fall the same way on every machine.
        order = torch.argsort(scores.reshape(-1), stable=True)
        mask[order[:n_removed]] = False
        return mask.reshape(scores.shape)
    n, m = sparsity.n, sparsity.m
    assert n is not None
    assert m is not None
    missing = -scores.shape[1] % m
    padded = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    groups = padded.reshape(scores.shape[0], -1, m)
    order = torch.argsort(groups, dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.reshape(scores.shape[0], -1)[:, : scores.shape[1]]


def global_threshold(scores: Iterable[Tensor], ratio: float) -> float:
    """Return the score at or below which a share ``ratio`` of all the scores lies.

    Parameters
    ----------
    scores : iterable of Tensor
        Importances that are comparable between the tensors.
    ratio : float
        Share to remove, 0 to 1; 0 gives minus infinity.
    """
    flat = torch.cat([s.reshape(-1) for s in scores])
    n_removed = round(ratio * flat.numel())
    if n_removed == 0:
        return -torch.inf
    return float(torch.kthvalue(flat, n_removed).values)
