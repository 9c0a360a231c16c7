"""Compare runs without drawing anything: the table, the Pareto front and the trade-off plot."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import ConfigError, StudyError
from workbench.fields import shown
from workbench.recipes.recipe import Recipe
from workbench.records import NOTES_FACT, Metric, RunRecord, RunState
from workbench.selection.quality import (
    LATENCY,
    Z95,
    Lookup,
    Scores,
    check_conditions,
    is_baseline,
    is_measured,
    value_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from workbench.prediction.predict import Prediction

SHARE_FACT = "compressed_share"
"""Key in ``RunRecord.facts``: share of all parameters that the recipe compressed, 0 to 1."""


CHAIN = " → "
"""Between the steps of a family's name."""


def family_of(run: RunRecord | Prediction) -> str:
    """Return the titles of a recipe's steps as a chain; ``"dense"`` for a base model."""
    return CHAIN.join(dict.fromkeys(step.title for step in run.recipe.steps)) or "dense"


def pareto_front(
    sizes: ArrayLike, values: ArrayLike, higher_is_better: bool = True
) -> NDArray[np.bool_]:
    """Mark the points that no other point beats in both size and value.

    Parameters
    ----------
    sizes : array-like of shape (n,)
        To be minimised.
    values : array-like of shape (n,)
        One value per size.
    higher_is_better : bool
        Whether values are to be maximised (accuracy) or minimised (perplexity).

    Returns
    -------
    ndarray of bool, shape (n,)
        False where a size or a value is missing (NaN) or infinite. Of points with equal size and
        equal value all are marked; of points that tie in one and differ in the other, the better.
    """
    size = np.asarray(sizes, dtype=float).reshape(-1)
    cost = np.asarray(values, dtype=float).reshape(-1) * (-1.0 if higher_is_better else 1.0)
    if size.shape != cost.shape:
        raise ValueError(f"{len(size)} sizes and {len(cost)} values; give one value per size.")
    on_front = np.zeros(len(size), dtype=bool)
    finite = np.flatnonzero(np.isfinite(size) & np.isfinite(cost))
    order = finite[np.lexsort((cost[finite], size[finite]))]
    _, first, group = np.unique(size[order], return_index=True, return_inverse=True)
    best = cost[order][first]  # of each size
    best_of_smaller = np.minimum.accumulate(np.append(math.inf, best))[:-1]
    is_best = (best < best_of_smaller)[group] & (cost[order] == best[group])
    on_front[order[is_best]] = True
    return on_front


@dataclass(frozen=True)
class Axis:
    """What a trade-off plot draws a metric against; less of it is better.

    Attributes
    ----------
    name : str
        For titles, as in "Accuracy against size".
    title, unit : str
        Of the axis, and after a number.
    measured : str or None
        The measurement that is drawn, None for the size, which every finished run has.
    divisor : float
        From the measurement to the unit.
    """

    name: str
    title: str
    unit: str
    measured: str | None
    divisor: float = 1.0

    def of(self, record: RunRecord) -> float:
        """Return where a run lies on the axis, NaN where that was not measured."""
        if self.measured is None:
            return math.nan if record.size_bytes is None else record.size_bytes / self.divisor
        found = record.measurement(self.measured)
        return math.nan if found is None else found.value / self.divisor


SIZE = Axis("size", "Size of the model (MB)", "MB", None, 1e6)
AXES = {
    axis.name: axis
    for axis in (
        SIZE,
        Axis("latency", "Latency (ms)", "ms", LATENCY),
        Axis("memory", "Memory held after a run (MB)", "MB", "resident_bytes", 1e6),
    )
}
"""What ``study.plot(x=...)`` takes."""


def axis_named(name: str) -> Axis:
    """Return the axis of this name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in AXES:
        known = ", ".join(map(repr, AXES))
        raise ConfigError(f"x={shown(name)} is not accepted; give one of {known}.")
    return AXES[name]


def front_ids(records: Iterable[RunRecord], metric: Metric, axis: Axis = SIZE) -> frozenset[str]:
    """Return the ids of the runs on the Pareto front of an axis and a metric."""
    measured = [record for record in records if is_measured(record, metric)]
    values = [value_of(record, metric) for record in measured]
    mask = pareto_front([axis.of(record) for record in measured], values, metric.higher_is_better)
    return frozenset(record.id for record, kept in zip(measured, mask, strict=True) if kept)


def table(records: Iterable[RunRecord], metric: Metric) -> pd.DataFrame:
    """Return one row per run, in the order given, indexed by the run's id.

    Parameters
    ----------
    records : iterable of RunRecord
        In the order in which the table shows them.
    metric : Metric
        The metric that decides the Pareto front; its column comes first. Every other metric that
        was measured on the evaluation part follows.

    Returns
    -------
    DataFrame
        ``model``, ``recipe``, ``state``, ``size_mb`` (10^6 bytes), ``size_ratio`` (share of the
        bytes of its own base model), ``compressed_share`` (of all parameters), each metric with
        ``<metric>_stderr``, ``pareto``, ``seconds`` (all stages together) and ``error``. What
        was not measured is NaN. If any run's speed was measured, before ``pareto`` also each of
        those metrics (such as ``latency_ms``) with ``<metric>_spread``, their interquartile
        range, ``runs_as`` (what ran packed, what dense) and ``measured_on``: compare the speeds of
        rows only if it is equal up to the bar. Where anything is to be said of a run's numbers,
        such as that they are of another head or of texts that were cut, there is a column
        ``notes``; and ``name``, ``tags``, ``note``, ``starred`` and ``hidden`` where any run has
        such.
    """
    import pandas as pd

    records = list(records)
    front = front_ids(records, metric)
    dense = {
        record.model: record.size_bytes
        for record in records
        if is_baseline(record) and record.size_bytes
    }
    measured = [m for r in records for m in r.measurements if m.part in ("evaluation", "")]
    speeds = list(dict.fromkeys(m.metric for m in measured if m.conditions))
    others = (m.metric for m in measured if m.metric not in speeds)
    names = list(dict.fromkeys([metric.name, *others]))
    rows = []
    for record in records:
        size, whole = record.size_bytes, dense.get(record.model)
        row: dict[str, object] = {
            "model": record.model,
            "recipe": record.recipe_label,
            "state": record.state.value,
            "size_mb": math.nan if size is None else size / 1e6,
            "size_ratio": math.nan if size is None or whole is None else size / whole,
            "compressed_share": record.facts.get(SHARE_FACT, math.nan),
        }
        for name in names:
            found = record.measurement(name)
            row[name] = math.nan if found is None else found.value
            stderr = None if found is None else found.stderr
            row[f"{name}_stderr"] = math.nan if stderr is None else stderr
        for name in speeds:
            found = record.measurement(name)
            row[name] = math.nan if found is None else found.value
            spread = None if found is None else found.spread
            row[f"{name}_spread"] = math.nan if spread is None else spread
        timed = record.measurement(LATENCY)
        row["runs_as"] = "" if timed is None else timed.how
        row["measured_on"] = "" if timed is None else timed.conditions
        row["pareto"] = record.id in front
        row["seconds"] = sum(record.seconds.values()) if record.seconds else math.nan
        row["error"] = record.error or ""
        row["notes"] = " ".join(record.facts.get(NOTES_FACT, ()))
        said = record.annotation
        row |= {"name": said.name, "tags": ", ".join(said.tags), "note": said.note}
        row |= {"starred": said.starred, "hidden": said.hidden}
        rows.append(row)
    columns = ["model", "recipe", "state", "size_mb", "size_ratio", "compressed_share"]
    columns += [column for name in names for column in (name, f"{name}_stderr")]
    if speeds:
        columns += [column for name in speeds for column in (name, f"{name}_spread")]
        columns += ["runs_as", "measured_on"]
    columns += ["pareto", "seconds", "error"]
    optional = ("notes", "name", "tags", "note", "starred", "hidden")
    columns += [name for name in optional if any(row[name] for row in rows)]
    index = pd.Index([record.id for record in records], name="run", dtype=object)
    return pd.DataFrame(rows, index=index, columns=columns)


@dataclass(frozen=True)
class TradeoffPoint:
    """One measured run as the trade-off plot needs it. All texts are raw, not yet escaped.

    Attributes
    ----------
    run_id, model, label, family : str
        ``family`` is the title of the recipe's first step, ``"dense"`` for a base model.
    size_bytes : int
    value : float
    interval : tuple of (float, float) or None
        95 % interval of the value, for its error bar.
    paired : bool
        Whether the interval is that of the difference to the base model, on the same examples,
        put around the value; it leaves out what is hard for both.
    x : float or None
        Where it lies on the view's axis, in the axis's unit; None for the size.
    is_baseline, on_front : bool
    facts : tuple of (str, str)
        Names and texts to show beside the numbers, such as the share of weights compressed.
    """

    run_id: str
    model: str
    label: str
    family: str
    size_bytes: int
    value: float
    interval: tuple[float, float] | None
    is_baseline: bool
    on_front: bool
    paired: bool = False
    x: float | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def across(self) -> float:
        """Where the point is drawn on the axis, in its unit."""
        return self.size_bytes / 1e6 if self.x is None else self.x


@dataclass(frozen=True)
class PredictedPoint:
    """One prediction as the trade-off plot needs it; never a measurement. Texts are raw.

    Attributes
    ----------
    model, label, family : str
    recipe : Recipe
        What to run to measure it.
    size_bytes : int
    value : float
        The metric.
    interval : tuple of (float, float) or None
        90 % interval of the value.
    kl : float
        Nats per prediction.
    is_trusted : bool
        Whether the numbers say more than that the recipe is bad.
    n_runs : int
        Measured runs that the level was learned from.
    notes : tuple of str
        What the numbers rest on.
    """

    model: str
    label: str
    family: str
    recipe: Recipe
    size_bytes: int
    value: float
    interval: tuple[float, float] | None
    kl: float
    is_trusted: bool = True
    n_runs: int = 0
    notes: tuple[str, ...] = ()

    @property
    def across(self) -> float:
        """Where the point is drawn on the size axis, in megabytes (10^6 bytes)."""
        return self.size_bytes / 1e6


@dataclass(frozen=True)
class TradeoffView:
    """Everything that the trade-off plot shows, computed before anything is drawn.

    Attributes
    ----------
    metric : Metric
    task : str
        Name of the task, for the title.
    models : tuple of str
        Base models in the study, in order of appearance.
    points : tuple of TradeoffPoint
        The measured runs.
    predicted : tuple of PredictedPoint
        Recipes that were not run, for the plot against size.
    n_unmeasured : int
        Runs without a point: failed, or without a finite value. Cancelled ones are not counted.
    axis : Axis
        What the metric is drawn against.
    note : str
        What is doubtful about the points, to be shown below them.
    """

    metric: Metric
    task: str = ""
    models: tuple[str, ...] = ()
    points: tuple[TradeoffPoint, ...] = ()
    predicted: tuple[PredictedPoint, ...] = ()
    n_unmeasured: int = 0
    axis: Axis = SIZE
    note: str = ""


def tradeoff_view(
    records: Iterable[RunRecord],
    metric: Metric,
    *,
    task: str = "",
    outcomes: Lookup | None = None,
    axis: Axis = SIZE,
    predictions: Iterable[tuple[str, Prediction]] = (),
) -> TradeoffView:
    """Return what the plot of a metric against size shows; see :class:`TradeoffView`.

    Parameters
    ----------
    records : iterable of RunRecord
        All runs of the study.
    metric : Metric
        What is drawn against size.
    task : str
        Name of the task, for the title.
    outcomes : callable, optional
        Returns a run's per-example outcomes, or None; with them the intervals are paired.
    axis : Axis
        What the metric is drawn against, one of :data:`AXES`. Runs where that was not measured
        have no point.
    predictions : iterable of (str, Prediction)
        Names of base models and predictions of this metric, for the plot against size. One whose
        recipe was measured is left out: the measurement takes its place.

    Raises
    ------
    StudyError
        If no run has a value on the axis, or the runs' were measured under different conditions.
    """
    records = list(records)
    if axis.measured is not None:
        if records and all(math.isnan(axis.of(record)) for record in records):
            raise StudyError(
                f"No run has a measured {axis.name}. Measure the runs first, the baseline too:"
                " study.measure(run); it is never estimated."
            )
        check_conditions(records, axis.measured)
    front, scores = front_ids(records, metric, axis), Scores(metric, outcomes)
    dense = {r.model: r for r in records if is_baseline(r) and is_measured(r, metric)}
    points = []
    for record in records:
        if not is_measured(record, metric) or not math.isfinite(axis.of(record)):
            continue
        base = dense.get(record.model)
        interval, paired = _interval(record, base, scores)
        points.append(
            TradeoffPoint(
                run_id=record.id,
                model=record.model,
                label=record.label,
                family=family_of(record),
                size_bytes=record.size_bytes or 0,
                value=value_of(record, metric),
                interval=interval,
                paired=paired,
                x=axis.of(record),
                is_baseline=is_baseline(record),
                on_front=record.id in front,
                facts=_facts(record, base),
            )
        )
    if any(point.paired for point in points):  # bars of two kinds in one plot would mislead
        points = [replace(p, interval=None) if p.is_baseline else p for p in points]
    other = (RunState.QUEUED, RunState.RUNNING, RunState.CANCELLED)
    finished = [r for r in records if r.state not in other]
    return TradeoffView(
        metric=metric,
        task=task,
        models=tuple(dict.fromkeys(record.model for record in records)),
        points=tuple(points),
        predicted=_predicted(predictions, records, metric) if axis.measured is None else (),
        n_unmeasured=len(finished) - len(points),
        axis=axis,
    )


def _predicted(
    predictions: Iterable[tuple[str, Prediction]], records: Iterable[RunRecord], metric: Metric
) -> tuple[PredictedPoint, ...]:
    predictions = tuple(predictions)
    if not predictions:
        return ()
    from workbench.prediction.predict import (
        TRUSTED_NATS,  # with scipy, which nothing else here needs
    )

    measured = {(r.model, r.recipe) for r in records if is_measured(r, metric)}
    points = []
    for model, found in predictions:
        if (model, found.recipe) in measured or found.metric != metric.name:
            continue
        if found.size_bytes is None or found.value is None or found.kl is None:
            continue
        points.append(
            PredictedPoint(
                model=model,
                label=found.label,
                family=family_of(found),
                recipe=found.recipe,
                size_bytes=found.size_bytes,
                value=found.value,
                interval=found.interval,
                kl=found.kl,
                is_trusted=found.kl <= TRUSTED_NATS,
                n_runs=found.n_runs,
                notes=found.notes,
            )
        )
    return tuple(points)


def _interval(
    record: RunRecord, base: RunRecord | None, scores: Scores
) -> tuple[tuple[float, float] | None, bool]:
    """Return the 95 % interval of a run's value, and whether it is paired with its base model."""
    metric = scores.metric
    if base is not None and base.id != record.id:
        quality = scores.interval(record, base)
        if quality is not None and quality.method == "paired" and quality.low > 0:
            level = value_of(base, metric)
            ends = [
                level * end if metric.higher_is_better else level / end
                for end in (quality.low, quality.high)
            ]
            return (min(ends), max(ends)), True
    found = record.measurement(metric.name)
    if found is None or found.stderr is None:
        return None, False
    return (found.value - Z95 * found.stderr, found.value + Z95 * found.stderr), False


def _facts(record: RunRecord, dense: RunRecord | None) -> tuple[tuple[str, str], ...]:
    facts = []
    if dense is not None and dense.id != record.id and dense.size_bytes and record.size_bytes:
        facts.append(("size", f"{record.size_bytes / dense.size_bytes:.1%} of {dense.model}"))
    share = record.facts.get(SHARE_FACT)
    if isinstance(share, (int, float)) and not is_baseline(record):
        facts.append(("weights compressed", f"{share:.0%}"))
    if record.seconds:
        facts.append(("time", f"{sum(record.seconds.values()):.1f} s"))
    return tuple(facts)
