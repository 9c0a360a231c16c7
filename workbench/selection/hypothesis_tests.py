"""Is a run as good as the bar? A test of paired examples, and one for many runs at once.

One number per cluster of examples says by how much the run beats the bar there; the run truly
passes if their expectation is above zero. The test asks how likely such a sum is for a run that
lies just below the bar. What makes it hold with few examples, where most of them agree and the
usual t statistic rejects far too often, is that the spread is taken under the hypothesis: the
examples are weighted until the run lies on the bar (Efron 1981, Nonparametric standard errors and
confidence intervals, section 11; Davison and Hinkley 1997, Bootstrap Methods, section 4.4), and one
more example that the run gets wrong is added, as adjusted empirical likelihood does (Chen,
Variyath and Abraham 2008). The tail is the saddlepoint's (Lugannani and Rice 1980), not drawn.

Of many runs the smallest that passes is wanted. Testing from the largest to the smallest and
stopping at the first that does not pass needs no correction, but one bad large run would end it,
and pruned runs are large and may be bad. The fallback procedure (Wiens 2003, Pharmaceutical
Statistics 2, 211-215) deals the allowed error out over all runs and hands the share of each run
that passes on to the next smaller one: with every run passing it is the stop-at-the-first rule,
with none Bonferroni's. Here it is the graph of Bretz, Maurer, Brannath and Posch (2009,
Statistics in Medicine 28, 586-604), whose last run hands its share back to the others. The
chance that any run is called passing that truly fails, hence also the chosen one, is at most alpha,
whatever the runs have in common.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER = 0.8
"""Chance to tell, of the number of examples that is said to be enough."""

MOST_EXAMPLES = 10_000_000
"""More than these are called no number of examples that would do."""

_NORMAL = NormalDist()


def tilted_p_value(advantages: ArrayLike, worst: float = 0.0) -> float:
    """Return the chance of a mean so high if its expectation were zero (one-sided).

    Parameters
    ----------
    advantages : array-like of shape (clusters,)
        By how much each cluster of examples beats the bar; independent of each other.
    worst : float
        What one example that the run gets wrong counts. The one that is added is as bad as this,
        as the worst that was seen, and as the mean is good, whichever is worst.

    Returns
    -------
    float
        Between 0 and 1; 1 with fewer than two clusters.
    """
    values = np.asarray(advantages, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return 1.0
    points, counts = np.unique(values, return_counts=True)  # right or wrong: a handful of values
    return _p_value(points, counts.astype(np.float64), worst)


def _p_value(
    points: NDArray[np.float64], times: NDArray[np.float64], worst: float, more: float = 1.0
) -> float:
    """Return the test's p-value of values that occur so often, ``more`` times as many."""
    times = more * times
    mean = float((times * points).sum() / times.sum())
    points = np.append(points, min(worst, float(points.min()), -mean, 0.0))
    times = np.append(times, 1.0)
    count = float(times.sum())
    mean = float((times * points).sum() / count)
    spread = math.sqrt(float((times * (points - mean) ** 2).sum() / count))
    scale = float(np.abs(points).max())
    if scale == 0 or spread < 1e-12 * scale:
        return 1.0 if mean <= 0 else 0.0
    if mean < 0:
        return 1.0 - _tail(-points, times, -mean, spread)
    return _tail(points, times, mean, spread)


def _tail(
    points: NDArray[np.float64], times: NDArray[np.float64], mean: float, spread: float
) -> float:
    """Return the saddlepoint's tail of a mean above zero, zero's own where it is zero."""
    count, scale = float(times.sum()), float(np.abs(points).max())
    if points.min() >= 0:  # no weights put the mean at zero
        return 0.0
    if mean <= 1e-12 * scale:
        return 0.5

    def weighted(tilt: float) -> tuple[float, float]:
        exponents = tilt * points
        weights = times * np.exp(exponents - exponents.max())
        weights /= weights.sum()
        mean = float(weights @ points)
        return mean, float(weights @ (points - mean) ** 2)

    low, high = -1.0 / scale, 0.0
    while weighted(low)[0] > 0:
        low, high = 2 * low, low
    tilt = (low + high) / 2
    for _ in range(100):  # Newton's method within a bracket that shrinks
        found, slope = weighted(tilt)
        low, high = (low, tilt) if found > 0 else (tilt, high)
        step = tilt - found / slope if slope > 0 else math.nan
        best = step if low < step < high else (low + high) / 2
        if abs(best - tilt) <= 1e-14 * abs(tilt):
            break
        tilt = best
    exponents = tilt * points
    top = float(exponents.max())
    log_mean = top + math.log(float((times * np.exp(exponents - top)).sum()) / count)
    root = math.sqrt(max(0.0, 2 * count * (log_mean - tilt * mean)))
    wald = -tilt * math.sqrt(count) * spread
    if root < 1e-4 or wald < 1e-4:
        return 0.5
    tail = 0.5 * math.erfc(root / math.sqrt(2))
    return min(1.0, max(0.0, tail + _NORMAL.pdf(root) * (1 / wald - 1 / root)))


def reject_in_order(
    p_values: ArrayLike, alpha: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Test hypotheses in a fixed order by the fallback graph; at most ``alpha`` of any error.

    Parameters
    ----------
    p_values : array-like of shape (hypotheses,)
        In an order that was fixed without looking at them (here: from the largest run on).
    alpha : float
        Most chance of rejecting any hypothesis that is true.

    Returns
    -------
    rejected : ndarray of shape (hypotheses,), bool
    levels : ndarray of shape (hypotheses,), float64
        The level at which each was tested last.
    """
    found = np.asarray(p_values, dtype=np.float64)
    count = len(found)
    rejected = np.zeros(count, dtype=bool)
    levels = np.full(count, alpha / max(count, 1))
    # Each open hypothesis hands its level on to the next open one, the last one to all others by
    # these shares. So only the open ones in order and the last one's shares are kept.
    shares = np.full(count, 1.0 / max(count - 1, 1))
    chain = np.arange(count)
    while len(chain):
        others, last = chain[:-1], chain[-1]
        for place in np.flatnonzero(found[others] <= levels[others]):
            while place < len(others) and not rejected[others[place]]:
                this, following = others[place], chain[place + 1]
                if found[this] > levels[this]:
                    break
                rejected[this] = True
                levels[following] += levels[this]
                if following == last:
                    shares[others] /= 1.0 - shares[this] if shares[this] < 1 else np.inf
                else:
                    shares[following] += shares[this]
                place += 1
        others = others[~rejected[others]]
        if found[last] > levels[last]:
            break
        rejected[last] = True
        levels[others] += levels[last] * shares[others]
        if len(others):
            left = 1.0 - shares[others[-1]]
            shares[others] /= left if left > 0 else np.inf
        chain = others
    return rejected, levels


def examples_needed(
    advantages: ArrayLike,
    n_examples: int,
    *,
    alpha: float,
    worst: float = 0.0,
    power: float = POWER,
) -> int | None:
    """Return how many examples would prove that a run is above the bar, as it looks now.

    Parameters
    ----------
    advantages : array-like of shape (clusters,)
    worst : float
        As for :func:`tilted_p_value`.
    n_examples : int
        How many examples the clusters hold.
    alpha, power : float
        Level of the test, and the chance that it then tells.

    Returns
    -------
    int or None
        At least ``n_examples``. None where the run does not lie above the bar, or so little that
        no number would do.
    """
    values = np.asarray(advantages, dtype=np.float64)
    if len(values) < 2 or values.mean() <= 0:
        return None
    points, counts = np.unique(values, return_counts=True)
    times = counts.astype(np.float64)
    spread = float(values.std(ddof=1))
    steps = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    low = high = max(1.0, (steps * spread / float(values.mean())) ** 2 / len(values))
    most = MOST_EXAMPLES / n_examples

    def tells(more: float) -> bool:  # also where the mean comes out lower, by chance
        lower = _NORMAL.inv_cdf(power) * spread / math.sqrt(more * len(values))
        return _p_value(points - lower, times, worst, more) <= alpha

    # few examples that differ, and the one that is added, ask for more than the normal law does
    while high <= most and not tells(high):
        low, high = high, 2 * high
    for _ in range(20 if high > low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return math.ceil(n_examples * high) if high <= most else None
