"""Choose a run: by its measured value, or with confidence; one record is the answer to both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import ConfigError, StudyError
from workbench.records import Metric, RunRecord, RunState
from workbench.selection.hypothesis_tests import examples_needed, reject_in_order, tilted_p_value
from workbench.selection.quality import (
    LATENCY,
    Z95,
    Interval,
    Lookup,
    Scores,
    check_baseline,
    check_conditions,
    is_baseline,
    is_measured,
    quality_of,
    value_of,
)
from workbench.selection.requirements import Requirements
from workbench.tasks.metrics import Contrast, Statistic, contrast

if TYPE_CHECKING:
    import pandas as pd

PASSES, FAILS, UNCLEAR = "passes", "fails", "unclear"
LEFT_OUT = "left out"
"""Of a run that may well be good enough, and is not smaller than what it is compared with."""

FAIL_LEVEL = 0.05
"""Chance of saying of one run that it fails although it passes; not corrected for many runs."""


@dataclass(frozen=True)
class Verdict:
    """What is known about one run and the bar.

    Attributes
    ----------
    run : RunRecord
    answer : {"passes", "fails", "unclear", "left out"}
        "passes" and "fails" are said with confidence; "unclear" is that examples are too few to
        tell, or that something was not measured; "left out" that it is not smaller, and so was not
        tested.
    quality : float or None
        Relative to the baseline; None where that has no meaning.
    interval : Interval or None
        95 % interval of ``quality``, of this run alone; by the measured value it is only known of
        the chosen or nearest run.
    p_value : float or None
        Chance of outcomes so good from a run just below the bar; None where it was not tested.
    level : float or None
        What ``p_value`` was compared with: smaller the more runs there are.
    n_examples : int
    lacks : tuple of str
        What it fails or misses, in words.
    method : str
        ``"paired"``, ``"own"`` (an absolute bar), ``"independent"`` (from standard errors alone),
        or ``""`` (not tested, or without a known error).
    distance : float
        By how much it misses what is asked: the sum of relative amounts, 0 if it misses nothing.
    enough : callable or None
        Computes ``enough_examples``.
    """

    run: RunRecord
    answer: str
    quality: float | None
    interval: Interval | None = None
    p_value: float | None = None
    level: float | None = None
    n_examples: int = 0
    lacks: tuple[str, ...] = ()
    method: str = ""
    distance: float = 0.0
    enough: Callable[[], int | None] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def enough_examples(self) -> int | None:
        """About how many examples would tell, if the run is as it looks.

        None if it is known already, was not tested, its error is not known, or it lies so near to
        the bar that no number would do. It is computed when it is first asked for.
        """
        return None if self.enough is None else self.enough()


@dataclass(frozen=True)
class Decision:
    """The run that was chosen, how sure that is, and what is known about every other.

    Printing it says it in words.

    Attributes
    ----------
    run : Run or RunRecord or None
        None if no run passes. ``study.choose`` gives a :class:`Run`.
    quality : float or None
        Quality of ``run`` (or of ``nearest_run``) relative to the baseline; 1.0 is as good. None
        where that has no meaning: the baseline's value is missing, zero or negative.
    interval : Interval or None
        95 % interval of ``quality``; None where no uncertainty was recorded.
    surely : bool
        With requirements: whether a run was chosen, because it passed the test. By the measured
        value: whether the worse end of the 95 % interval passes the quality bar too, that of
        ``quality`` for a relative bar, that of the run's own value for an absolute one; True
        without a bar.
    nearest_run : Run or RunRecord or None
        The chosen run, else the measured run nearest to what was asked.
    nearest : str
        For people: what was chosen, or which run comes nearest and what it lacks.
    answer : {"passes", "fails", "unclear", "left out"}
        Of the chosen run, or of the nearest one; "unclear" also if there are no runs.
    requirements : Requirements
    metric : Metric
    verdicts : tuple of Verdict
        Every candidate, smallest first.
    """

    run: Any
    quality: float | None
    interval: Interval | None
    surely: bool
    nearest_run: Any
    nearest: str
    answer: str
    requirements: Requirements
    metric: Metric
    verdicts: tuple[Verdict, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on ``nearest_run``; None without measured runs."""
        id = None if self.nearest_run is None else self.nearest_run.id
        return next((verdict for verdict in self.verdicts if verdict.run.id == id), None)

    def table(self) -> pd.DataFrame:
        """Return one row per candidate: its answer, quality, interval, and what it lacks."""
        import pandas as pd

        rows = [
            {
                "run": verdict.run.id,
                "model": verdict.run.model,
                "recipe": verdict.run.label,
                "size_mb": (verdict.run.size_bytes or 0) / 1e6,
                "answer": verdict.answer,
                "quality": verdict.quality,
                "quality_low": None if verdict.interval is None else verdict.interval.low,
                "quality_high": None if verdict.interval is None else verdict.interval.high,
                "p_value": verdict.p_value,
                "level": verdict.level,
                "examples": verdict.n_examples,
                "enough_examples": verdict.enough_examples,
                "lacks": "; ".join(verdict.lacks),
            }
            for verdict in self.verdicts
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return self.nearest


Choice = Decision
"""What choosing by a plain number was called."""


def choose(
    records: Iterable[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    accuracy: float | Requirements | None = None,
    *,
    relative: bool = True,
    size_bytes: float | None = None,
    latency_ms: float | None = None,
    outcomes: Lookup | None = None,
    statistic: Statistic | None = None,
    handle: Callable[[RunRecord], Any] = lambda record: record,
) -> Decision:
    """Choose by a plain number, which judges by the measured value, or by requirements.

    Parameters
    ----------
    records, baseline, metric, outcomes, statistic, handle
        As for :func:`decide`.
    accuracy, relative, size_bytes, latency_ms
        As for :class:`Requirements`; or ``accuracy`` is one.

    Raises
    ------
    ConfigError
        If no bar is given, or one has no meaning.
    StudyError
        As :func:`decide`.
    """
    if isinstance(accuracy, Requirements):
        if not relative or size_bytes is not None or latency_ms is not None:
            raise ConfigError(
                "relative, size_bytes and latency_ms are part of Requirements(...); give them"
                " there."
            )
        wanted = accuracy
    elif accuracy is None and size_bytes is None and latency_ms is None:
        raise ConfigError(
            "Nothing to choose by: give accuracy=0.97 (a share of the baseline), size_bytes=…"
            " or latency_ms=…."
        )
    else:
        wanted = Requirements(accuracy, relative, size_bytes, latency_ms, confidence=None)
    return decide(
        records, baseline, metric, wanted, outcomes=outcomes, statistic=statistic, handle=handle
    )


def decide(
    records: Iterable[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    requirements: Requirements,
    *,
    outcomes: Lookup | None = None,
    statistic: Statistic | None = None,
    handle: Callable[[RunRecord], Any] = lambda record: record,
) -> Decision:
    """Choose the smallest run that passes; without ``requirements.accuracy``, the best that fits.

    Of equal sizes the run with the better value of the metric is chosen, of equal values the
    smaller one. Runs that are not done, or have no size or no finite value of the metric, are never
    chosen, nor is the baseline itself.

    With a confidence, limits of size, time, memory and cost are looked at first, because they need
    no test; of the runs within them the quality is tested, in the order of their sizes (see
    :mod:`workbench.selection.hypothesis_tests`). Unless speed, memory or cost is asked for, runs
    that are not smaller than the baseline are left out. What is promised holds for the runs that
    are given, whatever they are. Deleting runs that fail, or making new ones from what was learned
    on the very evaluation part, is not seen here.

    Without a confidence (None) a run is judged by its measured value, and ``surely`` tells whether
    the worse end of its 95 % interval passes as well.

    Parameters
    ----------
    records : iterable of RunRecord
        The runs to choose from; those of other base models may be among them.
    baseline : RunRecord or None
        The base model's own run. Only a relative bar needs its value, which must be above 0.
    metric : Metric
    requirements : Requirements
    outcomes : callable, optional
        Returns a run's per-example outcomes or None; with them intervals and tests are paired.
    statistic : callable, optional
        For metrics that are the user's callable or an aggregation of the harness; see
        :func:`workbench.tasks.metrics.score_outcomes`.
    handle : callable
        Makes what stands for a run in the answer of its record.

    Raises
    ------
    ConfigError
        If no model can pass an absolute bar.
    StudyError
        If the bar is relative and the baseline has no value above 0, times of different machines
        would be compared, or a measured value is to decide and no run has a latency that is asked.
    """
    records = list(records)
    tests = requirements.confidence is not None
    own = None if baseline is None else baseline.id
    candidates = [r for r in records if is_measured(r, metric) and r.id != own]
    _check(records, candidates, baseline, metric, requirements)
    if not candidates:
        some = "its only run has not" if len(records) == 1 else f"none of {len(records)} runs has"
        said = some if records else "the study has no runs with"
        said = f"No run can be chosen: {said} a measured size and {metric.name}."
        said += _not_numbers(records, metric)
        return Decision(None, None, None, False, None, said, UNCLEAR, requirements, metric)
    scores = Scores(metric, outcomes, statistic)
    verdicts = (_tested if tests else _compared)(candidates, baseline, metric, requirements, scores)

    def cost(record: RunRecord) -> float:
        return value_of(record, metric) * (-1 if metric.higher_is_better else 1)

    def order(verdict: Verdict) -> tuple[float, float]:
        size, worse = verdict.run.size_bytes or 0, cost(verdict.run)
        return (size, worse) if requirements.accuracy is not None else (worse, size)

    def distance(verdict: Verdict) -> tuple[float, float, float]:
        p_value = 1.0 if verdict.p_value is None else verdict.p_value
        return (verdict.distance, p_value, cost(verdict.run))

    passing = [v for v in verdicts if v.answer == PASSES]
    found = min(passing, key=order) if passing else min(verdicts, key=distance)
    if not tests and baseline is not None and found.quality is not None:
        interval = scores.interval(found.run, baseline)
        verdicts = [replace(v, interval=interval) if v is found else v for v in verdicts]
        found = replace(found, interval=interval)
    surely = bool(passing) and (tests or _is_sure(requirements, found, metric))
    words = _words(requirements, metric, baseline, found, verdicts, surely)
    nearest = handle(found.run)
    return Decision(
        run=nearest if passing else None,
        quality=found.quality,
        interval=found.interval,
        surely=surely,
        nearest_run=nearest,
        nearest=words,
        answer=found.answer,
        requirements=requirements,
        metric=metric,
        verdicts=tuple(verdicts),
    )


def _check(
    records: Sequence[RunRecord],
    candidates: Sequence[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
) -> None:
    """Raise what is wrong with the question, before any run is looked at."""
    tests = wanted.confidence is not None
    if wanted.latency_ms is not None and not tests:
        if all(_measured(record, LATENCY) is None for record in records):
            raise StudyError(
                "A latency limit was given, but no run in this study has a measured latency. Leave"
                " latency_ms out, or measure it first with study.measure(run) for every run that"
                " is to be chosen from; it is never estimated."
            )
        check_conditions(records)
    elif wanted.latency_ms is not None or wanted.cost_per_1k_usd is not None:
        check_conditions(candidates)
    if wanted.accuracy is None or (tests and not candidates):
        return
    if wanted.relative:
        check_baseline(baseline, metric)
    elif wanted.accuracy <= 0 and metric.link == "exp":
        raise ConfigError(
            f"accuracy={wanted.accuracy:g} is not accepted: no model has a {metric.name} of 0 or"
            " less. Give the most that is acceptable, such as 20."
        )


def _not_numbers(records: Sequence[RunRecord], metric: Metric) -> str:
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


def _compared(
    candidates: Sequence[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
    scores: Scores,
) -> list[Verdict]:
    """Judge every run by its measured value."""
    verdicts = []
    for record in sorted(candidates, key=lambda r: r.size_bytes or 0):
        quality = _quality(record, baseline, metric)
        lacks = _limits(record, wanted)
        unmeasured = any(math.isinf(amount) for amount, _ in lacks)
        if not _is_met(value_of(record, metric), worst_accepted(baseline, metric, wanted), metric):
            lacks.insert(0, _missed(record, quality, baseline, metric, wanted))
        answer = UNCLEAR if unmeasured else FAILS if lacks else PASSES
        verdicts.append(_verdict(record, answer, quality, lacks))
    return verdicts


def _tested(
    candidates: Sequence[RunRecord],
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
    scores: Scores,
) -> list[Verdict]:
    """Test every run within the limits, all at once."""
    assert wanted.confidence is not None
    lacks = {r.id: _limits(r, wanted) + _not_smaller(r, baseline, wanted) for r in candidates}
    ready = [r for r in candidates if not lacks[r.id] and wanted.accuracy is not None]
    ready.sort(key=lambda r: -(r.size_bytes or 0))  # stable: equal sizes in the journal's order
    tests = {r.id: _test(r, baseline, metric, wanted, scores) for r in ready}
    passed, levels = reject_in_order([tests[r.id].p_value for r in ready], 1 - wanted.confidence)
    results = dict(zip([r.id for r in ready], zip(passed, levels, strict=True), strict=True))
    verdicts = []
    for record in sorted(candidates, key=lambda r: r.size_bytes or 0):
        quality, missing = _quality(record, baseline, metric), list(lacks[record.id])
        test, (ok, level) = tests.get(record.id), results.get(record.id, (False, None))
        missed = _missed(record, quality, baseline, metric, wanted)
        if test is None:
            unmeasured = any(math.isinf(amount) for amount, _ in missing)
            answer = UNCLEAR if unmeasured else FAILS if missing else PASSES
            if missing and missed[0] > 0:
                missing.append(missed)
            elif missing and missing == _not_smaller(record, baseline, wanted):
                answer = LEFT_OUT
        else:
            answer = PASSES if ok else FAILS if test.fails() else UNCLEAR
            if answer != PASSES:
                missing.append(missed)
        found = _verdict(record, answer, quality, missing)
        if baseline is not None and quality is not None:
            found = replace(found, interval=scores.interval(record, baseline))
        if test is not None:
            found = replace(
                found,
                p_value=test.p_value,
                level=float(level),
                n_examples=test.n_examples,
                enough=partial(test.enough, float(level)) if answer == UNCLEAR else None,
                method=test.method,
            )
        verdicts.append(found)
    return verdicts


def _verdict(
    record: RunRecord, answer: str, quality: float | None, lacks: Sequence[tuple[float, str]]
) -> Verdict:
    words = tuple(text for _, text in lacks)
    distance = sum(amount for amount, _ in lacks)
    return Verdict(record, answer, quality, lacks=words, distance=distance)


def _quality(record: RunRecord, baseline: RunRecord | None, metric: Metric) -> float | None:
    if baseline is None or baseline.state is not RunState.DONE:
        return None
    return quality_of(metric, value_of(record, metric), value_of(baseline, metric))


def worst_accepted(
    baseline: RunRecord | None, metric: Metric, wanted: Requirements
) -> float | None:
    """Return the worst value of the metric that passes, None without a bar."""
    if wanted.accuracy is None or not wanted.relative or baseline is None:
        return wanted.accuracy
    reference = value_of(baseline, metric)
    better = metric.higher_is_better
    return reference * wanted.accuracy if better else reference / wanted.accuracy


def _is_met(value: float, worst: float | None, metric: Metric) -> bool:
    if worst is None:
        return True
    return value >= worst if metric.higher_is_better else value <= worst


def _is_sure(wanted: Requirements, found: Verdict, metric: Metric) -> bool:
    """Return whether the worse end of the 95 % interval passes the quality bar too."""
    if wanted.accuracy is None:
        return True
    if wanted.relative:
        return found.interval is not None and found.interval.low >= wanted.accuracy
    ends = _own_interval(found.run, metric)
    return ends is not None and all(_is_met(end, wanted.accuracy, metric) for end in ends)


def _own_interval(record: RunRecord, metric: Metric) -> tuple[float, float] | None:
    found = record.measurement(metric.name)
    if found is None or found.stderr is None or not math.isfinite(found.stderr):
        return None
    return found.value - Z95 * found.stderr, found.value + Z95 * found.stderr


class _Test(Protocol):
    """One run's test."""

    p_value: float
    n_examples: int
    method: str

    def fails(self) -> bool:
        """Return whether the run surely fails."""

    def enough(self, level: float) -> int | None:
        """Return how many examples would tell at this level, None if no number would."""


class _OfContrast:
    """A test of one number per document."""

    def __init__(self, found: Contrast) -> None:
        self._found = found
        self.n_examples, self.method = found.n_examples, found.method
        self.p_value = tilted_p_value(found.advantages, found.worst)

    @cached_property
    def _fails(self) -> bool:
        found = self._found
        is_below = found.advantages.mean() < 0
        return is_below and tilted_p_value(-found.advantages, -found.best) <= FAIL_LEVEL

    def fails(self) -> bool:
        return self._fails

    def enough(self, level: float) -> int | None:
        sums, n = self._found.advantages, self.n_examples
        if sums.mean() > 0:
            return examples_needed(sums, n, alpha=level, worst=self._found.worst)
        return examples_needed(-sums, n, alpha=FAIL_LEVEL, worst=-self._found.best)


class _OfErrors:
    """A test of the recorded values and standard errors alone.

    Parameters
    ----------
    pair : sequence of RunRecord
        The run, and the baseline of a relative bar.
    metric : Metric
    bar : float
    """

    def __init__(self, pair: Sequence[RunRecord], metric: Metric, bar: float) -> None:
        measured = [record.measurement(metric.name) for record in pair]
        self.n_examples = min((m.n for m in measured if m is not None), default=0)
        errors = [m.stderr for m in measured if m is not None and m.stderr is not None]
        relative = len(pair) == 2
        share = 1.0 if not relative else bar if metric.higher_is_better else 1 / bar
        level = share * value_of(pair[1], metric) if relative else bar
        distance = value_of(pair[0], metric) - level
        spread = math.hypot(errors[0], share * errors[-1] if relative else 0.0) if errors else 0.0
        is_known = len(errors) == len(pair) and spread > 0
        self._z = (distance if metric.higher_is_better else -distance) / spread if is_known else 0.0
        self.method = "independent" if is_known else ""
        self.p_value = 1 - NormalDist().cdf(self._z) if is_known else 1.0

    def fails(self) -> bool:
        return bool(self.method) and NormalDist().cdf(self._z) <= FAIL_LEVEL

    def enough(self, level: float) -> int | None:
        if not self._z:
            return None
        alpha = level if self._z > 0 else FAIL_LEVEL
        steps = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(0.8)
        return math.ceil(self.n_examples * (steps / self._z) ** 2)


def _test(
    record: RunRecord,
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
    scores: Scores,
) -> _Test:
    bar = float(wanted.accuracy or 0.0)
    pair = [record] if not wanted.relative or baseline is None else [record, baseline]
    mine, theirs = scores.of(record), None if len(pair) == 1 else scores.of(pair[1])
    if mine is not None and (len(pair) == 1 or theirs is not None):
        test = scores.derived(
            record,
            ("test", len(pair), bar),
            lambda: _of_contrast(contrast(mine, theirs, bar)),
            theirs,
        )
        if test is not None:
            return test
    return _OfErrors(pair, metric, bar)


def _of_contrast(found: Contrast | None) -> _OfContrast | None:
    return None if found is None or len(found.advantages) < 2 else _OfContrast(found)


def _limits(record: RunRecord, wanted: Requirements) -> list[tuple[float, str]]:
    """Return which limits a run exceeds: relative amounts, infinite if unmeasured, with words."""
    found: list[tuple[float, str]] = []
    asked: Mapping[str, tuple[float | None, float | None, str, float]] = {
        "size": (wanted.size_bytes, float(record.size_bytes or 0), "MB", 1e6),
        "latency": (wanted.latency_ms, _measured(record, LATENCY), "ms", 1.0),
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
            text = (
                f"takes {value / divisor:.4g} {unit}, {(value - limit) / divisor:.3g} over the"
                f" limit of {limit / divisor:.4g}"
            )
            found.append((value / limit - 1, text))
    return found


def _not_smaller(
    record: RunRecord, baseline: RunRecord | None, wanted: Requirements
) -> list[tuple[float, str]]:
    others = (wanted.latency_ms, wanted.memory_bytes, wanted.cost_per_1k_usd)
    if baseline is None or record.model != baseline.model or not baseline.size_bytes:
        return []
    if any(limit is not None for limit in others):
        return []
    if (record.size_bytes or 0) < baseline.size_bytes:
        return []
    return [(1e-9, f"is not smaller than {_whose(baseline)}")]


def _measured(record: RunRecord, name: str) -> float | None:
    found = record.measurement(name)
    return None if found is None or not math.isfinite(found.value) else found.value


def _cost(record: RunRecord, wanted: Requirements) -> float | None:
    found = None if wanted.cost is None else wanted.cost.of(record)
    return None if found is None else found.per_1k_usd


def _whose(reference: RunRecord | None, base: str = "the base model") -> str:
    """Return what quality refers to, in words: the base model, or a run by its name."""
    if reference is None or is_baseline(reference):
        return base
    return f"{reference.label} (run {reference.id})"


def _of(reference: RunRecord | None) -> str:
    return f"{_whose(reference, 'the baseline')}'s"


def _missed(
    record: RunRecord,
    quality: float | None,
    baseline: RunRecord | None,
    metric: Metric,
    wanted: Requirements,
) -> tuple[float, str]:
    """Return by what share the measured quality misses the bar, 0 if it does not, with words."""
    if wanted.accuracy is None:
        return 0.0, ""
    bar, value = wanted.accuracy, value_of(record, metric)
    text = f"has {metric.name} {value:.4g}"
    if wanted.relative:
        whose = _of(baseline)
        if quality is None:
            return 0.0, f"{text}, where {bar:.1%} of {whose} quality is asked"
        asked = f"{quality:.1%} of {whose} quality, where {bar:.1%} is asked"
        return max(0.0, 1 - quality / bar), f"{text}, {asked}"
    gap = bar - value if metric.higher_is_better else value - bar
    amount = max(0.0, gap) / max(abs(bar), abs(value), 1e-12)
    return amount, f"{text}, where {bar:.4g} is asked"


def _name(record: RunRecord, baseline: RunRecord | None) -> str:
    same = baseline is None or record.model == baseline.model
    return record.label if same else f"{record.model}, {record.label}"


def _words(
    wanted: Requirements,
    metric: Metric,
    baseline: RunRecord | None,
    found: Verdict,
    verdicts: Sequence[Verdict],
    surely: bool,
) -> str:
    """Return what people read."""
    tests, run = wanted.confidence is not None, found.run
    asked = f" Asked: {wanted}." if tests else ""
    tally = _tally(verdicts) if tests else ""
    if found.answer != PASSES:
        text = f"No run {'surely ' * tests}passes.{asked} Nearest is {_name(run, baseline)}: it "
        text += ", and it ".join(found.lacks) + "."
        return text + (_untold(found, metric) if tests else "") + tally
    size, whole = run.size_bytes or 0, (baseline.size_bytes or 0) if baseline else 0
    text = f"{_name(run, baseline)} passes with {size / 1e6:.2f} MB"
    if whole:
        text += f" ({size / whole:.0%} of {_whose(baseline, 'the baseline')})"
    text += f" and {metric.name} {value_of(run, metric):.4g}"
    if not tests and wanted.accuracy is not None and not wanted.relative:
        text += f", bar {wanted.accuracy:.4g}"
    if found.quality is not None:
        text += f" ({found.quality:.1%} of {_of(baseline)} quality"
        if found.interval is not None:
            low, high = found.interval.low, found.interval.high
            text += f", 95 % interval {low:.1%} to {high:.1%}, {found.interval.method}"
        text += ")"
    text += f".{asked}"
    if tests:
        return text + _rank(found, verdicts) + tally
    text += _doubt(wanted, metric, found, verdicts, surely)
    if whole and size >= whole:
        text += f" It is not smaller than {_whose(baseline, 'the baseline')}."
    return text


def _tally(verdicts: Sequence[Verdict]) -> str:
    passes, fails, unclear, out = (
        sum(v.answer == answer for v in verdicts) for answer in (PASSES, FAILS, UNCLEAR, LEFT_OUT)
    )
    larger = f", {out} {'is' if out == 1 else 'are'} not smaller and left out" if out else ""
    return (
        f" {passes} pass{'es' * (passes == 1)}, {fails} fail{'s' * (fails == 1)}, {unclear} cannot"
        f" be told{larger}."
    )


def _rank(found: Verdict, verdicts: Sequence[Verdict]) -> str:
    """Return among how many tested runs the chosen one is the smallest."""
    if found.p_value is None:
        return ""
    n_tested = sum(v.p_value is not None for v in verdicts)
    if n_tested == 1:
        return " It is the only run that was tested."
    return f" It is the smallest of {n_tested} tested runs that surely passes."


def _doubt(
    wanted: Requirements,
    metric: Metric,
    found: Verdict,
    verdicts: Sequence[Verdict],
    surely: bool,
) -> str:
    """Return among how many the chosen run is the best, or how its interval lies to the bar."""
    if wanted.accuracy is None:
        n_passing = sum(v.answer == PASSES for v in verdicts)
        if n_passing == 1:
            return " It is the only run within the limits."
        return f" It has the best {metric.name} of the {n_passing} runs within the limits."
    if surely:
        return ""
    own = _own_interval(found.run, metric)
    if wanted.relative and found.interval is not None:
        return f" The lower end of the interval is below the bar of {wanted.accuracy:.1%}."
    if not wanted.relative and own is not None:
        return (
            f" The 95 % interval of its {metric.name}, {own[0]:.4g} to {own[1]:.4g}, reaches"
            " beyond the bar."
        )
    return ""


def _untold(found: Verdict, metric: Metric) -> str:
    """Return why a test could not tell."""
    if found.answer != UNCLEAR or found.p_value is None:
        return ""
    if not found.method:
        return (
            f" How sure its {metric.name} is cannot be told: no standard error was recorded, or all"
            " examples are of one document."
        )
    one = found.n_examples == 1
    text = " The one example is" if one else f" The {found.n_examples:,} examples are"
    text += " too few to tell"
    if found.enough_examples is not None:
        return text + f"; about {found.enough_examples:,} would be enough, if it is as it looks."
    return text + ": it lies so near to the bar that no number of examples would be enough."
