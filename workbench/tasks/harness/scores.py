"""The metrics of a harness task: per document by the harness's rules, then with their errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.records import Metric
from workbench.tasks.harness.documents import HarnessRow
from workbench.tasks.harness.library import aggregation_names, in_words
from workbench.tasks.metrics import OfRows, aggregated
from workbench.tasks.outcomes import Outcomes

CHOICE_RULES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""Metrics of multiple choice that say which answer is given."""

_OWN_RULES: dict[str, dict[str, str]] = {
    "multiple_choice": {
        **dict.fromkeys(CHOICE_RULES, "mean"),
        "exact_match": "mean",
        "brier_score": "brier_score",
    },
    "loglikelihood": {"acc": "mean", "perplexity": "perplexity"},
    "loglikelihood_rolling": {
        "word_perplexity": "weighted_perplexity",
        "byte_perplexity": "weighted_perplexity",
        "bits_per_byte": "bits_per_byte",
    },
    "generate_until": {},
}
"""What is computed here, by output type: the metric and how it is aggregated."""

_NAMES = {"perplexity": "target_perplexity"}
"""Where a name means something else in the workbench: there perplexity is per token."""

_COLUMNS = (
    *("example", "document", "loss", "n_predictions", "kl", "n_correct", "n_bytes", "n_words"),
    *("label", "prediction", "confidence", "margin", "entropy", "log_probabilities", "answer"),
)
"""What outcomes have already; a metric of such a name would take its place."""

_NO_NUMBER = ("bypass", "likelihood")


@dataclass(frozen=True)
class Score:
    """One number that the harness reports.

    Attributes
    ----------
    name : str
        The metric's name here.
    source, filter : str
        The harness's names.
    aggregation : str
        The harness's name of it, empty where it is a function of the task's own.
    higher_is_better : bool
    """

    name: str
    source: str
    filter: str
    aggregation: str
    higher_is_better: bool

    @property
    def metric(self) -> Metric:
        unit = "bits/byte" if self.source == "bits_per_byte" else ""
        computed = aggregated(self.name, self.source, self.aggregation)
        return Metric(self.name, unit, self.higher_is_better, **computed)

    @property
    def column(self) -> str:
        """The column of the numbers that are aggregated; the metric's name if by their mean."""
        is_mean = self.aggregation in ("mean", "nanmean", "brier_score")
        return (
            self.name if is_mean else f"{self.name}:log" if self.is_log else f"{self.name}:number"
        )

    @property
    def is_log(self) -> bool:
        """Whether what is aggregated are log-likelihoods in nats."""
        return self.aggregation in ("perplexity", "weighted_perplexity", "bits_per_byte")

    @property
    def weight(self) -> str:
        """The column of a weighted mean's weights."""
        return f"{self.name}:weight"

    @property
    def item(self) -> str:
        """The column of what only the harness can aggregate, as JSON."""
        return f"{self.name}:item"


def scores_of(task: Any) -> list[Score]:
    """Return what a harness task reports, in its order: every metric by every filter."""
    known, better = aggregation_names(), task.higher_is_better()
    filters = [ensemble.name for ensemble in task._filters]
    found = []
    for filter_name in filters:
        for source, function in task.aggregation().items():
            if source in _NO_NUMBER:
                continue
            name = f"task_{source}" if source in _COLUMNS else _NAMES.get(source, source)
            found.append(
                Score(
                    name if len(filters) == 1 else f"{name},{filter_name}",
                    source,
                    filter_name,
                    known.get(function, ""),
                    bool(better.get(source, True)),
                )
            )
    return found


def is_scored_here(task: Any, scores: Sequence[Score]) -> bool:
    """Return whether scores follow from log-likelihoods by the harness's plain rules."""
    own = _OWN_RULES[task.OUTPUT_TYPE]
    plain = task.config.process_results is None and task.config.filter_list is None
    return plain and all(own.get(score.source) == score.aggregation for score in scores)


def choice_values(
    row: HarnessRow, logs: NDArray[np.float64], rule: str = "acc"
) -> NDArray[np.float64]:
    """Return one number per choice; the largest is the answer by this rule.

    Parameters
    ----------
    row : HarnessRow
    logs : ndarray of shape (requests,)
        Log-likelihoods in nats, the unconditional ones last.
    rule : str
        One of :data:`CHOICE_RULES`.
    """
    count = len(row.choices)
    values = logs[:count]
    if rule == "acc_mutual_info":
        return values - logs[count : 2 * count]
    if rule == "acc":
        return values
    lengths = [
        len(choice) if rule == "acc_norm" else len(choice.encode("utf-8")) for choice in row.choices
    ]
    with np.errstate(all="ignore"):
        return values / np.array(lengths, dtype=np.float64)


def choice_score(
    row: HarnessRow, logs: NDArray[np.float64], greedy: NDArray[np.bool_], source: str
) -> float:
    """Return one document's score, by the rules of ``ConfigurableTask.process_results``."""
    if source == "exact_match":
        return float(any(greedy[gold] for gold in row.golds))
    if source == "brier_score":
        chances = _softmax(choice_values(row, logs))
        right = np.zeros(len(chances))
        right[list(row.golds)] = 1.0
        return float(np.sum((chances - right) ** 2))
    return float(int(np.argmax(choice_values(row, logs, source))) in row.golds)


def choice_columns(
    rows: Sequence[HarnessRow], logs: NDArray[np.float64], rule: str, width: int
) -> dict[str, NDArray[Any]]:
    """Return what tells how sure a model is of its answers: see :class:`Outcomes`.

    A document with several right answers counts as one: its label is the first of them, and
    another right answer is the same prediction. One without any has the label ``width``.
    """
    named = ("label", "prediction", "confidence", "margin", "entropy")
    found: dict[str, list[float]] = {name: [] for name in named}
    missing = any(not row.golds for row in rows)
    all_logs = np.full((len(rows), width + missing), -6e4)
    for place, row in enumerate(rows):
        values = choice_values(row, logs[place, : len(row.continuations)], rule)
        values = values - values.max()
        log_chances = values - math.log(np.exp(values).sum())
        chances = np.exp(log_chances)
        best, second = int(np.argmax(values)), np.sort(chances)[-2:][0]
        all_logs[place, : len(values)] = log_chances
        found["label"].append(row.golds[0] if row.golds else width)
        found["prediction"].append(row.golds[0] if best in row.golds else best)
        found["confidence"].append(chances[best])
        found["margin"].append(chances[best] - second)
        found["entropy"].append(-float((chances * np.maximum(log_chances, -1e4)).sum()))
    columns: dict[str, NDArray[Any]] = {
        name: np.array(values, dtype=np.int64 if name in named[:2] else np.float64)
        for name, values in found.items()
    }
    columns["log_probabilities"] = all_logs.clip(min=-6e4).astype(np.float16)
    return columns


def item_columns(score: Score, items: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of what the harness made of every document; None where it made nothing."""
    if all(item is None or _is_number(item) for item in items):
        values = [math.nan if item is None else float(item) for item in items]
        return {score.column: np.array(values, dtype=np.float64)}
    if score.aggregation in ("weighted_perplexity", "bits_per_byte"):
        pairs = np.array([(0.0, 0.0) if item is None else item for item in items], dtype=np.float64)
        return {score.column: pairs[:, 0], score.weight: pairs[:, 1]}
    texts = [json.dumps(item, default=_plain) for item in items]
    return {score.item: np.array(texts, dtype=str)}


def _is_number(item: Any) -> bool:
    """Return whether something is one number, of Python or of an array library."""
    if isinstance(item, (bool, int, float)):
        return True
    return getattr(item, "ndim", None) == 0 and hasattr(item, "__float__")


def _plain(value: Any) -> Any:
    """Return a numpy number or array as JSON has it."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def items_of(score: Score, outcomes: Outcomes) -> list[Any] | None:
    """Return what the harness made of every document, None without it; those of none are None."""
    if score.item in outcomes:
        return [json.loads(str(item)) for item in outcomes[score.item]]
    if score.column not in outcomes:
        return None
    numbers = np.asarray(outcomes[score.column], dtype=np.float64).tolist()
    return [None if math.isnan(number) else number for number in numbers]


def aggregation(name: str, items: list[Any], function: Callable[[Any], float]) -> OfRows:
    """Return what aggregates the items of some documents by the harness's function."""

    def of(rows: NDArray[np.int64]) -> float:
        made = [items[i] for i in rows if items[i] is not None]  # of some documents it makes none
        try:
            return float(function(made)) if made else math.nan
        except MemoryError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The harness cannot make one number of all documents' {name}: {in_words(error)}."
            ) from error

    return of


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
