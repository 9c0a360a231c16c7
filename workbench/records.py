"""What a study remembers: frozen records of metrics, measurements and runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from workbench.recipes.recipe import Recipe

NOTES_FACT = "notes"
"""Key in ``RunRecord.facts``: sentences on what a run's numbers are of, such as another head."""

CODES_FACT = "loaded_as"
"""Key in ``RunRecord.facts`` of a base model that came as codes: which, such as "4-bit codes"."""

FOR_INFORMATION = " | "
"""In ``Measurement.conditions`` what follows need not be equal for numbers to be compared."""


@dataclass(frozen=True)
class Metric:
    """What a number means.

    Attributes
    ----------
    name : str
        Such as ``"perplexity"`` or ``"accuracy"``; unique within a task.
    unit : str
        ``""`` for ratios, else ``"bits/byte"``, ``"nats"``, ``"bytes"``, ``"ms"``.
    higher_is_better : bool
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Measurement:
    """One measured number with its uncertainty.

    Attributes
    ----------
    metric : str
        Name of a :class:`Metric`.
    value : float
    unit : str
    n : int
        Independent examples, windows or repetitions behind the value.
    stderr : float or None
        Standard error, clustered by document; None where it cannot be estimated.
    part : str
        The part of the task's data it was measured on, ``""`` where that has no meaning.
    spread : float or None
        Interquartile range of ``n`` repeats, of which ``value`` is the median (times, energy).
    how : str
        What of the model ran how, such as "packed int4, short path"; ``""`` where that has no
        meaning.
    conditions : str
        Where and on what it was measured, see :func:`workbench.runtime.measure.conditions`; ``""``
        where that does not matter.
    samples : tuple of float
        The single values behind a median where their distribution is asked for, in the order of
        what was measured; empty where it was not kept.
    """

    metric: str
    value: float
    unit: str = ""
    n: int = 0
    stderr: float | None = None
    part: str = "evaluation"
    spread: float | None = None
    how: str = ""
    conditions: str = ""
    samples: tuple[float, ...] = ()

    @property
    def comparable_conditions(self) -> str:
        """The part of ``conditions`` that must be equal for two values to be compared."""
        return self.conditions.partition(FOR_INFORMATION)[0]


class RunState(enum.Enum):
    """Where a run is in its life; every state but RUNNING and QUEUED is final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class RunRecord:
    """One configuration applied to one model, and what came of it.

    Attributes
    ----------
    id : str
        Depends on everything that changes the answer, so equal inputs have equal ids.
    model : str
        Name of the base model within the study.
    recipe : Recipe
        The empty recipe is the base model itself.
    state : RunState
    parent : str or None
        Id of the run that this one continues from; None for a base model.
    measurements : tuple of Measurement
    size_bytes : int or None
        Tensor bytes in the canonical packing, counted from the codes.
    facts : dict
        What the run recorded about itself: the share of weights that was compressed, fallbacks,
        damping used, the artefact's digest. JSON-ready.
    seconds : dict
        Wall time by stage: ``"compress"``, ``"evaluate"``.
    error : str or None
        Why it failed, for people.
    created : str
        UTC time in ISO 8601.
    """

    id: str
    model: str
    recipe: Recipe
    state: RunState
    parent: str | None = None
    measurements: tuple[Measurement, ...] = ()
    size_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict, hash=False)
    seconds: dict[str, float] = field(default_factory=dict, hash=False)
    error: str | None = None
    created: str = ""

    @property
    def label(self) -> str:
        """The recipe in words; of a base model that came as codes, which."""
        loaded = None if self.recipe.steps else self.facts.get(CODES_FACT)
        return str(loaded or self.recipe.label)

    def measurement(self, metric: str, part: str = "evaluation") -> Measurement | None:
        """Return the newest measurement of a metric, or None."""
        found = [m for m in self.measurements if m.metric == metric and m.part in (part, "")]
        return found[-1] if found else None
