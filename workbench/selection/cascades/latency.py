"""How long a query takes in a cascade: percentiles over the mixture of its paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds that so many percent of the queries stay within.

    Attributes
    ----------
    p50, p95, p99 : float or None
        None where too few times are known: of a share ``q`` of the queries nothing can be said
        with fewer than ``1 / (1 - q)`` times (20 for p95, 100 for p99).
    n : int
        Times that they were computed from.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    n: int

    def __str__(self) -> str:
        found = [("p50", self.p50), ("p95", self.p95), ("p99", self.p99)]
        known = [f"{name} {value:.3g} ms" for name, value in found if value is not None]
        return ", ".join(known) or "not measured"


def percentiles(times: ArrayLike) -> Percentiles:
    """Return the percentiles of times in milliseconds, shape (n,)."""
    values = np.asarray(times, dtype=np.float64)
    return _weighted(np.sort(values), np.ones(len(values)), len(values))


class Paths:
    """The times of a cascade's paths: a query that tier k answers pays for all tiers up to k.

    Parameters
    ----------
    times : sequence of sequence of float
        Milliseconds of the same texts in the same order, by tier. Where one tier knows fewer texts
        only those that all know count.
    """

    def __init__(self, times: Sequence[Sequence[float]]) -> None:
        self.n = min(map(len, times))
        sums = np.cumsum([np.asarray(tier[: self.n], dtype=np.float64) for tier in times], axis=0)
        order = np.argsort(sums, axis=None, kind="stable")
        self._tier = np.repeat(np.arange(len(times)), self.n)[order]
        self._sorted = sums.ravel()[order]

    def mixed(self, shares: Sequence[float]) -> Percentiles:
        """Return the percentiles if each tier answers so large a share of the queries.

        Every path takes the times of all texts: which tier answers is taken not to depend on how
        long a text is.

        Parameters
        ----------
        shares : sequence of float
            By tier; they sum up to 1.
        """
        return _weighted(self._sorted, np.asarray(shares)[self._tier], self.n)


def paths_of(times: Sequence[Sequence[float] | None]) -> Paths | None:
    """Return the paths where the times of every tier are known, else None."""
    known = [tier for tier in times if tier]
    return Paths(known) if len(known) == len(times) else None


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64], n: int) -> Percentiles:
    """Return the smallest values that at least such a share of the weight does not exceed."""
    if not n:
        return Percentiles(None, None, None, 0)
    share = np.cumsum(weights) / weights.sum()
    found: list[float | None] = []
    for percent in PERCENTS:
        if n * (100 - percent) < 100:
            found.append(None)
            continue
        place = int(np.searchsorted(share, percent / 100 - 1e-9))
        found.append(float(values[min(place, len(values) - 1)]))
    return Percentiles(found[0], found[1], found[2], n)
