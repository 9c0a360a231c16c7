"""Which weights to keep, from a score per weight: by share, by N:M pattern, or by threshold."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.recipes.schemes import Sparsity


def keep_mask(scores: Tensor, sparsity: Sparsity, *, by_row: bool = False) -> Tensor:
    """Return which weights to keep, those of the largest scores.

    Parameters
    ----------
    scores : Tensor of shape (out_features, in_features)
        Importance, such as the magnitude.
    sparsity : Sparsity
        A ratio counts over the whole matrix; N:M over every m consecutive inputs of a row (a
        short last group keeps at most n).
    by_row : bool
        Remove the ratio in every row instead, so that no output loses more than others.

    Returns
    -------
    Tensor of bool, the scores' shape, True where the weight is kept.
    """
    if sparsity.ratio is not None and by_row:
        n_removed = round(sparsity.ratio * scores.shape[1])
        order = torch.argsort(scores, dim=-1, stable=True)
        return torch.ones_like(scores, dtype=torch.bool).scatter_(-1, order[:, :n_removed], False)
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


def cubic_schedule(final_ratio: float, n_steps: int) -> tuple[float, ...]:
    """Return the ratios of gradual pruning (Zhu & Gupta 2017, equation 1, from 0 to the end).

    Much is removed early, while there is plenty to choose from, and ever less towards the end.
    The rounds differ from one round at the final ratio only if the model is trained in between.

    Parameters
    ----------
    final_ratio : float
        Share of the weights that the last round leaves removed, 0 up to, not including, 1.
    n_steps : int
        Number of rounds, at least 1.

    Returns
    -------
    tuple of float
        Share removed after each round, rising; the last one is ``final_ratio``.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Examples
    --------
    >>> cubic_schedule(0.8, 2)
    (0.7, 0.8)
    """
    if not 0 <= final_ratio < 1 or n_steps < 1:
        raise ConfigError(
            f"final_ratio={final_ratio}, n_steps={n_steps} is not accepted; give a share from 0 up"
            " to, not including, 1, and at least one step."
        )
    rounds = (1 - step / n_steps for step in range(1, n_steps + 1))
    return tuple(final_ratio * (1 - left**3) for left in rounds)
