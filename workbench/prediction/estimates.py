"""What a run will take, roughly, from the runs that are done; never shown as a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

from workbench.recipes import Distillation, Training
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState

_BYTES = {"float32": 4, "float64": 8}
_SPREAD = 1.5
"""By what factor a time that was measured once may be off the next time."""

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


def estimate_range(
    records: Iterable[RunRecord], recipe: Recipe, model: str
) -> tuple[float, float] | None:
    """Return between which seconds a recipe takes once the model is loaded and calibrated.

    Steps that train are estimated from the seconds per step of trainings that are done: the least
    is the earliest end that their patience allows, the most is all of their epochs. The others are
    as in :func:`estimate_seconds`.

    Returns
    -------
    (low, high) or None
        None where nothing is known: how long a training takes is learned from its first steps.
    """
    records = [r for r in records if r.state is RunState.DONE and r.model == model]
    others = Recipe(tuple(step for step in recipe.steps if not isinstance(step, Training)))
    low = high = 0.0
    for step in recipe.steps:
        if isinstance(step, Training):
            found = _training_range(records, step)
            if found is None:
                return None
            low, high = low + found[0], high + found[1]
    plain = [r for r in records if not any(isinstance(s, Training) for s in r.recipe.steps)]
    rest = estimate_seconds(plain, others, model)
    if rest is None:
        return None
    return low + rest / _SPREAD, high + rest * _SPREAD


def earliest_end(step: Training) -> float:
    """Return the least share of a training's steps that is made before patience ends it."""
    given: Any = step
    return 1.0 if given.patience is None else min(1.0, (1 + given.patience) / given.epochs)


def _training_range(records: Iterable[RunRecord], step: Training) -> tuple[float, float] | None:
    wanted: Any = step
    known: list[tuple[bool, float]] = []
    for record in records:
        steps = [s for s in record.recipe.steps if isinstance(s, Training)]
        for before, fact in zip(steps, record.facts.get("training", ()), strict=False):
            if "seconds_per_step" in fact:
                given: Any = before
                per_example = fact["seconds_per_step"] / min(given.batch_size, fact["examples"])
                batch = min(wanted.batch_size, fact["examples"])
                planned = wanted.epochs * math.ceil(fact["examples"] / wanted.batch_size)
                seconds = max(1, round(planned)) * per_example * batch
                known.append((_is_alike(before, step), seconds))
    if not known:
        return None
    alike = [seconds for same, seconds in known if same]
    seconds, spread = (alike, _SPREAD) if alike else ([s for _, s in known], 2 * _SPREAD)
    return min(seconds) / spread * earliest_end(step), max(seconds) * spread


def _is_alike(one: Training, other: Training) -> bool:
    """Return whether a step of two trainings costs the same: same kind, method and blocks."""
    blocks = [s.blocks if isinstance(s, Distillation) else None for s in (one, other)]
    return type(one) is type(other) and one.method == other.method and blocks[0] == blocks[1]


def estimate_training_bytes(
    records: Iterable[RunRecord], recipe: Recipe, n_parameters: int
) -> tuple[int, bool]:
    """Return about what steps that train take beside the model, and whether that is all of it.

    Known is what an earlier training of the study needed; else only the weights, gradients and
    moments are, as what passes through the blocks depends on the texts.
    """
    steps = [step for step in recipe.steps if isinstance(step, Training)]
    if not steps:
        return 0, True
    needed = [
        (_is_alike(before, steps[-1]), fact["needed_bytes"])
        for record in records
        for before, fact in zip(
            (s for s in record.recipe.steps if isinstance(s, Training)),
            record.facts.get("training", ()),
            strict=False,
        )
        if "needed_bytes" in fact
    ]
    alike = [count for same, count in needed if same]
    if alike:
        return max(alike), True
    return (20 if steps[-1].method == "full" else 4) * n_parameters, False


def estimate_memory_bytes(n_parameters: int, compute_dtype: str) -> int:
    """Return about what the worker process holds: the base model and a copy that is compressed."""
    return 2 * n_parameters * _BYTES.get(compute_dtype, 2) + 400_000_000


def _repeated(record: RunRecord) -> float:
    return sum(taken for stage, taken in record.seconds.items() if stage not in _ONCE)
