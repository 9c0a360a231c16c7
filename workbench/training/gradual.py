"""Gradual pruning: a little more is removed in every round, and trained in between."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.fields import number, shown, whole
from workbench.recipes import MagnitudePruning, Training
from workbench.recipes.recipe import Recipe
from workbench.tensors.masks import cubic_schedule


def gradual_pruning(ratio: float, rounds: int, training: Training) -> Recipe:
    """Return a recipe that prunes by magnitude in rounds, each followed by a training.

    Every round is a run of its own, so any of them can be continued from.

    Parameters
    ----------
    ratio : float
        Share of the weights that is removed in the end, below 1.
    rounds : int
        At least 1. Ratios rise by Zhu & Gupta's cubic schedule: most is removed early.
    training : FineTuning or Distillation
        Of each round, with ``method="full"``.

    Raises
    ------
    ConfigError
        If a value is not accepted, or the training is no step that keeps masks.

    Examples
    --------
    >>> from workbench.recipes import Distillation
    >>> gradual_pruning(0.6, 2, Distillation(epochs=1)).label
    'Magnitude 52% → Distil (1 ep) → Magnitude 60% → Distil (1 ep)'
    """
    if not isinstance(training, Training):
        raise ConfigError(
            f"gradual_pruning: {shown(training)} does not train; give FineTuning(…) or"
            " Distillation(…)."
        )
    ratio = number("gradual_pruning", "ratio", ratio, minimum=0, below=1)
    rounds = whole("gradual_pruning", "rounds", rounds, maximum=1000)
    steps = []
    for share in cubic_schedule(ratio, rounds):
        steps += [MagnitudePruning(round(share, 4)), training]
    return Recipe.of(steps)
