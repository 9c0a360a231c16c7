"""Standard errors that respect clusters: examples of one document are not independent.

Every estimate carries its influence per cluster: how much each cluster moves it, to first order.
The cluster-robust variance is then G / (G - 1) times the sum of squared influences, a smooth
function of an estimate rescales them, and the difference of two models on the same examples is a
difference of influences, so that what both models find hard cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_GROUPS = 100
"""Most groups that the jackknife leaves out in turn; more clusters are dealt out over them."""


@dataclass(frozen=True)
class Estimate:
    """A number computed from clustered examples.

    Attributes
    ----------
    value : float
    influence : ndarray of shape (clusters,), float64
        First-order change of ``value`` that each cluster is responsible for; sums to about zero.
    """

    value: float
    influence: FloatArray = field(repr=False, compare=False)

    @property
    def n_clusters(self) -> int:
        """Number of clusters (or of jackknife groups)."""
        return len(self.influence)

    @property
    def stderr(self) -> float | None:
        """Cluster-robust standard error; None with fewer than two clusters or if not finite."""
        count = self.n_clusters
        if count < 2:
            return None
        with np.errstate(all="ignore"):
            stderr = math.sqrt(count / (count - 1) * float(np.sum(self.influence**2)))
        return stderr if math.isfinite(stderr) else None

    def transform(self, value: float, derivative: float) -> Estimate:
        """Return a smooth function of this estimate by the delta method.

        Parameters
        ----------
        value : float
            The function at ``self.value``.
        derivative : float
            Its derivative there.
        """
        with np.errstate(all="ignore"):
            return Estimate(value, self.influence * derivative)

    def exp(self) -> Estimate:
        """Return e to the power of this estimate: perplexity from the mean loss in nats."""
        value = math.exp(self.value) if self.value < 700 else math.inf
        value = math.nan if math.isnan(self.value) else value
        return self.transform(value, value)


@dataclass(frozen=True)
class Difference:
    """The difference (or ratio) of two estimates on the same examples.

    Attributes
    ----------
    value : float
    stderr : float or None
        Paired and clustered; None where it cannot be estimated.
    low, high : float
        95 % interval from Student's t with one degree of freedom fewer than clusters; infinite
        where ``stderr`` is None.
    """

    value: float
    stderr: float | None
    low: float
    high: float


def estimate_ratio(numerator: ArrayLike, denominator: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Estimate sum(numerator) / sum(denominator), linearised per cluster.

    Parameters
    ----------
    numerator, denominator : array-like of shape (examples,)
        What is summed, such as losses and numbers of predictions.
    clusters : array-like of shape (examples,), int
        The cluster (document) of each example.

    Returns
    -------
    Estimate
        Its variance is ``G / (G - 1) * sum_g (sum_{i in g} num_i - r den_i)**2 / (sum den)**2``
        (the ratio estimator of survey sampling; Cochran 1977, Sampling Techniques, 6.4 and 9A.2).
        NaN without examples.
    """
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    cluster, count = _codes(clusters)
    total = float(bottom.sum())
    if total == 0:
        return Estimate(math.nan, np.full(count, np.nan))
    with np.errstate(all="ignore"):
        ratio = float(top.sum() / total)
        residuals = np.bincount(cluster, weights=top - ratio * bottom, minlength=count)
        return Estimate(ratio, residuals / total)


def estimate_statistic(
    statistic: Callable[[IntArray], float], clusters: ArrayLike, *, max_groups: int = MAX_GROUPS
) -> Estimate:
    """Estimate any statistic by the delete-a-group jackknife over clusters.

    Parameters
    ----------
    statistic : callable
        Takes the positions of the examples to use (int64, sorted) and returns a float.
    clusters : array-like of shape (examples,), int
        The cluster (document) of each example.
    max_groups : int
        With more clusters than this they are dealt out over so many groups, in sorted order.

    Returns
    -------
    Estimate
        Deterministic; ``influence`` has one entry per group.
    """
    cluster, count = _codes(clusters)
    everything = np.arange(len(cluster), dtype=np.int64)
    value = float(statistic(everything))
    if count < 2:
        return Estimate(value, np.zeros(count))
    n_groups = min(count, max_groups)
    group = cluster % n_groups
    without = np.array([statistic(everything[group != g]) for g in range(n_groups)], dtype=float)
    # (G - 1) / G · sum (theta_without - theta)**2 is the jackknife's variance
    return Estimate(value, (value - without) * (n_groups - 1) / n_groups)


def clustered_ratio(
    numerator: ArrayLike, denominator: ArrayLike, clusters: ArrayLike
) -> tuple[float, float | None]:
    """Return sum(numerator) / sum(denominator) and its clustered standard error.

    See :func:`estimate_ratio`; the error is None with fewer than two clusters.
    """
    estimate = estimate_ratio(numerator, denominator, clusters)
    return estimate.value, estimate.stderr


def paired_difference(a: Estimate, b: Estimate) -> Difference:
    """Return ``a - b`` of two models measured on the same clusters.

    Raises
    ------
    ValueError
        If the two were not computed from the same number of clusters.
    """
    _check_paired(a, b)
    with np.errstate(all="ignore"):
        return _difference(Estimate(a.value - b.value, a.influence - b.influence))


def paired_ratio(a: Estimate, b: Estimate) -> Difference:
    """Return ``a / b`` of two models measured on the same clusters, by the delta method.

    Raises
    ------
    ValueError
        If the two were not computed from the same number of clusters.
    """
    _check_paired(a, b)
    with np.errstate(all="ignore"):
        ratio = float(np.float64(a.value) / np.float64(b.value))
        return _difference(Estimate(ratio, (a.influence - ratio * b.influence) / b.value))


def interval(value: float, stderr: float | None, n_clusters: int) -> tuple[float, float]:
    """Return the 95 % interval of a value whose error was estimated from so many clusters."""
    if stderr is None or n_clusters < 2:
        return -math.inf, math.inf
    half = t_quantile(n_clusters - 1) * stderr
    return value - half, value + half


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Exact for one and two degrees of freedom, else by the expansion of Abramowitz and Stegun
    26.7.5, whose error is below 0.2 % from three on.
    """
    if degrees < 1:
        raise ValueError(f"degrees={degrees}: Student's t needs at least one degree of freedom.")
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (0.975 * 0.025)) / 2
    z, v = 1.959963984540054, float(degrees)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (power + 1) for power, term in enumerate(terms))


def _codes(clusters: ArrayLike) -> tuple[IntArray, int]:
    """Return clusters as codes 0 … G-1 in sorted order, and G."""
    unique, codes = np.unique(np.asarray(clusters), return_inverse=True)
    return codes.astype(np.int64), len(unique)


def _check_paired(a: Estimate, b: Estimate) -> None:
    if a.n_clusters != b.n_clusters:
        raise ValueError(
            f"The two estimates have {a.n_clusters} and {b.n_clusters} clusters; a paired"
            " comparison needs both models measured on the same examples."
        )


def _difference(estimate: Estimate) -> Difference:
    low, high = interval(estimate.value, estimate.stderr, estimate.n_clusters)
    return Difference(estimate.value, estimate.stderr, low, high)
