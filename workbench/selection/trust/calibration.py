"""Does a model that says 90 % err in one of ten? Reliability, its error, and the temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import ConfigError
from workbench.tasks.outcomes import Outcomes

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Examples of similar confidence.

    Attributes
    ----------
    low, high : float
        Their confidence lies above ``low`` and at most at ``high``.
    n : int
    confidence, accuracy : float
        Means; NaN where the bin is empty.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram as numbers.

    Attributes
    ----------
    bins : tuple of Bin
        Of equal width.
    error : float
        The expected calibration error: the mean over examples of the distance between a bin's
        accuracy and its confidence (Guo et al. 2017, On Calibration of Modern Neural Networks).
    accuracy, confidence : float
        Over all examples.
    n : int
    """

    bins: tuple[Bin, ...]
    error: float
    accuracy: float
    confidence: float
    n: int


def reliability(confidence: ArrayLike, right: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compare how sure a model is with how often it is right.

    Parameters
    ----------
    confidence : array-like of shape (examples,)
        Between 0 and 1.
    right : array-like of shape (examples,), bool
    bins : int
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} is not accepted; give a whole number from 1 on.")
    sure = np.asarray(confidence, dtype=np.float64)
    hits = np.asarray(right, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    found, error = [], 0.0
    for number in range(bins):
        chosen = place == number
        n = int(chosen.sum())
        means = (float(sure[chosen].mean()), float(hits[chosen].mean())) if n else (np.nan,) * 2
        found.append(Bin(float(edges[number]), float(edges[number + 1]), n, *means))
        if n:
            error += n / len(sure) * abs(means[0] - means[1])
    n = len(sure)
    return Reliability(
        tuple(found),
        error if n else float("nan"),
        float(hits.mean()) if n else float("nan"),
        float(sure.mean()) if n else float("nan"),
        n,
    )


def fit_temperature(validation: Outcomes) -> float:
    """Return the temperature that makes the validation part's labels likeliest.

    Logits are divided by it: above 1 the model is too sure of itself. Predictions do not change.

    Parameters
    ----------
    validation : Outcomes
        With ``log_probabilities`` and ``label``; never of the part that is reported on.

    Raises
    ------
    ConfigError
        If the outcomes have no probabilities.
    """
    from scipy.optimize import minimize_scalar

    logs, label = _probabilities(validation)
    known = (label >= 0) & (label < logs.shape[1])
    if not known.any():
        return 1.0
    logs, label = logs[known], label[known]

    def loss(log_temperature: float) -> float:
        scaled = _log_softmax(logs / np.exp(log_temperature))
        return float(-scaled[np.arange(len(label)), label].mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(best.x))


def tempered(outcomes: Outcomes, temperature: float) -> NDArray[np.float64]:
    """Return the confidence of every prediction at a temperature, shape (examples,)."""
    logs, _ = _probabilities(outcomes)
    found: NDArray[np.float64] = np.exp(_log_softmax(logs / temperature).max(axis=1))
    return found


def _probabilities(outcomes: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if "log_probabilities" not in outcomes or not outcomes.is_classified:
        raise ConfigError(
            "These outcomes have no probabilities per class: they are of a language model, of a"
            " classifier with more than 256 classes, or of an earlier version (evaluate again with"
            " study.outcomes(run))."
        )
    logs = np.asarray(outcomes["log_probabilities"], dtype=np.float64)
    return logs, np.asarray(outcomes["label"], dtype=np.int64)


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
