"""Which answers changed by compression, and which mistakes a model is sure of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import clustered_ratio, interval

CONFIDENT = 0.9
"""Confidence from which a mistake counts as a confident one."""


@dataclass(frozen=True)
class Flips:
    """Examples whose answer differs from the dense model's.

    Attributes
    ----------
    rate : float
        Share of the examples that changed.
    interval : (float, float)
        95 %, clustered by document.
    lost, gained, other : ndarray of int64
        Rows of the outcomes: right before and wrong now, the other way round, and wrong both times
        but differently.
    """

    rate: float
    interval: tuple[float, float]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    other: NDArray[np.int64]


def find_flips(dense: Outcomes, run: Outcomes) -> Flips:
    """Compare the predictions of two models on the same examples.

    Raises
    ------
    ConfigError
        If the examples differ, or are not classified.
    """
    check_same(dense, run)
    label = np.asarray(run["label"])
    before, now = np.asarray(dense["prediction"]), np.asarray(run["prediction"])
    changed = before != now
    rate, low, high = _rate(changed, run)
    return Flips(
        rate,
        (low, high),
        np.flatnonzero(changed & (before == label)),
        np.flatnonzero(changed & (now == label)),
        np.flatnonzero(changed & (before != label) & (now != label)),
    )


def confidently_wrong(
    outcomes: Outcomes, threshold: float = CONFIDENT, confidence: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], float, tuple[float, float]]:
    """Find mistakes that the model is sure of.

    Parameters
    ----------
    outcomes : Outcomes
    threshold : float
        Least confidence.
    confidence : ndarray of shape (examples,), optional
        In place of the recorded one, such as at a fitted temperature.

    Returns
    -------
    rows : ndarray of int64
        Surest first.
    rate : float
        Share of all examples.
    interval : (float, float)
        95 %, clustered by document.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold} is not accepted; give a share from 0 to 1.")
    check_classified(outcomes)
    sure = np.asarray(outcomes["confidence"] if confidence is None else confidence, dtype=float)
    wrong = np.asarray(outcomes["label"]) != np.asarray(outcomes["prediction"])
    bad = wrong & (sure >= threshold)
    rows = np.flatnonzero(bad)
    rate, low, high = _rate(bad, outcomes)
    return rows[np.argsort(-sure[rows], kind="stable")], rate, (low, high)


def check_classified(outcomes: Outcomes) -> None:
    """Raise ConfigError unless there is one label and one prediction per example."""
    if not outcomes.is_classified:
        raise ConfigError(
            "This looks at one prediction per example, which classification tasks have; language"
            " modelling has many. Use a study of a TextClassification task."
        )


def check_same(one: Outcomes, other: Outcomes) -> None:
    """Raise ConfigError unless both are classified outcomes of the same examples."""
    check_classified(one)
    check_classified(other)
    if not np.array_equal(one["example"], other["example"]):
        raise ConfigError(
            f"The two evaluations have {len(one)} and {len(other)} examples that are not the same."
        )


def _rate(chosen: NDArray[np.bool_], outcomes: Outcomes) -> tuple[float, float, float]:
    clusters = outcomes["document"]
    rate, stderr = clustered_ratio(chosen, np.ones(len(chosen)), clusters)
    low, high = interval(rate, stderr, len(np.unique(clusters)))
    return rate, max(0.0, low), min(1.0, high)
