"""Choose a run: the smallest that passes a bar, how sure that is, and the nearest if none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError, StudyError
from workbench.records import Metric, RunRecord, RunState
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import estimate_ratio, paired_difference, paired_ratio

LATENCY = "latency_ms"
"""The metric that a limit of latency is about: per new token, or one text of a classifier."""

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
        None where that has no meaning: the baseline's value is missing, zero or negative.
    interval : Interval or None
        95 % interval of ``quality``; None where no uncertainty was recorded.
    surely : bool
        Whether the worse end of the 95 % interval passes the quality bar too: that of ``quality``
        for a relative bar, that of the run's own value for an absolute one. True without a bar.
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
    """What was asked: the worst acceptable value of the metric, most bytes and milliseconds.

    ``share`` is the relative bar that ``value`` was computed from, None for an absolute one.
    """

    metric: Metric
    baseline: float
    value: float | None
    share: float | None
    size_bytes: float | None
    latency_ms: float | None

    def is_met(self, value: float) -> bool:
        """Return whether a value of the metric passes the quality bar."""
        if self.value is None:
            return True
        return value >= self.value if self.metric.higher_is_better else value <= self.value

    def shortfalls(self, record: RunRecord) -> list[tuple[float, str]]:
        """Return what the record lacks: relative amounts, with words."""
        lacks = []
        value = value_of(record, self.metric)
        if self.value is not None and not self.is_met(value):
            text = f"has {self.metric.name} {value:.4g}, "
            quality = _quality(self.metric, value, self.baseline)
            if self.share is None or quality is None:
                text += f"bar {self.value:.4g}"
            else:
                text += (
                    f"{quality:.1%} of the baseline's quality, {self.share - quality:.1%} below"
                    f" the bar of {self.share:.1%}"
                )
            lacks.append((abs(value - self.value) / max(abs(value), abs(self.value)), text))
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


def _quality(metric: Metric, value: float, baseline: float) -> float | None:
    """Return the relative quality, None where a share of the baseline has no meaning."""
    if not (math.isfinite(baseline) and baseline > 0 and math.isfinite(value)):
        return None
    if not metric.higher_is_better and value <= 0:
        return None
    return relative_quality(metric, value, baseline)


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
    """Choose the smallest run that passes every bar; without ``accuracy``, the best that fits.

    If ``accuracy`` is given, the smallest run that passes is chosen; of equal sizes the one with
    the better value of the metric. If it is not, only limits are, and the run with the best value
    of the metric among those within the limits is chosen; of equal values the smaller one.

    A run is judged by its measured values; ``Choice.surely`` tells whether the worse end of the
    95 % interval passes as well. Runs that are not done, or have no size or no finite value of
    the metric, are never chosen, nor is the baseline itself.

    Parameters
    ----------
    records : iterable of RunRecord
        The runs to choose from; those of other base models may be among them.
    baseline : RunRecord or None
        The base model's own run. Only a relative bar needs its value, which must be above 0.
    metric : Metric
        What "accuracy" means for the task.
    outcomes : callable, optional
        Returns a run's per-example outcomes, or None; with them the interval is paired.
    accuracy : float, optional
        The least acceptable quality. Relative: for metrics where higher is better the value must
        be at least ``accuracy * baseline``; where lower is better (perplexity) it must be at most
        ``baseline / accuracy``. Absolute: the bar for the value itself, any finite number.
    relative : bool
        Whether ``accuracy`` is a share of the baseline's.
    size_bytes, latency_ms : float, optional
        The most that is acceptable.

    Raises
    ------
    ConfigError
        If no bar is given, or one has no meaning.
    StudyError
        If the bar is relative and the baseline has no value above 0, or latency is asked and no
        run has one, or the runs' were measured on different machines or numbers of threads.
    """
    _check_bars(accuracy, relative, size_bytes, latency_ms, metric)
    records = list(records)
    if latency_ms is not None and all(_latency(record) is None for record in records):
        raise StudyError(
            "A latency limit was given, but no run in this study has a measured latency. Leave"
            " latency_ms out, or measure it first with study.measure(run) for every run that is to"
            " be chosen from; it is never estimated."
        )
    if latency_ms is not None:
        check_conditions(records)
    done = baseline is not None and baseline.state is RunState.DONE
    reference = value_of(baseline, metric) if baseline is not None and done else math.nan
    worst, share = accuracy, None
    if accuracy is not None and relative:
        check_baseline(baseline, metric)
        share = accuracy
        worst = reference * accuracy if metric.higher_is_better else reference / accuracy
    bar = _Bar(metric, reference, worst, share, size_bytes, latency_ms)
    candidates = [
        r for r in records if is_measured(r, metric) and (baseline is None or r.id != baseline.id)
    ]
    if not candidates:
        some = "its only run has not" if len(records) == 1 else f"none of {len(records)} runs has"
        said = some if records else "the study has no runs with"
        said = f"No run can be chosen: {said} a measured size and {metric.name}."
        return Choice(None, None, None, False, None, said + _not_numbers(records, metric))

    def cost(record: RunRecord) -> float:
        return value_of(record, metric) * (-1 if metric.higher_is_better else 1)

    passing = [record for record in candidates if not bar.shortfalls(record)]
    if passing and accuracy is not None:
        found = min(passing, key=lambda r: (r.size_bytes or 0, cost(r)))
    elif passing:
        found = min(passing, key=lambda r: (cost(r), r.size_bytes or 0))
    else:
        found = min(candidates, key=lambda r: (sum(x for x, _ in bar.shortfalls(r)), cost(r)))
    quality = _quality(metric, value_of(found, metric), reference)
    interval = None
    if quality is not None and baseline is not None:
        interval = quality_interval(metric, found, baseline, outcomes)
    surely = bool(passing) and _is_sure(bar, found, interval)
    if passing:
        words = _words(bar, found, baseline, interval, surely, len(passing))
    else:
        lacks = ", and ".join(text for _, text in bar.shortfalls(found))
        words = f"No run passes. Nearest is {_name(found, baseline)}: it {lacks}."
    return Choice(found if passing else None, quality, interval, surely, found, words)


def _not_numbers(records: list[RunRecord], metric: Metric) -> str:
    """Return a sentence about the runs whose metric was computed but is no finite number."""
    broken = [
        r.label
        for r in records
        if r.state is RunState.DONE
        and r.measurement(metric.name) is not None
        and not math.isfinite(value_of(r, metric))
    ]
    if not broken:
        return ""
    shown = ", ".join(broken[:3]) + (" …" if len(broken) > 3 else "")
    return f" The {metric.name} is not a finite number on: {shown}."


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
        if bar is None:
            continue
        is_number = isinstance(bar, Real) and not isinstance(bar, bool) and math.isfinite(bar)
        is_value = name == "accuracy" and not relative
        if not is_number or (bar <= 0 and not is_value):
            accepted = {
                "accuracy": "a number above 0, such as 0.97 for 97 % of the baseline's quality",
                "size_bytes": "a number above 0, in bytes, such as 5e6 for 5 MB",
                "latency_ms": "a number above 0, in milliseconds",
            }[name]
            accepted = f"a finite value of {metric.name}" if is_value else accepted
            raise ConfigError(f"{name}={bar!r} is not accepted; give {accepted}.")
    if accuracy is not None and relative and accuracy > 2:
        raise ConfigError(
            f"accuracy={accuracy:g} is a share of the baseline's {metric.name} and would ask for"
            f" {accuracy:g} times its quality; for {accuracy:g} % give {accuracy / 100:g}, for an"
            f" absolute {metric.name} give relative=False."
        )


def _latency(record: RunRecord) -> float | None:
    found = record.measurement(LATENCY)
    return None if found is None or not math.isfinite(found.value) else found.value


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


def _is_sure(bar: _Bar, found: RunRecord, interval: Interval | None) -> bool:
    """Return whether the worse end of the 95 % interval passes the quality bar too."""
    if bar.value is None:
        return True
    if bar.share is not None:
        return interval is not None and interval.low >= bar.share
    ends = _own_interval(found, bar.metric)
    return ends is not None and all(bar.is_met(end) for end in ends)


def _own_interval(record: RunRecord, metric: Metric) -> tuple[float, float] | None:
    found = record.measurement(metric.name)
    if found is None or found.stderr is None or not math.isfinite(found.stderr):
        return None
    return found.value - Z95 * found.stderr, found.value + Z95 * found.stderr


def _name(found: RunRecord, baseline: RunRecord | None) -> str:
    same = baseline is None or found.model == baseline.model
    return found.label if same else f"{found.model}, {found.label}"


def _words(
    bar: _Bar,
    found: RunRecord,
    baseline: RunRecord | None,
    interval: Interval | None,
    surely: bool,
    n_passing: int,
) -> str:
    """Return what people read about a run that passes."""
    metric, value = bar.metric, value_of(found, bar.metric)
    size, whole = found.size_bytes or 0, (baseline.size_bytes or 0) if baseline else 0
    text = f"{_name(found, baseline)} passes with {size / 1e6:.2f} MB"
    if whole:
        text += f" ({size / whole:.0%} of the baseline)"
    text += f" and {metric.name} {value:.4g}"
    if bar.value is not None and bar.share is None:
        text += f", bar {bar.value:.4g}"
    quality = _quality(metric, value, bar.baseline)
    if quality is not None:
        text += f" ({quality:.1%} of the baseline's quality"
        if interval is not None:
            text += f", 95 % interval {interval.low:.1%} to {interval.high:.1%}, {interval.method}"
        text += ")"
    text += "."
    if bar.value is None and n_passing > 1:
        text += f" It has the best {metric.name} of the {n_passing} runs within the limits."
    elif bar.value is None:
        text += " It is the only run within the limits."
    own = _own_interval(found, metric)
    if bar.share is not None and interval is not None and not surely:
        text += f" The lower end of the interval is below the bar of {bar.share:.1%}."
    elif bar.value is not None and bar.share is None and own is not None and not surely:
        text += (
            f" The 95 % interval of its {metric.name}, {own[0]:.4g} to {own[1]:.4g}, reaches"
            " beyond the bar."
        )
    if whole and size >= whole:
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
    of accuracy, perplexity and bits_per_byte, or the mean of a column of its name; else from the
    two standard errors.
    """
    columns = _PAIRED_COLUMNS.get(metric.name, (metric.name, _EXAMPLES))
    if outcomes is not None:
        of_run, of_baseline = outcomes(record), outcomes(baseline)
        if of_run is not None and of_baseline is not None:
            paired = _paired_interval(metric, columns, of_run, of_baseline)
            if paired is not None:
                return paired
    mine, theirs = record.measurement(metric.name), baseline.measurement(metric.name)
    if mine is None or theirs is None or mine.stderr is None or theirs.stderr is None:
        return None
    quality = _quality(metric, mine.value, theirs.value)
    if not quality:
        return None
    error = math.hypot(mine.stderr / mine.value, theirs.stderr / theirs.value)
    half = Z95 * abs(quality) * error
    if not math.isfinite(half):
        return None
    return Interval(quality - half, quality + half, "independent")


_PAIRED_COLUMNS = {
    "accuracy": ("n_correct", "n_predictions"),
    "perplexity": ("loss", "n_predictions"),
    "bits_per_byte": ("loss", "n_bytes"),
}
"""Columns of Outcomes whose sums are the numerator and denominator of a metric."""

_EXAMPLES = ""
"""The denominator of a mean over examples."""


def _column(table: Outcomes, name: str) -> NDArray[np.generic] | None:
    """Return a column, None without it; whether a class was right follows from the two classes."""
    if name == _EXAMPLES:
        return np.ones(len(table))
    if name in table:
        column = table[name]
        return column if np.isfinite(np.asarray(column, dtype=np.float64)).all() else None
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
