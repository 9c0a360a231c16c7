"""Time a classifier: one text, and a batch of 32, of the task's own lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from workbench.errors import DataError
from workbench.packed import PackedModel

if TYPE_CHECKING:
    from workbench.models.loaded import LoadedModel
    from workbench.tasks import Task

BATCH_SIZES = (1, 32)


def make_classifier(
    packed: PackedModel, model: LoadedModel, task: Task, batch_size: int
) -> Callable[[], None]:
    """Return a call that classifies a batch once, the head included, tokenising left out.

    Parameters
    ----------
    packed : PackedModel
        Of ``model``.
    model : LoadedModel
        Bound to the task.
    task : Task
        Its evaluation examples are taken evenly; where there are too few they are repeated. One
        text alone is the one of median length.
    batch_size : int

    Raises
    ------
    DataError
        If the task has no examples.
    """
    from workbench.tasks.base import batch_of

    running = dataclasses.replace(model, hf_model=packed.hf_model, weights={})
    wanted = max(batch_size, 32)
    examples = sorted(task.examples(model, limit=wanted), key=lambda e: len(e.tokens))
    if not examples:
        raise DataError(f"The task {task.name!r} has no evaluation examples to time.")
    if batch_size == 1:
        examples = [examples[len(examples) // 2]]
    examples = [examples[i % len(examples)] for i in range(batch_size)]
    batch = batch_of(model, "evaluation", examples).to(model.device)

    @torch.inference_mode()
    def classify() -> None:
        float(task.logits(running, batch)[0, 0])

    return classify
