"""Say what is needed, see which run is the smallest that has it, and keep that one."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.widgets.desk import Desk
from workbench.widgets.throttle import Throttle

_WIDE = {"description_width": "150px"}


class ChoosePanel:
    """The bar for quality, limits for size and latency, and the run that passes.

    Parameters
    ----------
    desk : Desk
    on_bar : callable
        Called with the limits by axis (MB, ms) and the worst accepted value of the metric.

    Attributes
    ----------
    widget : ipywidgets.Widget
    bar : ipywidgets.FloatSlider
    size_mb, latency_ms : ipywidgets.FloatText
        Zero is no limit.
    answer : ipywidgets.HTML
    """

    def __init__(
        self,
        desk: Desk,
        on_bar: Callable[[dict[str, float], float | None], None] = lambda most, bar: None,
    ) -> None:
        self._desk = desk
        self._on_bar = on_bar
        metric = desk.study.metric.name.replace("_", " ")
        self.bar = w.FloatSlider(
            value=0.97,
            min=0.5,
            max=1.0,
            step=0.005,
            readout_format=".1%",
            description="keep at least",
            tooltip=f"Share of the base model's quality ({metric})",
            continuous_update=False,
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.size_mb = _limit("at most, MB", "Of the stored model; 0 is no limit")
        self.latency_ms = _limit("at most, ms", "Measured latency; 0 is no limit")
        self.answer = w.HTML()
        self.pick = w.Button(
            description="Select this run",
            icon="check",
            tooltip="Select it in the plot, the table and everywhere",
            layout=w.Layout(width="auto"),
            disabled=True,
        )
        self._found: str | None = None
        for control in (self.bar, self.size_mb, self.latency_ms):
            control.observe(desk.banner.guard(lambda _: self._refresh()), names="value")
        self.pick.on_click(desk.banner.guard(self._pick))
        self.widget = w.VBox(
            [
                w.HTML("<h3>What is good enough?</h3>"),
                self.bar,
                self.size_mb,
                self.latency_ms,
                self.answer,
                self.pick,
            ]
        )
        self.widget.add_class("wb-card")
        self.refresh = Throttle(self._refresh, interval=1.0)
        self._refresh()

    @property
    def chosen(self) -> str | None:
        """The id of the run that passes, None if none does."""
        return self._found

    def code(self) -> str:
        """Return the Python that chooses the same run."""
        given = [f"accuracy={self.bar.value:g}"]
        if self.size_mb.value > 0:
            given.append(f"size_bytes={self.size_mb.value * 1e6:g}")
        if self.latency_ms.value > 0:
            given.append(f"latency_ms={self.latency_ms.value:g}")
        return f"study.choose({', '.join(given)})"

    def _pick(self, _: Any) -> None:
        if self._found is not None:
            self._desk.selection.set([self._found])

    def _refresh(self) -> None:
        limits: dict[str, Any] = {}
        if self.size_mb.value > 0:
            limits["size_bytes"] = self.size_mb.value * 1e6
        if self.latency_ms.value > 0:
            limits["latency_ms"] = self.latency_ms.value
        kind = "none"
        try:
            choice = self._desk.study.choose(accuracy=self.bar.value, **limits)
            text, self._found = choice.nearest, None
            if choice.run is not None:
                self._found = choice.run.id
                kind = "pass" if choice.surely else "maybe"
        except WorkbenchError as error:  # such as no baseline yet: an answer, not an accident
            text, self._found = str(error), None
        self.pick.disabled = self._found is None
        self.answer.value = (
            f'<div class="wb-answer wb-answer-{kind}">'
            f'<span role="status">{html.escape(text)}</span></div>'
        )
        most = {"size": self.size_mb.value, "latency": self.latency_ms.value}
        self._on_bar({axis: value for axis, value in most.items() if value > 0}, self._worst())

    def _worst(self) -> float | None:
        study = self._desk.study
        metric = study.metric
        for record in study.records:
            found = record.measurement(metric.name)
            if not record.recipe.steps and found is not None and found.value > 0:
                share = self.bar.value
                return found.value * share if metric.higher_is_better else found.value / share
        return None


def _limit(text: str, tooltip: str) -> w.BoundedFloatText:
    return w.BoundedFloatText(
        value=0,
        min=0,
        max=1e9,
        description=text,
        tooltip=tooltip,
        style=_WIDE,
        layout=w.Layout(width="auto", max_width="300px"),
    )
