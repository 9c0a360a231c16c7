"""Where one live figure is shown, alive only while it is seen: a page holds three at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from workbench.app.parts.live_figure import LiveFigure

OnClick = Callable[[Any, Any, Any], None]


class FigureSlot:
    """Holds one figure; one that is hidden is closed, and made again when it is seen.

    Attributes
    ----------
    widget : ipywidgets.VBox
    figure : LiveFigure or None
    """

    def __init__(self) -> None:
        self.widget = w.VBox()
        self.figure: LiveFigure | None = None
        self._make: Callable[[], go.Figure] | None = None
        self._on_click: OnClick | None = None
        self._is_seen = False

    def draw(self, make: Callable[[], go.Figure], on_click: OnClick | None = None) -> None:
        """Show what ``make`` returns, now if the place is seen, else when it is.

        Parameters
        ----------
        make : callable
        on_click : callable, optional
            Called with trace, points and state where a point is clicked.
        """
        self._make, self._on_click = make, on_click
        if self._is_seen:
            self._build()

    def clear(self) -> None:
        """Show nothing."""
        self._make = None
        self._close()

    def show(self, is_seen: bool) -> None:
        """Say whether the place is seen from now on."""
        if is_seen == self._is_seen:
            return
        self._is_seen = is_seen
        if not is_seen:
            self._close()
        elif self._make is not None:
            self._build()

    def _build(self) -> None:
        assert self._make is not None
        old, self.figure = self.figure, LiveFigure(self._make())
        if self._on_click is not None:
            for trace in self.figure.data:
                trace.on_click(self._on_click)
        self.widget.children = [self.figure]
        if old is not None:
            old.close()

    def _close(self) -> None:
        self.widget.children = []
        if self.figure is not None:
            self.figure.close()
            self.figure = None
