"""What a run is worth beside its base model: measured values, relative quality, its interval."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from workbench.errors import ConfigError, DataError, StudyError
from workbench.records import Metric, RunRecord, RunState
from workbench.tasks.metrics import Scored, Statistic, relative_interval, score_outcomes
from workbench.tasks.outcomes import Outcomes, Value

LATENCY = "latency_ms"
"""The metric that a limit of latency is about: per new token, or one text of a classifier."""

Z95 = 1.959963984540054
"""Half-width of a 95 % interval in standard errors."""

Lookup = Callable[[RunRecord], Outcomes | None]
"""Returns a run's per-example outcomes, or None."""


def is_baseline(record: RunRecord) -> bool:
    """Return whether the record is a base model itself, with nothing done to it."""
    return not record.recipe.steps


def is_measured(record: RunRecord, metric: Metric) -> bool:
    """Return whether the run is done and has a size and a finite value of the metric."""
    return (
        record.state is RunState.DONE
        and record.size_bytes is not None
        and math.isfinite(value_of(record, metric))
    )


def value_of(record: RunRecord, metric: Metric) -> float:
    """Return the record's value of the metric, NaN without one by the metric's own definition."""
    found = record.measurement(metric.name)
    return math.nan if found is None or found.version != metric.version else found.value


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a run's quality relative to the baseline (1.0 is as good).

    Attributes
    ----------
    low, high : float
    method : str
        ``"paired"``: both models on the same documents;
        ``"independent"``: from the two standard errors alone, which is wider.
    """

    low: float
    high: float
    method: str


def relative_quality(metric: Metric, value: float, baseline: float) -> float:
    """Return value / baseline where higher is better, baseline / value where lower is better."""
    top, bottom = (value, baseline) if metric.higher_is_better else (baseline, value)
    return top / bottom if bottom else math.nan


def quality_of(metric: Metric, value: float, baseline: float) -> float | None:
    """Return the relative quality, None where a share of the baseline has no meaning."""
    if not (math.isfinite(baseline) and baseline > 0 and math.isfinite(value)):
        return None
    if not metric.higher_is_better and value <= 0:
        return None
    return relative_quality(metric, value, baseline)


class Scores:
    """A metric of runs, computed from their outcomes once each.

    Parameters
    ----------
    metric : Metric
    outcomes : callable, optional
        Returns a run's per-example outcomes, or None.
    statistic : callable, optional
        For metrics that are the user's callable or an aggregation of the harness.
    """

    def __init__(
        self,
        metric: Metric,
        outcomes: Lookup | None = None,
        statistic: Statistic | None = None,
    ) -> None:
        self.metric = metric
        self._outcomes = outcomes
        self._statistic = statistic
        self._found: dict[str, Scored | None] = {}
        self._tables: dict[str, Outcomes | None] = {}

    def of(self, record: RunRecord) -> Scored | None:
        """Return the metric of a run, None without outcomes that it can be computed from."""
        if record.id not in self._found:
            table = self.outcomes(record)
            self._found[record.id] = None
            if table is not None and len(table):
                # A metric of a notebook that is gone is still compared by its recorded errors.
                with contextlib.suppress(ConfigError, DataError):
                    self._found[record.id] = self.derived(
                        record, "score", lambda: score_outcomes(self.metric, table, self._statistic)
                    )
        return self._found[record.id]

    def outcomes(self, record: RunRecord) -> Outcomes | None:
        """Return a run's per-example outcomes, None where they are not known.

        They are looked up once: each look asks whether the file is still the same.
        """
        if record.id not in self._tables:
            self._tables[record.id] = None if self._outcomes is None else self._outcomes(record)
        return self._tables[record.id]

    def derived(
        self,
        record: RunRecord,
        what: Hashable,
        compute: Callable[[], Value],
        other: object = None,
    ) -> Value:
        """Return what was computed of a run's outcomes; see :meth:`Outcomes.derived`."""
        table = self.outcomes(record)
        if table is None:
            return compute()
        return table.derived((what, self.metric, self._statistic is None), compute, other)

    def interval(self, record: RunRecord, baseline: RunRecord) -> Interval | None:
        """Return the 95 % interval of a run's quality relative to the baseline, or None.

        Paired where the outcomes of both runs give the metric; else from the two standard errors.
        """
        mine, theirs = self.of(record), self.of(baseline)
        paired = None
        if mine is not None and theirs is not None:
            paired = self.derived(
                record, "interval", lambda: relative_interval(mine, theirs), theirs
            )
        if paired is not None:
            return Interval(*paired, "paired")
        one, other = (r.measurement(self.metric.name) for r in (record, baseline))
        if one is None or other is None or one.stderr is None or other.stderr is None:
            return None
        quality = quality_of(self.metric, one.value, other.value)
        if not quality:
            return None
        error = math.hypot(one.stderr / one.value, other.stderr / other.value)
        half = Z95 * abs(quality) * error
        if not math.isfinite(half):
            return None
        return Interval(quality - half, quality + half, "independent")


def check_baseline(baseline: RunRecord | None, metric: Metric) -> None:
    """Raise a StudyError that says why no share of the baseline's quality can be asked."""
    instead = "Give an absolute bar with relative=False, or only limits."
    if baseline is not None and baseline.state is RunState.FAILED:
        error = (baseline.error or "no error was recorded").strip().rstrip(".")
        raise StudyError(
            f"The base model's own run failed, so there is no {metric.name} to compare with:"
            f" {error}. {instead}"
        )
    if baseline is None or baseline.state is not RunState.DONE:
        raise StudyError(
            f"The base model has no measured {metric.name} yet, so there is nothing to compare"
            " with. Run the baseline first: study.run([])."
        )
    if baseline.measurement(metric.name) is None:
        raise StudyError(
            f"The baseline is done, but its {metric.name} was not measured, so there is nothing to"
            f" compare with. {instead}"
        )
    value = value_of(baseline, metric)
    if not math.isfinite(value):
        what = "not a number" if math.isnan(value) else "infinite"
        raise StudyError(
            f"The baseline is done, but its {metric.name} is {what}, so no quality relative to it"
            f" can be computed. {instead}"
        )
    if value <= 0:
        raise StudyError(
            f"The baseline's {metric.name} is {value:g}, so no quality relative to it can be"
            f" computed. {instead}"
        )


def check_conditions(records: Iterable[RunRecord], metric: str = LATENCY) -> None:
    """Raise StudyError if a metric was measured under conditions that cannot be compared."""
    found: dict[str, list[str]] = {}
    for record in records:
        measured = record.measurement(metric)
        if measured is not None and math.isfinite(measured.value):
            found.setdefault(measured.comparable_conditions, []).append(record.label)
    if len(found) > 1:
        where = "; ".join(
            f"{', '.join(labels[:3])}{' …' if len(labels) > 3 else ''} on {place or 'unknown'}"
            for place, labels in found.items()
        )
        raise StudyError(
            f"The runs' {metric} cannot be compared, because it was measured under different"
            f" conditions: {where}. Measure all of them again in one place: study.measure(run)."
        )
