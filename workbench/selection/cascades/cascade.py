"""What a cascade of models will do, from stored outcomes alone; nothing is run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.selection.cascades.latency import Percentiles, paths_of, percentiles
from workbench.selection.cascades.signals import Signal, surety
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import (
    Difference,
    clustered_ratio,
    estimate_ratio,
    interval,
    paired_difference,
)

STEPS = 101
"""Thresholds that are tried for the first of two tiers; fewer each with more tiers."""

MOST_COMBINATIONS = 4000


@dataclass(frozen=True)
class Tier:
    """One model of a cascade.

    Attributes
    ----------
    name : str
    cost : float
        Of one query to it.
    validation, evaluation : Outcomes
        With ``log_probabilities``.
    latency_ms : float or None
        Of one query to it, where it was measured.
    times_ms : tuple of float
        Of single texts, the same ones for every tier, where they were measured; else empty.
    """

    name: str
    cost: float
    validation: Outcomes
    evaluation: Outcomes
    latency_ms: float | None = None
    times_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class CascadePoint:
    """A cascade at given thresholds, on one part of the data.

    Attributes
    ----------
    thresholds : tuple of float
        Of every tier but the last: a query stays where the signal is at least so high.
    accuracy, cost : float
        Means over queries; a query pays for every tier that it passes through.
    shares : tuple of float
        Of the queries that each tier answers.
    latency_ms : float or None
        Mean, where every tier's was measured.
    percentiles : Percentiles or None
        Of a query's latency, see :class:`workbench.selection.cascades.latency.Paths`; None where
        the times of single texts were not measured for every tier.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    cost: float
    shares: tuple[float, ...]
    latency_ms: float | None
    percentiles: Percentiles | None = None


@dataclass(frozen=True)
class Cascade:
    """A cascade with thresholds chosen on the validation part and reported on the evaluation part.

    Attributes
    ----------
    tiers : tuple of str
    costs : tuple of float
        Of one query to each.
    validation, evaluation : CascadePoint
        At the chosen thresholds.
    accuracy_interval, share_interval : (float, float)
        95 %, clustered by document, of the evaluation's accuracy and of the share that the first
        tier keeps.
    curve : tuple of CascadePoint
        Over all thresholds on the evaluation part: those that nothing beats in accuracy and cost.
        To look at, not to choose by.
    single : str
        The best single model that costs no more.
    single_accuracy, single_cost : float
    difference : Difference
        Accuracy of the cascade minus that of the single model, on the same examples.
    winner : {"cascade", "single", "neither surely"}
    met : bool
        Whether the accuracy that was asked for was reached on the validation part.
    alone : tuple of CascadePoint
        Each tier asked alone, on the evaluation part: its accuracy, cost and latency.
    """

    tiers: tuple[str, ...]
    costs: tuple[float, ...]
    validation: CascadePoint
    evaluation: CascadePoint
    accuracy_interval: tuple[float, float]
    share_interval: tuple[float, float]
    curve: tuple[CascadePoint, ...]
    single: str
    single_accuracy: float
    single_cost: float
    difference: Difference
    winner: str
    met: bool
    alone: tuple[CascadePoint, ...] = ()


def cascade(
    tiers: Sequence[Tier],
    signal: Signal,
    *,
    accuracy: float = 1.0,
    singles: Sequence[tuple[str, float, Outcomes]] = (),
) -> Cascade:
    """Choose thresholds on the validation part and report on the evaluation part.

    Of all thresholds that reach ``accuracy`` on validation the cheapest are chosen; if none does,
    the most accurate.

    Parameters
    ----------
    tiers : sequence of Tier
        The first is asked first.
    signal : callable
        See :mod:`workbench.selection.cascades.signals`.
    accuracy : float
        Least share of the last tier's accuracy on the validation part.
    singles : sequence of (name, cost, outcomes)
        Further models to compare with, on the evaluation part; the tiers are among them anyway.

    Raises
    ------
    ConfigError
        If there are fewer than two tiers, they were measured on other examples, or an outcome has
        no probabilities.
    """
    if len(tiers) < 2:
        raise ConfigError(f"A cascade needs two models or more; {len(tiers)} were given.")
    if not 0 < accuracy <= 2:
        raise ConfigError(
            f"accuracy={accuracy} is not accepted; give a share of the last model's accuracy, such"
            " as 1.0 or 0.99."
        )
    validation, evaluation = _Part(tiers, "validation", signal), _Part(tiers, "evaluation", signal)
    candidates = [validation.at(thresholds) for thresholds in _grid(validation)]
    least = accuracy * float(validation.right[-1].mean())
    good = [point for point in candidates if point.accuracy >= least - 1e-12]
    if good:
        chosen = min(good, key=lambda point: (point.cost, -point.accuracy))
    else:
        chosen = max(candidates, key=lambda point: (point.accuracy, -point.cost))
    answered, right = evaluation.route(chosen.thresholds)
    report = evaluation.timed(evaluation.at(chosen.thresholds))
    clusters = evaluation.documents
    of_cascade = estimate_ratio(right, np.ones(len(right)), clusters)
    kept = clustered_ratio(answered == 0, np.ones(len(right)), clusters)
    n_clusters = of_cascade.n_clusters
    others = [(t.name, t.cost, t.evaluation) for t in tiers] + list(singles)
    affordable = [one for one in others if one[1] <= report.cost * (1 + 1e-9)]
    scored = []
    for name, cost, outcomes in affordable:
        _check_examples(name, outcomes, tiers[0].evaluation)
        scored.append((float(_right(outcomes).mean()), -cost, name, outcomes))
    single = max(scored, key=lambda one: one[:2])
    of_single = estimate_ratio(_right(single[3]), np.ones(len(right)), clusters)
    difference = paired_difference(of_cascade, of_single)
    winner = "neither surely"
    if difference.low > 0:
        winner = "cascade"
    elif difference.high < 0:
        winner = "single"
    return Cascade(
        tiers=tuple(tier.name for tier in tiers),
        costs=tuple(tier.cost for tier in tiers),
        validation=validation.timed(chosen),
        evaluation=report,
        accuracy_interval=_within(interval(of_cascade.value, of_cascade.stderr, n_clusters)),
        share_interval=_within(interval(kept[0], kept[1], n_clusters)),
        curve=tuple(
            evaluation.timed(point)
            for point in _front([evaluation.at(thresholds) for thresholds in _grid(evaluation)])
        ),
        single=single[2],
        single_accuracy=single[0],
        single_cost=-single[1],
        difference=difference,
        winner=winner,
        met=bool(good),
        alone=tuple(_alone(tier) for tier in tiers),
    )


def _alone(tier: Tier) -> CascadePoint:
    """Return what a model does that answers every query itself."""
    right = float(_right(tier.evaluation).mean())
    times = percentiles(tier.times_ms) if tier.times_ms else None
    return CascadePoint((), right, tier.cost, (1.0,), tier.latency_ms, times)


def _within(ends: tuple[float, float]) -> tuple[float, float]:
    """Return an interval of a share; none lies beyond 0 and 1."""
    return max(0.0, ends[0]), min(1.0, ends[1])


class _Part:
    """All tiers on one part: what each would answer, and how sure it is."""

    def __init__(self, tiers: Sequence[Tier], part: str, signal: Signal) -> None:
        tables: list[Outcomes] = [getattr(tier, part) for tier in tiers]
        for tier, table in zip(tiers, tables, strict=True):
            _check_examples(tier.name, table, tables[0])
            if "log_probabilities" not in table:
                raise ConfigError(
                    f"The outcomes of {tier.name!r} have no probabilities per class, which the"
                    " signal is computed from; routing needs a TextClassification task of at most"
                    " 256 classes."
                )
        self.costs = np.cumsum([tier.cost for tier in tiers])
        times = [tier.latency_ms for tier in tiers]
        self.times = None if None in times else np.cumsum(np.array(times, dtype=np.float64))
        self.paths = paths_of([tier.times_ms for tier in tiers])
        self.right = [_right(table) for table in tables]
        self.sure = [surety(signal, _logs(table)) for table in tables[:-1]]
        self.documents = np.asarray(tables[0]["document"])

    def route(self, thresholds: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return which tier answers each query, and whether it is right."""
        answered = np.full(len(self.documents), len(thresholds), dtype=np.int64)
        for tier in range(len(thresholds) - 1, -1, -1):
            answered[self.sure[tier] >= thresholds[tier]] = tier
        right = np.choose(answered, self.right)
        return answered, right

    def at(self, thresholds: tuple[float, ...]) -> CascadePoint:
        """Return what comes of thresholds, without percentiles: they are asked of few points."""
        answered, right = self.route(thresholds)
        counts = np.bincount(answered, minlength=len(self.costs)) / len(answered)
        return CascadePoint(
            thresholds,
            float(right.mean()),
            float(counts @ self.costs),
            tuple(float(share) for share in counts),
            None if self.times is None else float(counts @ self.times),
        )

    def timed(self, point: CascadePoint) -> CascadePoint:
        """Return a point with the percentiles of its latency, where they are known."""
        if self.paths is None:
            return point
        return replace(point, percentiles=self.paths.mixed(point.shares))


def _grid(part: _Part) -> list[tuple[float, ...]]:
    """Return combinations of thresholds: quantiles of each tier's signal, and "pass all on"."""
    count = len(part.sure)
    each = STEPS if count == 1 else max(3, int(MOST_COMBINATIONS ** (1 / count)))
    levels = []
    for sure in part.sure:
        found = np.unique(np.quantile(sure, np.linspace(0, 1, each), method="lower"))
        levels.append([*(float(level) for level in found), float("inf")])
    return list(itertools.product(*levels))


def _front(points: list[CascadePoint]) -> tuple[CascadePoint, ...]:
    kept: list[CascadePoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return tuple(kept)


def _right(outcomes: Outcomes) -> NDArray[np.float64]:
    return (np.asarray(outcomes["label"]) == np.asarray(outcomes["prediction"])).astype(np.float64)


def _logs(outcomes: Outcomes) -> NDArray[np.floating]:
    return np.asarray(outcomes["log_probabilities"])


def _check_examples(name: str, outcomes: Outcomes, first: Outcomes) -> None:
    if not outcomes.is_classified:
        raise ConfigError(
            f"The outcomes of {name!r} have no label and prediction per example; routing needs a"
            " TextClassification task."
        )
    if not np.array_equal(outcomes["example"], first["example"]):
        raise ConfigError(f"{name!r} was evaluated on other examples than the first model.")


def facts(found: Cascade) -> list[dict[str, str | float | None]]:
    """Return the cascade, each of its models alone, and the best single model as rows of a table.

    Returns
    -------
    list of dict
        ``what``, ``accuracy``, ``cost``, ``first_answers`` (a share), ``latency_ms`` (mean),
        ``p50_ms``, ``p95_ms`` and ``p99_ms``; None where something was not measured.
    """
    rows = [_facts("cascade", found.evaluation)]
    rows += [
        _facts(f"{name} alone", point) for name, point in zip(found.tiers, found.alone, strict=True)
    ]
    if found.single not in found.tiers:
        best = CascadePoint((), found.single_accuracy, found.single_cost, (1.0,), None)
        rows.append(_facts(f"{found.single} alone", best))
    return rows


def _facts(what: str, point: CascadePoint) -> dict[str, str | float | None]:
    times = point.percentiles
    return {
        "what": what,
        "accuracy": point.accuracy,
        "cost": point.cost,
        "first_answers": point.shares[0] if len(point.shares) > 1 else None,
        "latency_ms": point.latency_ms,
        "p50_ms": None if times is None else times.p50,
        "p95_ms": None if times is None else times.p95,
        "p99_ms": None if times is None else times.p99,
    }
