"""The limits beside the bar: size, time, memory and money."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from workbench.app.session import Session

WIDE = {"description_width": "150px"}


class Limits:
    """One box per limit; zero is no limit.

    Parameters
    ----------
    session : Session
        A limit of money needs its prices.

    Attributes
    ----------
    size_mb, latency_ms, memory_mb, cost_per_1k : ipywidgets.BoundedFloatText
    controls : tuple of ipywidgets.BoundedFloatText
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.size_mb = _limit("at most, MB", "Of the stored model; 0 is no limit")
        self.latency_ms = _limit("at most, ms", "Measured latency; 0 is no limit")
        self.memory_mb = _limit("at most, MB of memory", "Measured while it runs; 0 is no limit")
        self.cost_per_1k = _limit("at most, $ per 1,000", "")
        self.controls = (self.size_mb, self.latency_ms, self.memory_mb, self.cost_per_1k)
        session.prices.listen(self._switch)
        self._switch()

    def asked(self) -> dict[str, Any]:
        """Return the limits as :class:`workbench.Requirements` takes them."""
        found: dict[str, Any] = {}
        if self.size_mb.value > 0:
            found["size_bytes"] = round(self.size_mb.value * 1e6)
        if self.latency_ms.value > 0:
            found["latency_ms"] = self.latency_ms.value
        if self.memory_mb.value > 0:
            found["memory_bytes"] = round(self.memory_mb.value * 1e6)
        if self.cost_per_1k.value > 0 and self._session.prices.model is not None:
            found["cost_per_1k_usd"] = self.cost_per_1k.value
            found["cost"] = self._session.prices.model
        return found

    def by_axis(self) -> dict[str, float]:
        """Return the limits that the plot can shade, by its axis, in MB and ms."""
        most = {
            "size": self.size_mb.value,
            "latency": self.latency_ms.value,
            "memory": self.memory_mb.value,
        }
        return {axis: value for axis, value in most.items() if value > 0}

    def _switch(self) -> None:
        priced = self._session.prices.model is not None
        self.cost_per_1k.disabled = not priced
        self.cost_per_1k.tooltip = (
            "Dollars for 1,000 queries at your prices; 0 is no limit"
            if priced
            else "Enter your prices under Cost first"
        )


def _limit(text: str, tooltip: str) -> w.BoundedFloatText:
    return w.BoundedFloatText(
        value=0,
        min=0,
        max=1e9,
        description=text,
        tooltip=tooltip,
        style=WIDE,
        layout=w.Layout(width="auto", max_width="300px"),
    )
