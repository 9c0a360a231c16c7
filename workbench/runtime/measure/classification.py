"""Time a classifier: one text, a batch of 32, and one text after the other as they come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from workbench.errors import DataError
from workbench.runtime.packed import PackedModel
from workbench.tensors.devices import synchronize

if TYPE_CHECKING:
    from workbench.models.loaded import LoadedModel
    from workbench.tasks import Task
    from workbench.tasks.base import Example

BATCH_SIZES = (1, 32)
MOST_QUERIES = 100
"""So many texts are timed one by one; the 99th percentile needs them all."""
LEAST_QUERIES = 20
"""So many also where they take longer than ``QUERY_SECONDS``; the 95th percentile needs them."""
QUERY_SECONDS = 20.0


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
    wanted = max(batch_size, 32)
    examples = sorted(task.examples(model, limit=wanted), key=lambda e: len(e.tokens))
    if not examples:
        raise DataError(f"The task {task.name!r} has no evaluation examples to time.")
    if batch_size == 1:
        examples = [examples[len(examples) // 2]]
    examples = [examples[i % len(examples)] for i in range(batch_size)]
    return _call(packed, model, task, examples)


def time_queries(
    packed: PackedModel,
    model: LoadedModel,
    task: Task,
    *,
    each: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Return the seconds of single texts of the evaluation part, each as long as it is.

    What a service would see: short and long texts, one after the other. Every model of a study is
    timed on the same texts in the same order.

    Parameters
    ----------
    packed, model, task
        As for :func:`make_classifier`.
    each : callable
        Told the number of timed texts and of all after each of them; may raise to stop.

    Returns
    -------
    list of float
        Of at most ``MOST_QUERIES`` texts; fewer if the part has fewer, or they take long.
    """
    examples = sorted(task.examples(model, limit=MOST_QUERIES), key=lambda e: e.index)
    examples = examples[:MOST_QUERIES]
    seconds: list[float] = []
    begun = time.monotonic()
    for number, example in enumerate(examples, 1):
        classify = _call(packed, model, task, [example])
        if number == 1:
            classify()
            classify()
        start = time.perf_counter()
        classify()
        seconds.append(time.perf_counter() - start)
        each(number, len(examples))
        if number >= LEAST_QUERIES and time.monotonic() - begun > QUERY_SECONDS:
            break
    return seconds


def _call(
    packed: PackedModel, model: LoadedModel, task: Task, examples: list[Example]
) -> Callable[[], None]:
    """Return a call that classifies the examples as one batch."""
    from workbench.tasks.base import batch_of

    running = dataclasses.replace(model, hf_model=packed.hf_model, weights={})
    batch = batch_of(model, "evaluation", examples).to(model.device)

    @torch.inference_mode()
    def classify() -> None:
        task.logits(running, batch)
        synchronize(model.device)

    return classify
