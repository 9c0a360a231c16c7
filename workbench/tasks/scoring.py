"""Loss, prediction, confidence and KL of logits, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import NotFiniteError

CHUNK_BYTES = 64 * 1024**2
"""Most float32 bytes that softmax and KL work on at a time."""


@dataclass(frozen=True)
class Scores:
    """What one model predicts, per prediction; each a tensor of shape (predictions,).

    Attributes
    ----------
    loss : Tensor, float64
        Negative log-likelihood of the target in nats.
    prediction : Tensor, int64
        The likeliest class.
    confidence : Tensor, float64
        Its probability.
    kl : Tensor, float64
        KL from the dense model in nats; NaN without a reference.
    """

    loss: Tensor
    prediction: Tensor
    confidence: Tensor
    kl: Tensor


def log_probabilities(logits: Tensor, what: str = "model's logits") -> Tensor:
    """Return log-softmax over the last dimension in float32.

    Raises
    ------
    NotFiniteError
        If a logit is NaN or plus infinity, or all of a row are minus infinity.
    """
    found = torch.log_softmax(logits.float(), -1)
    check_finite(found.amax(-1), what)  # the largest is NaN where any is
    return found


def check_finite(values: Tensor, what: str) -> None:
    """Raise NotFiniteError if a value is infinite or not a number: it is never a score."""
    broken = int((~values.isfinite()).sum())
    if broken:
        raise NotFiniteError(
            f"The {what} {'are' if what.endswith('logits') else 'is'} not finite for {broken:,} of"
            f" {values.numel():,} predictions, so the model cannot be scored. Weights that are"
            " infinite or not a number, or a number format too small for the activations (try"
            ' load_model(..., dtype="float32")), are the usual cause.'
        )


def score(logits: Tensor, targets: Tensor, dense: Tensor | None = None) -> Scores:
    """Score predictions in float32, a few rows at a time so that memory stays bounded.

    Parameters
    ----------
    logits : Tensor of shape (predictions, classes)
        Any float dtype; not changed.
    targets : Tensor of shape (predictions,), int64
        A target below zero (a label that the model does not know) costs infinite loss.
    dense : Tensor of shape (predictions, classes), optional
        The dense model's log-probabilities; float16 ones are normalised again.

    Raises
    ------
    NotFiniteError
        If a row of logits gives no probabilities, a target has none, or the KL is infinite.
    """
    rows = max(1, CHUNK_BYTES // (4 * logits.shape[-1]))
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(logits), rows):
        log_q = log_probabilities(logits[start : start + rows])
        target = targets[start : start + rows]
        loss = -log_q.gather(-1, target.clamp(min=0)[:, None])[:, 0]
        loss = torch.where(target >= 0, loss, torch.inf)
        best, prediction = log_q.max(-1)
        if dense is None:
            kl = torch.full_like(loss, torch.nan)
        else:
            log_p = dense[start : start + rows].to(log_q.device).float()
            log_p = log_probabilities(log_p, "dense model's logits")
            p = log_p.exp()
            # where p underflows to zero the term is zero, whatever the logarithms are
            kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp(min=0)
            check_finite(kl, "KL divergence from the dense model")
        check_finite(loss[target >= 0], "loss")
        parts.append((loss, prediction, best.exp(), kl))
    if not parts:
        empty = torch.zeros(0, dtype=torch.float64)
        return Scores(empty, empty.long(), empty, empty)
    loss, prediction, confidence, kl = (
        torch.cat(columns).cpu() for columns in zip(*parts, strict=True)
    )
    return Scores(loss.double(), prediction, confidence.double(), kl.double())
