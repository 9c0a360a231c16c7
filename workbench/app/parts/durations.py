"""Times that are estimated, in words."""

from __future__ import annotations

import math
from collections.abc import Callable

_SHORT = 10.0
"""Seconds below which a range helps nobody."""


def duration(low: float, high: float) -> str:
    """Return between which times something ends, such as ``"20 s to 3 min"``, rounded outwards."""
    if high <= _SHORT:
        return f"about {max(1, round(math.sqrt(max(low, 0.01) * max(high, 0.01))))} s"
    return f"{_words(low, math.floor)} to {_words(high, math.ceil)}"


def _words(seconds: float, rounded: Callable[[float], int]) -> str:
    unit, name = (1, "s") if seconds < 90 else (60, "min") if seconds < 5400 else (3600, "h")
    whole = rounded(seconds / unit)
    return f"{max(whole, 1)} {name}"
