"""Evaluate a model on a task, and measure how far it moved from the dense model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.finite import finite_outputs
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.records import Measurement
from workbench.tasks.base import Batch, Example, Task
from workbench.tasks.outcomes import Outcomes
from workbench.tensors.products import fast_products

REFERENCE_BYTES = 1024**3
"""Default byte budget of a :class:`Reference`."""


class Reference:
    """The dense model's log-probabilities, to which every compressed model is compared.

    They are kept in memory as float16 until the budget is spent; what does not fit is computed
    again by the dense model, batch by batch. Rounding to float16 is relative, so likely classes
    are kept to 0.0002 nats or better, and the rows are normalised again when they are used.

    Parameters
    ----------
    model : LoadedModel
        The dense model, bound to the task; kept, never changed.
    task : Task
    byte_budget : int
        Most bytes of log-probabilities kept.
    """

    def __init__(
        self, model: LoadedModel, task: Task, *, byte_budget: int = REFERENCE_BYTES
    ) -> None:
        self.model = model
        self.task = task
        self.byte_budget = byte_budget
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._bytes = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes of the log-probabilities kept so far."""
        return self._bytes

    def log_probabilities(self, batch: Batch) -> list[Tensor]:
        """Return the dense model's log-probabilities, (predictions, classes) per example.

        They are float16 where they were kept, else float32 logits minus their log-sum.
        """
        keys = [(batch.part, example.index) for example in batch.examples]
        if all(key in self._kept for key in keys):
            return [self._kept[key] for key in keys]
        with torch.no_grad():
            dense = self.task.dense_logits(self.model, batch)
        for example, logits in zip(batch.examples, dense, strict=True):
            self.keep(batch.part, example, logits)
        # What was kept is used from the first time on, so that a run's KL does not depend on
        # which run came before it.
        return [self._kept.get(key, logits) for key, logits in zip(keys, dense, strict=True)]

    def keep(self, part: str, example: Example, logits: Tensor) -> None:
        """Keep the dense model's predictions of an example if there is room.

        Parameters
        ----------
        part : str
            The part of the task that the example is of.
        example : Example
            Which example it is.
        logits : Tensor of shape (predictions, classes)
            Logits or log-probabilities.
        """
        size = 2 * logits.numel()
        if (part, example.index) in self._kept or self._bytes + size > self.byte_budget:
            return
        kept = torch.empty(logits.shape, dtype=torch.float16)
        rows = max(1, 2**24 // logits.shape[-1])
        for start in range(0, len(logits), rows):
            chunk = torch.log_softmax(logits[start : start + rows].float(), -1)
            # a class that is impossible in float16 stays finite: -inf times zero is NaN
            kept[start : start + rows] = chunk.clamp(min=-60000).half()
        self._kept[part, example.index] = kept
        self._bytes += size


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes
    ----------
    outcomes : Outcomes
        One row per example.
    measurements : tuple of Measurement
        Every metric of the task with its clustered standard error.
    """

    outcomes: Outcomes
    measurements: tuple[Measurement, ...]


def evaluate(
    model: LoadedModel,
    task: Task,
    *,
    part: str = "evaluation",
    reference: Reference | None = None,
    limit: int | None = None,
    monitor: Monitor = SILENT,
) -> Evaluation:
    """Run a model over a part of a task.

    Parameters
    ----------
    model : LoadedModel
        Bound to the task (``task.bind(model)``); not changed.
    task : Task
        What to measure.
    part : {"evaluation", "validation", "calibration"}
        On which data.
    reference : Reference, optional
        The dense model's predictions; adds the KL divergence. Evaluating the reference's own
        model fills it on the way.
    limit : int, optional
        Use only so many examples, taken evenly.
    monitor : Monitor
        Told after every batch, stage ``"evaluate"``.

    Raises
    ------
    CancelledError
        If the monitor asks to stop.
    NotFiniteError
        If an output is infinite or not a number; the message names the first such layer.
    """
    with fast_products(), finite_outputs(model.hf_model):
        outcomes = task.evaluate(model, part, reference=reference, limit=limit, monitor=monitor)
    return Evaluation(outcomes, task.measure(outcomes, part))
