"""Repeat something, and summarise the repeats by their median and their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Median and interquartile range of repeats.

    A mean would be moved by the one repeat that another program interrupted.

    Attributes
    ----------
    median, spread : float
        ``spread`` is the third quartile minus the first.
    n : int
        Repeats.
    """

    median: float
    spread: float
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Return the median and the interquartile range of at least one value."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return Summary(float(middle), float(high - low), len(values))


def time_repeats(
    function: Callable[[], object],
    repeats: int,
    *,
    warm_up: int = 2,
    each: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Return the seconds of every call after a warm-up.

    Parameters
    ----------
    function : callable
        Called ``warm_up + repeats`` times.
    repeats : int
        Calls that count, at least 1.
    warm_up : int
        Calls before, which allocate memory and choose kernels.
    each : callable
        Told the number of timed calls after each of them; may raise to stop.
    """
    for _ in range(warm_up):
        function()
    seconds = []
    for done in range(1, repeats + 1):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
        each(done)
    return seconds
