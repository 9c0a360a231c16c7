"""Choose a run: the smallest that passes a bar, how sure that is, and the nearest if none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError, StudyError
from workbench.outcomes import Outcomes
from workbench.records import Metric, RunRecord, RunState
from workbench.uncertainty import estimate_ratio, paired_difference, paired_ratio

Z95 = 1.959963984540054
"""Half-width of a 95 % interval in standard errors."""


def is_baseline(record: RunRecord) -> bool:
    """Return whether the record is a base model itself, with nothing done to it."""
    return not record.recipe.steps


def is_measured(record: RunRecord, metric: Metric) -> bool:
    """Return whether the run is done and has a size and a finite value of the metric."""
    found = record.measurement(metric.name)
    return (
        record.state is RunState.DONE
        and record.size_bytes is not None
        and found is not None
        and math.isfinite(found.value)
    )


def value_of(record: RunRecord, metric: Metric) -> float:
    """Return the record's value of the metric, NaN where there is none."""
    found = record.measurement(metric.name)
    return math.nan if found is None else found.value


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a run's quality relative to the baseline (1.0 is as good).

    Attributes
    ----------
    low, high : float
    method : str
        ``"paired"``: both models on the same examples, clustered by document;
        ``"independent"``: from the two standard errors alone, which is wider.
    """

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Choice:
    """The run that was chosen, how sure that is, and the run nearest to the bar.

    Attributes
    ----------
    run : RunRecord or None
        None if no run passes.
    quality : float or None
        Quality of ``run`` (or of ``nearest_run``) relative to the baseline; see :func:`choose`.
    interval : Interval or None
        95 % interval of ``quality``; None where no uncertainty was recorded.
    surely : bool
        Whether the lower end of the interval passes the quality bar too.
    nearest_run : RunRecord or None
        The chosen run, else the measured run nearest to what was asked.
    nearest : str
        One sentence for people: what was chosen, or which run comes nearest and what it lacks.
    """

    run: RunRecord | None
    quality: float | None
    interval: Interval | None
    surely: bool
    nearest_run: RunRecord | None
    nearest: str

    def __str__(self) -> str:
        return self.nearest


@dataclass(frozen=True)
class _Bar:
    """What was asked, in comparable form: a least quality and most bytes and milliseconds."""

    metric: Metric
    baseline: float
    quality: float | None
    size_bytes: float | None
    latency_ms: float | None

    def shortfalls(self, record: RunRecord) -> list[tuple[float, str]]:
        """Return what the record lacks: relative amounts, with words."""
        lacks = []
        quality = relative_quality(self.metric, value_of(record, self.metric), self.baseline)
        if self.quality is not None and quality < self.quality:
            value = value_of(record, self.metric)
            lacks.append(
                (
                    1 - quality / self.quality,
                    f"has {self.metric.name} {value:.4g}, {quality:.1%} of the baseline's"
                    f" quality, {self.quality - quality:.1%} below the bar of {self.quality:.1%}",
                )
            )
        size = record.size_bytes or 0
        if self.size_bytes is not None and size > self.size_bytes:
            over = (size - self.size_bytes) / 1e6
            lacks.append(
                (
                    size / self.size_bytes - 1,
                    f"has {size / 1e6:.2f} MB, {over:.2f} MB over the limit of"
                    f" {self.size_bytes / 1e6:.2f} MB",
                )
            )
        latency = _latency(record)
        if self.latency_ms is not None and latency is None:
            lacks.append((math.inf, "has no measured latency"))
        elif self.latency_ms is not None and latency is not None and latency > self.latency_ms:
            lacks.append(
                (
                    latency / self.latency_ms - 1,
                    f"takes {latency:.3g} ms, {latency - self.latency_ms:.3g} ms over the limit"
                    f" of {self.latency_ms:.3g} ms",
                )
            )
        return lacks


def relative_quality(metric: Metric, value: float, baseline: float) -> float:
    """Return value / baseline where higher is better, baseline / value where lower is better."""
    top, bottom = (value, baseline) if metric.higher_is_better else (baseline, value)
    return top / bottom if bottom else math.nan


def choose(
    records: Iterable[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    *,
    outcomes: Callable[[RunRecord], Outcomes | None] | None = None,
    accuracy: float | None = None,
    relative: bool = True,
    size_bytes: float | None = None,
    latency_ms: float | None = None,
) -> Choice:
    """Choose the smallest run that passes every bar that is given.

    A run is judged by its measured values; ``Choice.surely`` tells whether the lower end of the
    95 % interval passes as well. Runs that are not done, or have no size or no finite value of
    the metric, are never chosen, nor is the baseline itself. Among runs of equal size the one of
    higher quality wins. If ``accuracy`` is not given, the run of highest quality within the
    limits is chosen instead of the smallest.

    Parameters
    ----------
    records : iterable of RunRecord
        The runs to choose from; those of other base models may be among them.
    baseline : RunRecord
        The base model's own run, which relative bars refer to.
    metric : Metric
        What "accuracy" means for the task.
    outcomes : callable, optional
        Returns a run's per-example outcomes, or None; with them the interval is paired.
    accuracy : float, optional
        The least acceptable quality. Relative: for metrics where higher is better the value must
        be at least ``accuracy * baseline``; where lower is better (perplexity) it must be at most
        ``baseline / accuracy``. Absolute: the bar for the value itself.
    relative : bool
        Whether ``accuracy`` is a share of the baseline's.
    size_bytes, latency_ms : float, optional
        The most that is acceptable.

    Raises
    ------
    ConfigError
        If no bar is given, or one has no meaning.
    StudyError
        If the baseline was not measured, or latency is asked and no run has one.
    """
    _check_bars(accuracy, relative, size_bytes, latency_ms, metric)
    if baseline is None or not is_measured(baseline, metric):
        raise StudyError(
            f"The base model has no measured {metric.name} yet, so there is nothing to compare"
            " with. Run the baseline first: study.run([])."
        )
    records = list(records)
    if latency_ms is not None and all(_latency(record) is None for record in records):
        raise StudyError(
            "A latency limit was given, but no run in this study has a measured latency. Leave"
            " latency_ms out, or measure latency first; it is never estimated."
        )
    reference = value_of(baseline, metric)
    least = accuracy
    if accuracy is not None and not relative:
        least = relative_quality(metric, accuracy, reference)
    if (accuracy is not None and reference <= 0) or (least is not None and math.isnan(least)):
        raise StudyError(
            f"The baseline's {metric.name} is {reference:g}, so no quality relative to it can be"
            " computed."
        )
    bar = _Bar(metric, reference, least, size_bytes, latency_ms)
    candidates = [r for r in records if is_measured(r, metric) and r.id != baseline.id]
    if not candidates:
        said = f"none of {len(records)} runs has" if records else "the study has no runs with"
        said = f"No run can be chosen: {said} a measured size and {metric.name}."
        return Choice(None, None, None, False, None, said)

    def quality(record: RunRecord) -> float:
        return relative_quality(metric, value_of(record, metric), reference)

    passing = [record for record in candidates if not bar.shortfalls(record)]
    if passing and accuracy is not None:
        found = min(passing, key=lambda r: (r.size_bytes or 0, -quality(r)))
    elif passing:
        found = max(passing, key=lambda r: (quality(r), -(r.size_bytes or 0)))
    else:
        found = min(candidates, key=lambda r: sum(amount for amount, _ in bar.shortfalls(r)))
    interval = quality_interval(metric, found, baseline, outcomes)
    surely = bool(passing) and (least is None or (interval is not None and interval.low >= least))
    words = _words(bar, found, baseline, interval, bool(passing), surely)
    return Choice(found if passing else None, quality(found), interval, surely, found, words)


def _check_bars(
    accuracy: float | None,
    relative: bool,
    size_bytes: float | None,
    latency_ms: float | None,
    metric: Metric,
) -> None:
    bars = {"accuracy": accuracy, "size_bytes": size_bytes, "latency_ms": latency_ms}
    if all(bar is None for bar in bars.values()):
        raise ConfigError(
            "Nothing to choose by: give accuracy=0.97 (a share of the baseline), size_bytes=…"
            " or latency_ms=…."
        )
    for name, bar in bars.items():
        if bar is not None and not (math.isfinite(bar) and bar > 0):
            raise ConfigError(f"{name}={bar!r} is not accepted; give a number above 0.")
    if accuracy is not None and relative and accuracy > 2:
        raise ConfigError(
            f"accuracy={accuracy:g} is a share of the baseline's {metric.name} and would ask for"
            f" {accuracy:g} times its quality; for {accuracy:g} % give {accuracy / 100:g}, for an"
            f" absolute {metric.name} give relative=False."
        )


def _latency(record: RunRecord) -> float | None:
    found = record.measurement("latency") or record.measurement("latency_ms")
    return None if found is None else found.value


def _words(
    bar: _Bar,
    found: RunRecord,
    baseline: RunRecord,
    interval: Interval | None,
    passes: bool,
    surely: bool,
) -> str:
    name = found.label if found.model == baseline.model else f"{found.model}, {found.label}"
    if not passes:
        lacks = ", and ".join(text for _, text in bar.shortfalls(found))
        return f"No run passes. Nearest is {name}: it {lacks}."
    value = value_of(found, bar.metric)
    quality = relative_quality(bar.metric, value, bar.baseline)
    size, whole = found.size_bytes or 0, baseline.size_bytes or 0
    text = (
        f"{name} passes with {size / 1e6:.2f} MB ({size / whole:.0%} of the baseline) and"
        f" {bar.metric.name} {value:.4g} ({quality:.1%} of the baseline's quality"
    )
    if interval is not None:
        text += f", 95 % interval {interval.low:.1%} to {interval.high:.1%}, {interval.method}"
    text += ")."
    if bar.quality is not None and interval is not None and not surely:
        text += f" The lower end of the interval is below the bar of {bar.quality:.1%}."
    if size >= whole:
        text += " It is not smaller than the baseline."
    return text


def quality_interval(
    metric: Metric,
    record: RunRecord,
    baseline: RunRecord,
    outcomes: Callable[[RunRecord], Outcomes | None] | None = None,
) -> Interval | None:
    """Return the 95 % interval of a run's quality relative to the baseline, or None.

    Paired where both runs have per-example outcomes of the same examples and the metric is one
    of accuracy, perplexity and bits_per_byte; else from the two standard errors.
    """
    columns = _PAIRED_COLUMNS.get(metric.name)
    if outcomes is not None and columns is not None:
        of_run, of_baseline = outcomes(record), outcomes(baseline)
        if of_run is not None and of_baseline is not None:
            paired = _paired_interval(metric, columns, of_run, of_baseline)
            if paired is not None:
                return paired
    mine, theirs = record.measurement(metric.name), baseline.measurement(metric.name)
    if mine is None or theirs is None or mine.stderr is None or theirs.stderr is None:
        return None
    quality = relative_quality(metric, mine.value, theirs.value)
    if not math.isfinite(quality) or not mine.value or not theirs.value:
        return None
    half = Z95 * quality * math.hypot(mine.stderr / mine.value, theirs.stderr / theirs.value)
    return Interval(quality - half, quality + half, "independent")


_PAIRED_COLUMNS = {
    "accuracy": ("n_correct", "n_predictions"),
    "perplexity": ("loss", "n_predictions"),
    "bits_per_byte": ("loss", "n_bytes"),
}
"""Columns of Outcomes whose sums are the numerator and denominator of a metric."""


def _column(table: Outcomes, name: str) -> NDArray[np.generic] | None:
    """Return a column, None without it; whether a class was right follows from the two classes."""
    if name in table:
        return table[name]
    if name == "n_correct" and "label" in table and "prediction" in table:
        return np.asarray(table["label"]) == np.asarray(table["prediction"])
    return None


def _paired_interval(
    metric: Metric, columns: tuple[str, str], run: Outcomes, baseline: Outcomes
) -> Interval | None:
    _, first, second = np.intersect1d(
        np.asarray(run["example"]), np.asarray(baseline["example"]), return_indices=True
    )
    estimates = []
    for table, rows in ((run, first), (baseline, second)):
        top, bottom = (_column(table, name) for name in columns)
        if top is None or bottom is None:
            return None
        estimates.append(estimate_ratio(top[rows], bottom[rows], table["document"][rows]))
    mine, theirs = estimates
    if mine.n_clusters != theirs.n_clusters:
        return None
    if metric.name == "perplexity":  # the quality is exp(-(difference of the mean losses))
        found = paired_difference(theirs, mine)
        low, high = (math.exp(min(end, 700.0)) for end in (found.low, found.high))
    else:
        pair = (mine, theirs) if metric.higher_is_better else (theirs, mine)
        found = paired_ratio(*pair)
        low, high = found.low, found.high
    return None if found.stderr is None else Interval(low, high, "paired")
