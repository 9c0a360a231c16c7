"""What a run will take, roughly, from the runs that are done; never shown as a measurement."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState

_BYTES = {"float32": 4, "float64": 8}
_ONCE = ("load", "calibrate")
"""Stages that are done once for all runs of a session."""


def estimate_seconds(records: Iterable[RunRecord], recipe: Recipe, model: str) -> float | None:
    """Return about how long a recipe takes once the model is loaded and calibrated.

    Parameters
    ----------
    records : iterable of RunRecord
        Of the study.
    recipe : Recipe
    model : str
        Name of the base model.

    Returns
    -------
    float or None
        The median of finished runs with the same kinds of steps, else of those with one of them,
        else the time that the base model's evaluation took; None where nothing was run yet.
    """
    done = [r for r in records if r.state is RunState.DONE and r.model == model and r.seconds]
    kinds = [type(step) for step in recipe.steps]
    same = [r for r in done if [type(step) for step in r.recipe.steps] == kinds]
    near = [r for r in done if {type(step) for step in r.recipe.steps} & set(kinds)]
    for found in (same, near, done):
        if found:
            return statistics.median(_repeated(record) for record in found)
    return None


def estimate_memory_bytes(n_parameters: int, compute_dtype: str) -> int:
    """Return about what the worker process holds: the base model and a copy that is compressed."""
    return 2 * n_parameters * _BYTES.get(compute_dtype, 2) + 400_000_000


def _repeated(record: RunRecord) -> float:
    return sum(taken for stage, taken in record.seconds.items() if stage not in _ONCE)
