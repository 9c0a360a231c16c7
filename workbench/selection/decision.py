"""Decide with confidence: which runs pass a bar, which fail, and which too few examples judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.records import Metric, RunRecord
from workbench.selection.choice import (
    Interval,
    check_baseline,
    check_conditions,
    is_measured,
    quality_interval,
    relative_quality,
    value_of,
)
from workbench.selection.hypothesis_tests import examples_needed, reject_in_order, tilted_p_value
from workbench.selection.requirements import Requirements
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import Estimate

PASSES, FAILS, UNCLEAR = "passes", "fails", "unclear"

FAIL_LEVEL = 0.05
"""Chance of saying of one run that it fails although it passes; not corrected for many runs."""

_SUMS = {
    "accuracy": ("n_correct", "n_predictions"),
    "perplexity": ("loss", "n_predictions"),
    "bits_per_byte": ("loss", "n_bytes"),
    "kl": ("kl", "n_predictions"),
}
"""Columns of Outcomes whose sums make a metric (perplexity: e to the power of the ratio)."""


@dataclass(frozen=True)
class Contrast:
    """By how much a run beats the bar, per cluster of examples.

    Attributes
    ----------
    advantages : ndarray of shape (clusters,), float64
        Its expectation is above zero if, and only if, the run truly passes.
    worst, best : float
        What one example counts that the run gets wrong, and right, alone.
    n_examples : int
    method : str
        ``"paired"``: run and baseline on the same examples; ``"own"``: an absolute bar.
    """

    advantages: NDArray[np.float64]
    worst: float
    best: float
    n_examples: int
    method: str


@dataclass(frozen=True)
class Verdict:
    """What is known about one run and the bar.

    Attributes
    ----------
    run : RunRecord
    answer : {"passes", "fails", "unclear"}
        "passes" and "fails" are said with confidence; "unclear" is that examples are too few to
        tell, or that something was not measured.
    quality : float or None
        Relative to the baseline; None where that has no meaning.
    interval : Interval or None
        95 % interval of ``quality``, of this run alone.
    p_value : float or None
        Chance of outcomes so good from a run just below the bar; None where it was not tested.
    level : float or None
        What ``p_value`` was compared with: smaller the more runs there are.
    n_examples : int
    enough_examples : int or None
        About how many would tell, if the run is as it looks; None if it is known already, was
        not tested, its error is not known, or it lies so near to the bar that no number would do.
    lacks : tuple of str
        What it fails or misses, in words.
    method : str
        ``"paired"``, ``"own"`` (an absolute bar), ``"independent"`` (from standard errors alone),
        or ``""`` (not tested, or without a known error).
    """

    run: RunRecord
    answer: str
    quality: float | None
    interval: Interval | None
    p_value: float | None
    level: float | None
    n_examples: int
    enough_examples: int | None
    lacks: tuple[str, ...]
    method: str


@dataclass(frozen=True)
class Decision:
    """The smallest run that passes with confidence, and what is known about every other.

    Attributes
    ----------
    requirements : Requirements
    metric : Metric
    chosen : Verdict or None
    nearest : Verdict or None
        The chosen one, else the one that comes nearest; None without measured runs.
    verdicts : tuple of Verdict
        Every candidate, smallest first.
    words : str
        The decision in a few sentences.
    """

    requirements: Requirements
    metric: Metric
    chosen: Verdict | None
    nearest: Verdict | None
    verdicts: tuple[Verdict, ...]
    words: str

    def __str__(self) -> str:
        return self.words


def decide(
    records: Iterable[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    requirements: Requirements,
    *,
    outcomes: Callable[[RunRecord], Outcomes | None] | None = None,
    estimates: Callable[[RunRecord], Estimate | None] | None = None,
) -> Decision:
    """Choose the smallest run that passes with confidence.

    Limits of size, time, memory and cost are looked at first, because they need no test; of the
    runs within them the quality is tested, in the order of their sizes (see
    :mod:`workbench.selection.hypothesis_tests`). Unless speed, memory or cost is asked for, runs
    that are not smaller than the baseline are left out. Without ``requirements.accuracy`` the best
    run within the limits is chosen.

    What is promised holds for the runs that are given, whatever they are. Deleting runs that fail,
    or making new ones from what was learned on the very evaluation part, is not seen here.

    Parameters
    ----------
    records : iterable of RunRecord
    baseline : RunRecord or None
        Needed for a relative bar.
    metric : Metric
    requirements : Requirements
    outcomes : callable, optional
        Returns a run's per-example outcomes or None.
    estimates : callable, optional
        Returns the estimate of ``metric`` for a run, for metrics that are no ratio of sums.

    Raises
    ------
    ConfigError
        If no model can pass an absolute bar.
    StudyError
        If the baseline has no value to be relative to, or times of different machines would be
        compared.
    """
    records = list(records)
    own = None if baseline is None else baseline.id
    candidates = [r for r in records if is_measured(r, metric) and r.id != own]
    if not candidates:
        words = (
            "No run can be chosen: the study has no finished compressed run with a measured"
            f" {metric.name}."
        )
        return Decision(requirements, metric, None, None, (), words)
    if requirements.latency_ms is not None or requirements.cost_per_1k_usd is not None:
        check_conditions(candidates)
    if requirements.accuracy is not None and requirements.relative:
        check_baseline(baseline, metric)
    elif requirements.accuracy is not None and requirements.accuracy <= 0:
        _check_absolute(metric, requirements.accuracy)
    lacks = {r.id: _limits(r, baseline, requirements) for r in candidates}
    tested = [r for r in candidates if not lacks[r.id] and requirements.accuracy is not None]
    tested.sort(key=lambda r: -(r.size_bytes or 0))  # stable: equal sizes in the journal's order
    found = {}
    for record in tested:
        found[record.id] = _tested(record, baseline, metric, requirements, outcomes, estimates)
    passed, levels = reject_in_order(
        [found[r.id].p_value for r in tested], 1 - requirements.confidence
    )
    rows = dict(zip([r.id for r in tested], zip(passed, levels, strict=True), strict=True))
    verdicts = []
    for record in sorted(candidates, key=lambda r: r.size_bytes or 0):
        quality, interval = _quality_of(record, baseline, metric, outcomes)
        test, (ok, level) = found.get(record.id), rows.get(record.id, (False, None))
        missing = [text for _, text in lacks[record.id]]
        unmeasured = any(math.isinf(amount) for amount, _ in lacks[record.id])
        if test is None:
            answer = UNCLEAR if unmeasured else FAILS if missing else PASSES
            if missing and _shortfall(record, quality, metric, requirements) > 0:
                missing.append(_quality_words(record, quality, metric, requirements))
        else:
            answer = PASSES if ok else FAILS if test.fail_p_value <= FAIL_LEVEL else UNCLEAR
            if answer != PASSES:
                missing.append(_quality_words(record, quality, metric, requirements))
        verdicts.append(
            Verdict(
                run=record,
                answer=answer,
                quality=quality,
                interval=interval,
                p_value=None if test is None else test.p_value,
                level=None if level is None else float(level),
                n_examples=0 if test is None else test.n_examples,
                enough_examples=(
                    test.enough(float(level or 0.0), FAIL_LEVEL)
                    if test is not None and answer == UNCLEAR
                    else None
                ),
                lacks=tuple(missing),
                method="" if test is None else test.method,
            )
        )

    def cost(verdict: Verdict) -> float:
        return value_of(verdict.run, metric) * (-1 if metric.higher_is_better else 1)

    passing = [v for v in verdicts if v.answer == PASSES]
    chosen = None
    if passing and requirements.accuracy is not None:
        chosen = min(passing, key=lambda v: (v.run.size_bytes or 0, cost(v)))
    elif passing:
        chosen = min(passing, key=lambda v: (cost(v), v.run.size_bytes or 0))

    def distance(verdict: Verdict) -> tuple[float, float, float]:
        amounts = [amount for amount, _ in lacks[verdict.run.id]]
        amounts.append(_shortfall(verdict.run, verdict.quality, metric, requirements))
        p_value = 1.0 if verdict.p_value is None else verdict.p_value
        return (sum(amounts), p_value, cost(verdict))

    nearest = chosen or min(verdicts, key=distance)
    words = _words(requirements, metric, baseline, chosen, nearest, verdicts)
    return Decision(requirements, metric, chosen, nearest, tuple(verdicts), words)


def _check_absolute(metric: Metric, bar: float) -> None:
    if metric.name == "perplexity":
        raise ConfigError(
            f"accuracy={bar:g} is not accepted: no model has a perplexity of 0 or less. Give the"
            " most that is acceptable, such as 20."
        )


@dataclass(frozen=True)
class _Test:
    """One run's test: both p-values, and what tells how many examples would be enough."""

    p_value: float
    fail_p_value: float
    n_examples: int
    method: str
    enough: Callable[[float, float], int | None]


def contrast(
    metric: Metric,
    run: Outcomes,
    baseline: Outcomes | None,
    bar: float,
) -> Contrast | None:
    """Return by how much a run beats the bar per cluster, None where the columns do not allow it.

    Parameters
    ----------
    metric : Metric
        One that is a ratio of sums.
    run : Outcomes
    baseline : Outcomes or None
        Of the same examples; None for an absolute bar.
    bar : float
        Share of the baseline's quality, or the absolute value.
    """
    if metric.name not in _SUMS or len(run) == 0:
        return None
    rows = np.arange(len(run))
    if baseline is not None:
        _, rows, others = np.intersect1d(
            np.asarray(run["example"]), np.asarray(baseline["example"]), return_indices=True
        )
        if len(rows) < len(run) or len(rows) < len(baseline):
            return None
        if not np.array_equal(run["document"][rows], baseline["document"][others]):
            return None
    top, bottom = (_sums_of(run, name) for name in _SUMS[metric.name])
    if top is None or bottom is None:
        return None
    top, bottom = top[rows], bottom[rows]
    sign = 1.0 if metric.higher_is_better else -1.0
    scale = math.log(2) if metric.name == "bits_per_byte" else 1.0
    worst = best = 0.0
    if baseline is None:
        level = math.log(bar) if metric.name == "perplexity" else bar * scale
        each = sign * (top - level * bottom)
        if metric.higher_is_better:
            worst, best = -bar, 1 - bar
    else:
        theirs, below = (_sums_of(baseline, name) for name in _SUMS[metric.name])
        if theirs is None or below is None or not np.array_equal(below[others], bottom):
            return None
        theirs = theirs[others]
        if metric.name == "perplexity":
            each = theirs - top - math.log(bar) * bottom
        elif metric.higher_is_better:
            each, worst, best = top - bar * theirs, -bar, 1.0
        else:
            each = theirs / bar - top
    _, cluster = np.unique(np.asarray(run["document"])[rows], return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(cluster, weights=each).astype(np.float64)
    method = "own" if baseline is None else "paired"
    return Contrast(sums, worst, best, len(rows), method)


def _sums_of(table: Outcomes, name: str) -> NDArray[np.float64] | None:
    if name in table:
        return np.asarray(table[name], dtype=np.float64)
    if name == "n_correct" and "label" in table and "prediction" in table:
        right = np.asarray(table["label"]) == np.asarray(table["prediction"])
        return right.astype(np.float64)
    return None


def _tested(
    record: RunRecord,
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
    outcomes: Callable[[RunRecord], Outcomes | None] | None,
    estimates: Callable[[RunRecord], Estimate | None] | None,
) -> _Test:
    bar = float(wanted.accuracy or 0.0)
    pair = [record] if not wanted.relative or baseline is None else [record, baseline]
    tables = [None if outcomes is None else outcomes(r) for r in pair]
    found = None
    if tables[0] is not None and tables[-1] is not None:
        found = contrast(metric, tables[0], tables[1] if len(pair) == 2 else None, bar)
    if found is None and estimates is not None:
        of = [estimates(r) for r in pair]
        value = record.measurement(metric.name)
        found = _from_estimates(metric, of, bar, 0 if value is None else value.n)
    if found is not None and len(found.advantages) > 1:
        sums, n, worst, best = found.advantages, found.n_examples, found.worst, found.best

        def enough(passing: float, failing: float) -> int | None:
            if sums.mean() > 0:
                return examples_needed(sums, n, alpha=passing, worst=worst)
            return examples_needed(-sums, n, alpha=failing, worst=-best)

        return _Test(
            tilted_p_value(sums, worst), tilted_p_value(-sums, -best), n, found.method, enough
        )
    return _independent(pair, metric, bar)


def _from_estimates(
    metric: Metric, of: Sequence[Estimate | None], bar: float, n_examples: int
) -> Contrast | None:
    """Return pseudo-values of the distance to the bar from influences per cluster."""
    mine, theirs = of[0], of[-1]
    if mine is None or theirs is None or mine.n_clusters != theirs.n_clusters:
        return None
    sign = 1.0 if metric.higher_is_better else -1.0
    if len(of) == 1:
        value, influence = mine.value - bar, mine.influence
    else:
        share = bar if metric.higher_is_better else 1 / bar
        value = mine.value - share * theirs.value
        influence = mine.influence - share * theirs.influence
    sums = sign * (value + mine.n_clusters * influence)
    return Contrast(sums, 0.0, 0.0, n_examples, "own" if len(of) == 1 else "paired")


def _independent(pair: Sequence[RunRecord], metric: Metric, bar: float) -> _Test:
    """Test from the recorded values and standard errors alone."""
    measured = [record.measurement(metric.name) for record in pair]
    n = min((m.n for m in measured if m is not None), default=0)
    errors = [m.stderr for m in measured if m is not None and m.stderr is not None]
    sign = 1.0 if metric.higher_is_better else -1.0
    share = 1.0 if len(pair) == 1 else bar if metric.higher_is_better else 1 / bar
    level = bar if len(pair) == 1 else share * value_of(pair[1], metric)
    distance = sign * (value_of(pair[0], metric) - level)
    spread = math.hypot(errors[0], share * errors[-1] if len(pair) == 2 else 0.0) if errors else 0.0
    if len(errors) < len(pair) or not spread:
        return _Test(1.0, 1.0, n, "", lambda passing, failing: None)
    z = distance / spread

    def enough(passing: float, failing: float) -> int | None:
        alpha = passing if z > 0 else failing
        steps = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(0.8)
        return math.ceil(n * (steps / z) ** 2) if z else None

    normal = NormalDist()
    return _Test(1 - normal.cdf(z), normal.cdf(z), n, "independent", enough)


def _limits(
    record: RunRecord, baseline: RunRecord | None, wanted: Requirements
) -> list[tuple[float, str]]:
    """Return which limits a run exceeds: relative amounts, infinite if unmeasured, with words."""
    size = record.size_bytes or 0
    found: list[tuple[float, str]] = []
    asked: Mapping[str, tuple[float | None, float | None, str, float]] = {
        "size": (wanted.size_bytes, float(size), "MB", 1e6),
        "latency": (wanted.latency_ms, _measured(record, "latency_ms"), "ms", 1.0),
        "memory": (wanted.memory_bytes, _measured(record, "resident_bytes"), "MB of memory", 1e6),
        "cost": (wanted.cost_per_1k_usd, _cost(record, wanted), "dollars per 1,000 queries", 1.0),
    }
    for name, (limit, value, unit, divisor) in asked.items():
        if limit is None:
            continue
        if value is None:
            missing = "latency" if name == "cost" else name
            found.append((math.inf, f"has no measured {missing}: study.measure(run) measures it"))
        elif value > limit:
            found.append(
                (
                    value / limit - 1,
                    f"takes {value / divisor:.4g} {unit}, {(value - limit) / divisor:.3g} over the"
                    f" limit of {limit / divisor:.4g}",
                )
            )
    only_size = all(wanted_ is None for key, (wanted_, *_) in asked.items() if key != "size")
    same = baseline is not None and record.model == baseline.model and baseline.size_bytes
    if same and only_size and baseline is not None and size >= (baseline.size_bytes or 0):
        found.append((1e-9, "is not smaller than the base model"))
    return found


def _measured(record: RunRecord, name: str) -> float | None:
    found = record.measurement(name)
    return None if found is None or not math.isfinite(found.value) else found.value


def _cost(record: RunRecord, wanted: Requirements) -> float | None:
    found = None if wanted.cost is None else wanted.cost.of(record)
    return None if found is None else found.per_1k_usd


def _quality_of(
    record: RunRecord,
    baseline: RunRecord | None,
    metric: Metric,
    outcomes: Callable[[RunRecord], Outcomes | None] | None,
) -> tuple[float | None, Interval | None]:
    if baseline is None or not is_measured(baseline, metric):
        return None, None
    mine, theirs = value_of(record, metric), value_of(baseline, metric)
    if theirs <= 0 or (mine <= 0 and not metric.higher_is_better):
        return None, None
    interval = quality_interval(metric, record, baseline, outcomes)
    return relative_quality(metric, mine, theirs), interval


def _shortfall(
    record: RunRecord, quality: float | None, metric: Metric, wanted: Requirements
) -> float:
    """Return by what share the measured quality misses the bar; 0 if it does not."""
    bar = wanted.accuracy
    if bar is None:
        return 0.0
    if wanted.relative:
        return 0.0 if quality is None else max(0.0, 1 - quality / bar)
    value = value_of(record, metric)
    gap = bar - value if metric.higher_is_better else value - bar
    return max(0.0, gap) / max(abs(bar), abs(value), 1e-12)


def _quality_words(
    record: RunRecord, quality: float | None, metric: Metric, wanted: Requirements
) -> str:
    bar = wanted.accuracy or 0.0
    text = f"has {metric.name} {value_of(record, metric):.4g}"
    if wanted.relative and quality is not None:
        return f"{text}, {quality:.1%} of the baseline's quality, where {bar:.1%} is asked"
    return f"{text}, where {bar:.4g} is asked"


def _name(record: RunRecord, baseline: RunRecord | None) -> str:
    same = baseline is None or record.model == baseline.model
    return record.label if same else f"{record.model}, {record.label}"


def _words(
    wanted: Requirements,
    metric: Metric,
    baseline: RunRecord | None,
    chosen: Verdict | None,
    nearest: Verdict,
    verdicts: Sequence[Verdict],
) -> str:
    run = nearest.run
    counts = {a: sum(v.answer == a for v in verdicts) for a in (PASSES, FAILS, UNCLEAR)}
    passes = f"{counts[PASSES]} pass{'es' * (counts[PASSES] == 1)}"
    fails = f"{counts[FAILS]} fail{'s' * (counts[FAILS] == 1)}"
    tally = f" {passes}, {fails}, {counts[UNCLEAR]} cannot be told."
    if chosen is not None:
        text = f"{_name(run, baseline)} passes with {(run.size_bytes or 0) / 1e6:.2f} MB"
        if baseline is not None and baseline.size_bytes:
            text += f" ({(run.size_bytes or 0) / baseline.size_bytes:.0%} of the baseline)"
        text += f" and {metric.name} {value_of(run, metric):.4g}"
        if nearest.quality is not None:
            text += f" ({nearest.quality:.1%} of the baseline's quality"
            if nearest.interval is not None:
                low, high = nearest.interval.low, nearest.interval.high
                text += f", 95 % interval {low:.1%} to {high:.1%}, {nearest.interval.method}"
            text += ")"
        text += f". Asked: {wanted}."
        if nearest.p_value is not None:
            n_tested = sum(v.p_value is not None for v in verdicts)
            text += (
                f" It is the smallest of {n_tested} tested runs that surely passes."
                if n_tested > 1
                else " It is the only run that was tested."
            )
        return text + tally
    text = f"No run surely passes. Asked: {wanted}. Nearest is {_name(run, baseline)}: it "
    text += ", and it ".join(nearest.lacks) + "."
    if nearest.answer == UNCLEAR and nearest.p_value is not None and not nearest.method:
        text += (
            f" How sure its {metric.name} is cannot be told: no standard error was recorded, or all"
            " examples are of one document."
        )
    elif nearest.answer == UNCLEAR and nearest.p_value is not None:
        one = nearest.n_examples == 1
        text += " The one example is" if one else f" The {nearest.n_examples:,} examples are"
        text += " too few to tell"
        if nearest.enough_examples is not None:
            text += f"; about {nearest.enough_examples:,} would be enough, if it is as it looks"
        else:
            text += ": it lies so near to the bar that no number of examples would be enough"
        text += "."
    return text + tally
