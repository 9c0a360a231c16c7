"""What steps that train have in common: the task that they need, and what a run records of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.recipes import Step
from workbench.tasks import Task

if TYPE_CHECKING:
    from workbench.tensors.weights import CompressedWeight
    from workbench.training.loop import Trained


def task_of(calibrator: Any, config: Step) -> Task:
    """Return the task whose examples are trained on.

    Parameters
    ----------
    calibrator : Calibrator or None
        Has the task that the statistics are collected on.
    config : Step
        For the message.

    Raises
    ------
    ConfigError
        If there is none, or it is made of tensors.
    """
    task = getattr(calibrator, "task", None)
    if not isinstance(task, Task):
        raise ConfigError(
            f"{config.label} trains on a task's examples, and none is given; use a Study, or give"
            " compress() a Calibrator of a LanguageModeling or TextClassification task."
        )
    return task


def facts_of(config: Step, trained: Trained, extra: dict[str, Any]) -> dict[str, Any]:
    """Return what a run records of one training: ``training``, and ``loss_curve`` to draw."""
    fact = {"step": config.label, **trained.facts, **extra}
    fact["stored_as"] = stored_as(trained.model.weights)
    curve = [{"step": step, "loss": loss} for step, loss in trained.curve]
    return {"training": [fact], "loss_curve": curve}


def stored_as(weights: dict[str, CompressedWeight]) -> dict[str, int]:
    """Return how many weights are stored in which compressed form; the others are dense."""
    counts: dict[str, int] = {}
    for weight in weights.values():
        counts[weight.kind] = counts.get(weight.kind, 0) + 1
    return counts
