"""The live plot: one figure at a time, changed in place, a few times a second at most."""

from __future__ import annotations

import base64
import html
import threading
from typing import TYPE_CHECKING

import ipywidgets as w
import plotly.graph_objects as go

from workbench.plots import static_svg, tradeoff_figure, update_figure
from workbench.widgets.throttle import Throttle

if TYPE_CHECKING:
    from workbench.compare import TradeoffView
    from workbench.study import Study

WIDTH = 700
"""Of the figure, in pixels."""


class FrontierPanel:
    """Quality against size of every run of a study, and the predicted front if it is known.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    widget : ipywidgets.Widget
    log_x : ipywidgets.Checkbox
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._lock = threading.Lock()
        self._view = study.plot().view
        self.log_x = w.Checkbox(
            description="logarithmic size axis",
            tooltip="Spread small models out",
            indent=False,
        )
        self.log_x.observe(lambda _: self._draw(), names="value")
        self.figure = self._new_figure()
        self.widget = w.VBox([self.figure, self.log_x])
        self.refresh = Throttle(self._refresh)

    @property
    def view(self) -> TradeoffView:
        """What the plot shows now."""
        return self._view

    def rebuild(self) -> None:
        """Replace the figure by a new one, because one changed before it is shown can be stale."""
        with self._lock:
            old = self.figure
            self._view = self._study.plot().view
            self.figure = self._new_figure()
            self.widget.children = [self.figure, self.log_x]
            old.close()

    def picture(self) -> str:
        """Return the plot as an image element that needs no script and no kernel."""
        svg = base64.b64encode(static_svg(self._view, log_x=self.log_x.value).encode()).decode()
        text = html.escape(f"{self._view.metric.name} against size, see the table for the numbers")
        return f'<img alt="{text}" src="data:image/svg+xml;base64,{svg}">'

    def code(self) -> str:
        """Return the Python that makes the plot."""
        return "study.plot()"

    def _new_figure(self) -> go.FigureWidget:
        figure = go.FigureWidget(tradeoff_figure(self._view, log_x=self.log_x.value))
        # A figure that is drawn before it is attached cannot know how much room it has.
        figure.layout.width = WIDTH
        return figure

    def _refresh(self) -> None:
        self._view = self._study.plot().view
        self._draw()

    def _draw(self) -> None:
        with self._lock:
            update_figure(self.figure, self._view, log_x=self.log_x.value)
