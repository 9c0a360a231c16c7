"""Load an export again and compare its logits with those of the model that was exported."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workbench.errors import ExportError
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks import Task
from workbench.tensors.products import fast_products

BOUNDS = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of a logit, as a share of the largest logit, by the dtype of dense tensors.

Codes are exact in every format; dense copies of them, and the products of scales and zero points
that a format stores, are rounded to this dtype. Exceeding it means that something is wrong, not
that it was rounded: a transposed or permuted layer is off by about as much as the logits.
"""

EXAMPLES = 8
"""Evaluation inputs whose logits are compared."""


@dataclass(frozen=True)
class Proof:
    """How far the logits of an export are from those of the model that was exported.

    Attributes
    ----------
    largest_difference : float
        Of any logit.
    relative : float
        The same as a share of the largest logit.
    bound : float
        What ``relative`` may be, see :data:`BOUNDS`.
    n_logits : int
        So many were compared.
    """

    largest_difference: float
    relative: float
    bound: float
    n_logits: int


@torch.no_grad()
def prove(
    model: LoadedModel, exported: LoadedModel, task: Task, *, monitor: Monitor = SILENT
) -> Proof:
    """Compare an export that was loaded again with the model that it was made of.

    Parameters
    ----------
    model, exported : LoadedModel
        Not changed.
    task : Task
        Its evaluation inputs are read.
    monitor : Monitor
        Reports the stage "prove".

    Raises
    ------
    ExportError
        If a logit differs by more than the bound of the stored dtype, or is not finite.
    """
    batches = task.batches(model, limit=EXAMPLES)
    largest = scale = 0.0
    count = 0
    with fast_products():
        for done, batch in enumerate(batches, 1):
            expected, found = task.dense_logits(model, batch), task.dense_logits(exported, batch)
            for one, other in zip(expected, found, strict=True):
                if not one.numel():  # an answer of no tokens
                    continue
                count += one.numel()
                scale = max(scale, float(one.abs().max()))
                difference = float((one.float() - other.float()).abs().max())
                largest = max(largest, difference if difference == difference else float("inf"))
            monitor.report("prove", done, len(batches))
    bound = BOUNDS[model.stored_dtype]
    relative = largest / scale if scale else largest
    if not relative <= bound:
        raise ExportError(
            f"The export was loaded again and gives other logits: the largest difference is"
            f" {largest:.4g}, {relative:.1%} of the largest logit, and at most {bound:.1%} are"
            f" rounding in {str(model.stored_dtype).removeprefix('torch.')}. Nothing was kept;"
            " please report this with the recipe and the model."
        )
    return Proof(largest, relative, bound, count)
