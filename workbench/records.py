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

EVALUATION_FACT = "evaluation_version"
"""Key in ``RunRecord.facts``: by which of :data:`EVALUATION_VERSIONS` it was; 1 where it lacks."""

EVALUATION_VERSIONS = {"text_classification": 2}
"""By the kind of task; grows when a model would give other outcomes for equal data.

Version 1 of classification read some padded texts of decoders at another token than their last.
"""

FOR_INFORMATION = " | "
"""In ``Measurement.conditions`` what follows need not be equal for numbers to be compared."""


_MEAN_OF_SHARES: dict[str, Any] = {"low": 0.0, "high": 1.0}
_PER_PREDICTION: dict[str, Any] = {"denominator": "n_predictions"}
_LOSS: dict[str, Any] = {"numerator": "loss", "low": 0.0}
_CORRECT: dict[str, Any] = {"numerator": "n_correct", **_PER_PREDICTION, **_MEAN_OF_SHARES}

DEFINITIONS: dict[str, dict[str, Any]] = {
    "accuracy": _CORRECT,
    "token_accuracy": _CORRECT,
    "perplexity": {**_LOSS, **_PER_PREDICTION, "link": "exp"},
    "answer_perplexity": {**_LOSS, **_PER_PREDICTION, "link": "exp"},
    "bits_per_byte": {**_LOSS, "denominator": "n_bytes", "link": "log2"},
    "kl": {"numerator": "kl", **_PER_PREDICTION, "low": 0.0},
    # Version 1 averaged each run over the classes that it predicted itself.
    "macro_f1": {"statistic": "macro_f1", **_MEAN_OF_SHARES, "version": 2},
    **dict.fromkeys(("exact_match", "f1", "rouge_l", "rouge_1", "rouge_2"), _MEAN_OF_SHARES),
    "length_error": {"low": 0.0},
    **{
        f"{name}{stored}": {
            "numerator": f"similarity{stored}",
            "denominator": "score",
            "statistic": name,
            "low": -1.0,
            "high": 1.0,
        }
        for name in ("spearman", "pearson")
        for stored in ("", "_int8", "_binary")
    },
    **{
        f"{name}{stored}": _MEAN_OF_SHARES
        for name in ("ndcg_at_10", "mrr_at_10", "recall_at_10")
        for stored in ("", "_int8", "_binary")
    },
}
"""How a metric of this name is computed, unless it says otherwise itself."""


@dataclass(frozen=True)
class Metric:
    """What a number means, and how it comes from per-example outcomes.

    Its value is ``link(sum of numerator / sum of denominator)``, or a statistic of the whole set.
    One that says both is a ratio where the outcomes have its columns. A metric that says neither
    is the standard one of its name, else the mean of the column of its name; see
    :mod:`workbench.tasks.metrics`.

    Attributes
    ----------
    name : str
        Such as ``"perplexity"`` or ``"accuracy"``; unique within a task.
    unit : str
        ``""`` for ratios, else ``"bits/byte"``, ``"nats"``, ``"bytes"``, ``"ms"``.
    higher_is_better : bool
    numerator : str
        Column of the outcomes; with ``"-"`` before it, minus that column.
    denominator : str
        Column of the outcomes; ``""`` counts the examples.
    link : {"identity", "exp", "log2"}
        From the ratio to the value: none, e to its power, or nats to bits.
    statistic : str
        What the whole set is summarised by where the metric is no ratio of sums: ``"macro_f1"``,
        ``"spearman"`` or ``"pearson"`` (of the columns of numerator and denominator), ``"own"``
        (the user's callable) or ``"harness"``; ``""`` for ratios.
    skips_missing : bool
        Whether examples whose numerator is NaN are left out; otherwise the value is NaN.
    low, high : float or None
        Range of one example's (or prediction's) share in the value; None where it has no end.
    version : int
        Grows when equal outcomes would give another value.
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True
    numerator: str = ""
    denominator: str = ""
    link: str = "identity"
    statistic: str = ""
    skips_missing: bool = False
    low: float | None = None
    high: float | None = None
    version: int = 1

    def __post_init__(self) -> None:
        if self.numerator or self.statistic:
            return
        standard = DEFINITIONS.get(self.name, {})
        defaults = {} if "statistic" in standard else {"numerator": self.name}
        for field_name, value in {**defaults, **standard}.items():
            object.__setattr__(self, field_name, value)


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
    version : int
        Of the metric's definition.
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
    version: int = 1

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
class Annotation:
    """What the user says of a run; no number depends on it.

    Attributes
    ----------
    name : str
        Shown in place of the recipe; ``""`` for none.
    tags : tuple of str
    note : str
    starred, hidden : bool
    """

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    starred: bool = False
    hidden: bool = False


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
    annotation : Annotation
        What the user says of it.
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
    annotation: Annotation = Annotation()

    @property
    def label(self) -> str:
        """The name that the user gave it, else the recipe in words."""
        return self.annotation.name or self.recipe_label

    @property
    def recipe_label(self) -> str:
        """The recipe in words; of a base model that came as codes, which."""
        loaded = None if self.recipe.steps else self.facts.get(CODES_FACT)
        return str(loaded or self.recipe.label)

    def measurement(self, metric: str, part: str = "evaluation") -> Measurement | None:
        """Return the newest measurement of a metric, or None."""
        found = [m for m in self.measurements if m.metric == metric and m.part in (part, "")]
        return found[-1] if found else None
