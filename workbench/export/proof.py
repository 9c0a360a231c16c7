"""Load an export again and compare what it predicts with the model that was exported."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import ExportError
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks import Task
from workbench.tensors.products import fast_products


@dataclass(frozen=True)
class Bounds:
    """How far the predictions of a correct export may be from the model's, by rounding alone.

    Codes are exact in every format; dense copies of them, dense tensors, and the products of scales
    and zero points that a format stores, are rounded. One rounded number can send a token to
    another expert, and then its logits are other ones by a lot: so it is not the worst token that
    is judged.

    Attributes
    ----------
    kl : float
        Largest mean KL divergence, in nats per prediction.
    agreement : float
        Least share of the predictions with the same top answer.
    difference : float
        Of a logit, as a share of the largest logit; :data:`USUAL` of the predictions must be
        within. A transposed or permuted layer moves all of them by about as much as the logits.
    """

    kl: float
    agreement: float
    difference: float


BOUNDS = {
    torch.float64: Bounds(1e-4, 0.99, 1e-3),
    torch.float32: Bounds(1e-4, 0.99, 1e-3),
    torch.float16: Bounds(2e-3, 0.98, 2e-2),
    torch.bfloat16: Bounds(2e-2, 0.95, 1e-1),
}
"""By the dtype that a format rounds dense tensors to."""

USUAL = 0.8
"""Share of the predictions whose logits must all be within the bound of a difference."""

EXAMPLES = (8, 64)
"""Evaluation inputs that are compared: more where the few give fewer predictions than that."""


@dataclass(frozen=True)
class Proof:
    """How far the predictions of an export are from those of the model that was exported.

    Attributes
    ----------
    largest_difference : float
        Of any logit.
    relative : float
        The same as a share of the largest logit.
    bound : float
        What the difference may be for most predictions, see :class:`Bounds`.
    n_logits : int
        So many were compared.
    kl : float
        Mean KL divergence, nats per prediction.
    kl_bound : float
        What it may be.
    agreement : float
        Share of the predictions whose top answer is the same, or was tied within rounding.
    agreement_bound : float
        What it may be at least.
    usual : float
        Share of the predictions whose logits are all within ``bound``.
    n_predictions : int
        So many were compared.
    """

    largest_difference: float
    relative: float
    bound: float
    n_logits: int
    kl: float = 0.0
    kl_bound: float = math.inf
    agreement: float = 1.0
    agreement_bound: float = 0.0
    usual: float = 1.0
    n_predictions: int = 0


@torch.no_grad()
def prove(
    model: LoadedModel,
    exported: LoadedModel,
    task: Task,
    dtype: torch.dtype | None = None,
    *,
    monitor: Monitor = SILENT,
) -> Proof:
    """Compare an export that was loaded again with the model that it was made of.

    Parameters
    ----------
    model, exported : LoadedModel
        Not changed.
    task : Task
        Its evaluation inputs are read.
    dtype : torch.dtype, optional
        What the format rounds dense tensors to. Default: the model's stored dtype.
    monitor : Monitor
        Reports the stage "prove".

    Raises
    ------
    ExportError
        If the predictions differ by more than the :class:`Bounds` of the dtype, or are not finite.
    """
    dtype = dtype or model.stored_dtype
    bounds = BOUNDS[dtype]
    exported = dataclasses.replace(exported, anchors=model.anchors)  # no file of a model has them
    batches = task.batches(model, limit=EXAMPLES[0])
    if sum(map(task.count_predictions, batches)) < EXAMPLES[1]:
        batches = task.batches(model, limit=EXAMPLES[1])
    pairs: list[tuple[Tensor, Tensor]] = []
    with fast_products():
        for done, batch in enumerate(batches, 1):
            expected, found = task.dense_logits(model, batch), task.dense_logits(exported, batch)
            # An answer of no tokens has no logits.
            pairs += [(a, b) for a, b in zip(expected, found, strict=True) if a.numel()]
            monitor.report("prove", done, len(batches))
    return judge(compare(pairs, bounds), dtype)


def judge(proof: Proof, dtype: torch.dtype) -> Proof:
    """Return a proof if it holds.

    Raises
    ------
    ExportError
        If predictions differ by more than the :class:`Bounds` of the dtype.
    """
    bounds = BOUNDS[dtype]
    if not _holds(proof):
        raise ExportError(
            f"The export was loaded again and gives other logits: its predictions are"
            f" {proof.kl:.3g} nats from the run's and {proof.agreement:.1%} have its top answer"
            f" (the largest difference of a logit is {proof.largest_difference:.4g},"
            f" {proof.relative:.1%} of the largest); at most {bounds.kl:.2g} nats and at least"
            f" {bounds.agreement:.0%} are rounding in {str(dtype).removeprefix('torch.')}. Nothing"
            " was kept; please report this with the recipe and the model."
        )
    return proof


def compare(pairs: list[tuple[Tensor, Tensor]], bounds: Bounds) -> Proof:
    """Return how far logits are from the expected ones.

    Parameters
    ----------
    pairs : list of (Tensor, Tensor), each of shape (predictions, classes)
        Expected and found logits.
    bounds : Bounds
        Differences within ``bounds.difference`` decide no tie.
    """
    scale = max((float(a.abs().max()) for a, _ in pairs), default=0.0)
    largest = divergence = 0.0
    agreeing = within = n_predictions = n_logits = 0
    for one, other in pairs:
        a, b = one.double(), other.double()
        difference = torch.where(a == b, 0, (a - b).abs()).amax(-1)
        worst = float(difference.max())  # NaN where any is
        largest = max(largest, worst if worst == worst else math.inf)
        p, q = a.log_softmax(-1), b.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).nansum()) if worst == worst else math.inf
        chosen = a.gather(-1, b.argmax(-1, keepdim=True)).squeeze(-1)
        agreeing += int((a.amax(-1) - chosen <= 2 * bounds.difference * scale * _TIED).sum())
        within += int((difference <= bounds.difference * scale).sum())
        n_predictions += len(a)
        n_logits += a.numel()
    return Proof(
        largest,
        largest / scale if scale else largest,
        bounds.difference,
        n_logits,
        divergence / max(n_predictions, 1),
        bounds.kl,
        agreeing / max(n_predictions, 1),
        bounds.agreement,
        within / max(n_predictions, 1),
        n_predictions,
    )


_TIED = 0.1
"""Share of the usual difference within which two answers are tied: rounding decides them."""


def _holds(proof: Proof) -> bool:
    if not proof.n_predictions:
        return True
    # Of few predictions one may differ.
    least = min(proof.agreement_bound, 1 - 1 / proof.n_predictions)
    alike = proof.agreement >= least - 1e-9 and proof.usual >= USUAL
    return alike and proof.kl <= proof.kl_bound
