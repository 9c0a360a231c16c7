"""A metric of one evaluation: its value, its error, and how two models compare by it.

All follows from a :class:`~workbench.records.Metric` and the outcomes. Most metrics are a ratio of
two columns' sums behind a link; their sums per document give value, standard error, paired interval
and the contrast of a decision. What has to see all examples at once (macro-F1, a user's callable,
an aggregation of the harness) gives its influence per document, and the rest follows from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from workbench.errors import ConfigError
from workbench.records import DEFINITIONS, Measurement, Metric
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import (
    Estimate,
    FloatArray,
    IntArray,
    estimate_ratio,
    estimate_statistic,
    paired_difference,
    paired_ratio,
)

ACCURACY = Metric("accuracy")
ANSWER_PERPLEXITY = Metric("answer_perplexity", higher_is_better=False)
BITS_PER_BYTE = Metric("bits_per_byte", "bits/byte", higher_is_better=False)
EXACT_MATCH = Metric("exact_match")
F1 = Metric("f1")
KL = Metric("kl", "nats", higher_is_better=False)
"""KL divergence from the dense model's predictions to this model's, per prediction."""
LENGTH_ERROR = Metric("length_error", higher_is_better=False)
MACRO_F1 = Metric("macro_f1")
PERPLEXITY = Metric("perplexity", higher_is_better=False)
ROUGE_1, ROUGE_2, ROUGE_L = Metric("rouge_1"), Metric("rouge_2"), Metric("rouge_l")
TOKEN_ACCURACY = Metric("token_accuracy")

OfRows = Callable[[IntArray], float]
Statistic = Callable[[Outcomes], OfRows]
"""Takes outcomes and returns what computes a metric of some of their rows."""

_CORRELATIONS = ("spearman", "pearson")

_DERIVED: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "n_predictions": (("label",), np.ones_like),
    "n_correct": (("label", "prediction"), lambda label, prediction: label == prediction),
    "exact_match": (("exact",), lambda exact: exact),  # as PromptAnswers calls it
    "length_error": (("length_ratio",), lambda ratio: np.abs(1 - ratio)),
}
"""Columns that follow from others where outcomes lack them."""


def recorded_metrics(described: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return the metrics that a study recorded of its task, standard ones as they are now.

    Parameters
    ----------
    described : mapping
        With ``"metrics"``, one dict each, which had no definition in earlier versions, and
        ``"saved"``, what the task saved.
    """
    options = described.get("saved", {}).get("options", {})
    scores = {score["name"]: score for score in options.get("scores", ())}
    found = []
    for known in described["metrics"]:
        named = {key: known[key] for key in ("name", "unit", "higher_is_better")}
        if known["name"] in scores:
            score = scores[known["name"]]
            named |= aggregated(known["name"], score["source"], score["aggregation"])
        elif known["name"] == options.get("metric"):
            named |= {"numerator": f"{known['name']}:each", "statistic": "own"}
        elif known["name"] not in DEFINITIONS:
            named = dict(known)
        found.append(Metric(**named))
    return tuple(found)


def aggregated(name: str, source: str, aggregation: str) -> dict[str, Any]:
    """Return how the harness's aggregation makes a metric of per-example columns.

    Parameters
    ----------
    name, source : str
        The metric's name here, and in the harness.
    aggregation : str
        The harness's name of it; ``""`` for a function of the task's own.

    Returns
    -------
    dict
        Fields of :class:`Metric`.
    """
    logs, weights = f"-{name}:log", f"{name}:weight"
    if aggregation in ("mean", "nanmean", "brier_score"):
        ends = {"acc": (0.0, 1.0), "exact": (0.0, 1.0), "brier": (0.0, 2.0)}
        low, high = ends.get(source.split("_")[0], (None, None))
        return {"numerator": name, "skips_missing": True, "low": low, "high": high}
    if aggregation == "perplexity":
        return {"numerator": logs, "skips_missing": True, "link": "exp"}
    if aggregation in ("weighted_perplexity", "bits_per_byte"):
        link = "log2" if aggregation == "bits_per_byte" else "exp"
        return {"numerator": logs, "denominator": weights, "link": link}
    return {"statistic": "harness"}


@dataclass(frozen=True)
class Scored:
    """A metric of one evaluation, with what comparisons are made of.

    Attributes
    ----------
    metric : Metric
    estimate : Estimate
        The metric's value with its influence per document.
    documents : ndarray of shape (clusters,), int64
        Sorted.
    n_examples : int
    ratio : Estimate
        Before the link.
    top, bottom : ndarray of shape (clusters,), float64, or None
        Sums of numerator and denominator per document; None for a statistic of the whole set.
    """

    metric: Metric
    estimate: Estimate
    documents: IntArray
    n_examples: int
    ratio: Estimate
    top: FloatArray | None = None
    bottom: FloatArray | None = None

    def is_paired_with(self, other: Scored) -> bool:
        """Return whether both are of the same documents."""
        return np.array_equal(self.documents, other.documents)


@dataclass(frozen=True)
class Contrast:
    """By how much a run beats a bar, per document.

    Attributes
    ----------
    advantages : ndarray of shape (clusters,), float64
        Its expectation is above zero if, and only if, the run truly passes.
    worst, best : float
        What one example counts that the run gets wrong, and right, alone; 0 where that has no end.
    n_examples : int
    method : str
        ``"paired"``: run and baseline on the same examples; ``"own"``: an absolute bar.
    """

    advantages: FloatArray
    worst: float
    best: float
    n_examples: int
    method: str


def score_outcomes(
    metric: Metric, outcomes: Outcomes, statistic: Statistic | None = None
) -> Scored | None:
    """Compute a metric of one evaluation.

    Parameters
    ----------
    metric : Metric
    outcomes : Outcomes
    statistic : callable, optional
        Of metrics that are the user's callable or an aggregation of the harness; it is called only
        for those.

    Returns
    -------
    Scored or None
        None where the outcomes lack the columns and there is no statistic.
    """
    documents, cluster = np.unique(np.asarray(outcomes["document"]), return_inverse=True)
    count = len(documents)
    if metric.statistic in _CORRELATIONS:
        columns = [_column(outcomes, name) for name in (metric.numerator, metric.denominator)]
        return _correlated(metric, columns, documents, cluster, len(outcomes))
    top, bottom = _column(outcomes, metric.numerator), None
    if top is not None:
        bottom = _column(outcomes, metric.denominator) if metric.denominator else np.ones(len(top))
    if top is not None and bottom is not None:
        if metric.skips_missing:
            missing = np.isnan(top)
            top, bottom = np.where(missing, 0.0, top), np.where(missing, 0.0, bottom)
        sums = [np.bincount(cluster, c, count).astype(np.float64) for c in (top, bottom)]
        ratio = estimate_ratio(sums[0], sums[1], np.arange(count))
        value = _linked(metric.link, ratio)
        return Scored(metric, value, documents, len(outcomes), ratio, sums[0], sums[1])
    if metric.statistic == "macro_f1":
        labels, predictions = (np.asarray(outcomes[name]) for name in ("label", "prediction"))
        value = macro_f1(labels, predictions, cluster)
    elif statistic is not None:
        value = estimate_statistic(statistic(outcomes), cluster)
    else:
        return None
    return Scored(metric, value, documents, len(outcomes), value)


def _correlated(
    metric: Metric,
    columns: Sequence[FloatArray | None],
    documents: IntArray,
    cluster: IntArray,
    n_examples: int,
) -> Scored | None:
    """Return the correlation of two columns; its error comes from the jackknife."""
    x, y = columns
    if x is None or y is None:
        return None
    of_ranks = metric.statistic == "spearman"

    def correlation(rows: IntArray) -> float:
        pair = [rankdata(c[rows]) if of_ranks else c[rows] for c in (x, y)]
        if len(rows) < 2 or not all(np.ptp(one) > 0 for one in pair):
            return math.nan
        return float(np.corrcoef(pair)[0, 1])

    value = estimate_statistic(correlation, cluster)
    return Scored(metric, value, documents, n_examples, value)


def estimate(metric: Metric, outcomes: Outcomes, statistic: Statistic | None = None) -> Estimate:
    """Return a metric of one evaluation with its influence per document.

    Raises
    ------
    ConfigError
        If the outcomes lack what it is computed from.
    """
    found = score_outcomes(metric, outcomes, statistic)
    if found is None:
        raise ConfigError(
            f"The metric {metric.name!r} cannot be computed from these outcomes: they have the"
            f" columns {', '.join(outcomes.columns)}. Evaluate the model again."
        )
    return found.estimate


def measurement(metric: Metric, found: Estimate, n: int, part: str = "evaluation") -> Measurement:
    """Return an estimate as what is recorded of a run, with the version of its metric."""
    return Measurement(
        metric.name, found.value, metric.unit, n, found.stderr, part, version=metric.version
    )


def relative_interval(run: Scored, baseline: Scored) -> tuple[float, float] | None:
    """Return the 95 % interval of a run's quality relative to the baseline's, paired by document.

    Quality is the ratio of the values, inverted where lower is better. Behind ``exp`` it is
    symmetric on the logarithmic scale.

    Returns
    -------
    (low, high) or None
        None where the documents differ or no error can be estimated.
    """
    if not run.is_paired_with(baseline):
        return None
    pair = (run, baseline) if run.metric.higher_is_better else (baseline, run)
    if run.metric.link == "exp":
        found = paired_difference(pair[0].ratio, pair[1].ratio)
        low, high = (math.exp(min(end, 700.0)) for end in (found.low, found.high))
    else:
        found = paired_ratio(pair[0].estimate, pair[1].estimate)
        low, high = found.low, found.high
    is_known = found.stderr is not None and math.isfinite(found.value)
    return (low, high) if is_known else None


def contrast(run: Scored, baseline: Scored | None, bar: float) -> Contrast | None:
    """Return by how much a run beats the bar per document.

    Parameters
    ----------
    run : Scored
    baseline : Scored or None
        None for an absolute bar.
    bar : float
        Share of the baseline's quality, or the absolute value.

    Returns
    -------
    Contrast or None
        None where the two are not of the same documents.
    """
    metric, top, bottom = run.metric, run.top, run.bottom
    sign = 1.0 if metric.higher_is_better else -1.0
    if baseline is None:
        if top is None or bottom is None:
            sums = run.estimate.value - bar + run.estimate.n_clusters * run.estimate.influence
            return Contrast(sign * sums, 0.0, 0.0, run.n_examples, "own")
        sums = top - _unlinked(metric.link, bar) * bottom
        return Contrast(sign * sums, *_ends(metric, bar, 0.0), run.n_examples, "own")
    if not run.is_paired_with(baseline):
        return None
    share = bar if metric.higher_is_better else 1 / bar  # the most, where lower is better
    alike = bottom is not None and np.array_equal(bottom, np.asarray(baseline.bottom))
    if top is None or bottom is None or baseline.top is None or not alike:
        mine, theirs = run.estimate, baseline.estimate
        influence = mine.influence - share * theirs.influence
        sums = mine.value - share * theirs.value + mine.n_clusters * influence
        return Contrast(sign * sums, 0.0, 0.0, run.n_examples, "paired")
    if metric.link == "exp":
        sums = top - baseline.top - math.log(share) * bottom
    else:
        sums = top - share * baseline.top
    return Contrast(sign * sums, *_ends(metric, 0.0, share), run.n_examples, "paired")


def macro_f1(labels: IntArray, predictions: IntArray, clusters: IntArray) -> Estimate:
    """Return the mean F1 over the classes of the labels, linearised per cluster.

    Every model is averaged over the same classes, whatever it predicts. A class that is only
    predicted counts as a mistake of the others.

    Parameters
    ----------
    labels, predictions, clusters : ndarray of shape (examples,), int64
        Codes, zero or more.

    Returns
    -------
    Estimate
        Its value is ``sklearn.metrics.f1_score(labels, predictions, labels=numpy.unique(labels),
        average="macro")``; NaN without examples.
    """
    classes, label = np.unique(labels, return_inverse=True)
    count, groups = len(classes), int(clusters.max(initial=-1)) + 1
    if not count:
        return Estimate(math.nan, np.zeros(groups))
    place = np.minimum(np.searchsorted(classes, predictions), count - 1)
    is_class = classes[place] == predictions
    hit = labels == predictions
    total = np.bincount(label, minlength=count) + np.bincount(place[is_class], minlength=count)
    f1 = 2 * np.bincount(label[hit], minlength=count) / total
    # F1 of a class is the ratio 2 · hits / (labels + predictions)
    each = (2 * hit - f1[label]) / total[label] - np.where(is_class, f1[place] / total[place], 0.0)
    influence = np.bincount(clusters, weights=each, minlength=groups) / count
    return Estimate(float(f1.mean()), influence)


def _column(outcomes: Outcomes, name: str) -> FloatArray | None:
    """Return a column as float64, derived where outcomes lack it; None without it."""
    sign = -1.0 if name.startswith("-") else 1.0
    name = name.removeprefix("-")
    if name in outcomes:
        return sign * np.asarray(outcomes[name], dtype=np.float64)
    sources, derive = _DERIVED.get(name, ((), None))
    if derive is None or not all(source in outcomes for source in sources):
        return None
    found: NDArray[Any] = derive(*(np.asarray(outcomes[source]) for source in sources))
    return sign * found.astype(np.float64)


def _linked(link: str, ratio: Estimate) -> Estimate:
    if link == "exp":
        return ratio.exp()
    if link == "log2":
        return ratio.transform(ratio.value / math.log(2), 1 / math.log(2))
    return ratio


def _unlinked(link: str, value: float) -> float:
    if link == "exp":
        return math.log(value)
    return value * math.log(2) if link == "log2" else value


def _ends(metric: Metric, bar: float, share: float) -> tuple[float, float]:
    """Return what one example counts at its worst and best, against a bar and a share of another's.

    Zero where the range has no end, and behind a link, where an example's share has none.
    """
    if metric.low is None or metric.high is None or metric.link != "identity":
        return 0.0, 0.0
    low = metric.low - bar - share * metric.high
    high = metric.high - bar - share * metric.low
    return (low, high) if metric.higher_is_better else (-high, -low)
