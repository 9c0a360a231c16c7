"""The limits beside the bar: size, time, memory and money."""

from __future__ import annotations

from typing import Any

from workbench.app.parts.controls import LONG_LABEL, NumberField
from workbench.app.session import Session


class Limits:
    """One field per limit; an empty one is no limit.

    Parameters
    ----------
    session : Session
        A limit of money needs its prices.

    Attributes
    ----------
    size_mb, latency_ms, memory_mb, cost_per_1k : NumberField
    controls : tuple of NumberField
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.size_mb = _limit("at most, MB", "Of the stored model")
        self.latency_ms = _limit("at most, ms", "Measured latency")
        self.memory_mb = _limit("at most, MB of memory", "Measured while it runs")
        self.cost_per_1k = _limit("at most, $ per 1,000", "Dollars for 1,000 queries")
        self.controls = (self.size_mb, self.latency_ms, self.memory_mb, self.cost_per_1k)
        session.prices.listen(self._switch)
        self._switch()

    def asked(self) -> dict[str, Any]:
        """Return the limits as :class:`workbench.Requirements` takes them.

        Raises
        ------
        ConfigError
            If what is written is no limit.
        """
        size, memory = self.size_mb.checked(), self.memory_mb.checked()
        found: dict[str, Any] = {
            "size_bytes": None if size is None else round(size * 1e6),
            "latency_ms": self.latency_ms.checked(),
            "memory_bytes": None if memory is None else round(memory * 1e6),
        }
        prices, cost = self._session.prices.value, self.cost_per_1k.checked()
        if cost is not None and prices is not None:
            found |= {"cost_per_1k_usd": cost, "cost": prices}
        return {name: value for name, value in found.items() if value is not None}

    def by_axis(self) -> dict[str, float]:
        """Return the limits that the plot can shade, by its axis, in MB and ms."""
        most = {"size": self.size_mb, "latency": self.latency_ms, "memory": self.memory_mb}
        return {axis: field.value for axis, field in most.items() if field.value is not None}

    def _switch(self) -> None:
        box = self.cost_per_1k.input
        box.disabled = self._session.prices.value is None
        box.placeholder = "prices: see Cost" if box.disabled else "no limit"


def _limit(name: str, tooltip: str) -> NumberField:
    return NumberField(
        name, None, 1e-9, 1e12, empty="no limit", tooltip=tooltip, label=LONG_LABEL, most="340px"
    )
