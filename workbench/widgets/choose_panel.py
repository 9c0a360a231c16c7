"""A slider for the bar, and the smallest run that passes it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.widgets.throttle import Throttle

if TYPE_CHECKING:
    from workbench.study import Study


class ChoosePanel:
    """Says which run is the smallest that keeps a share of the base model's quality.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    widget : ipywidgets.Widget
    bar : ipywidgets.FloatSlider
    answer : ipywidgets.HTML
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self.bar = w.FloatSlider(
            value=0.97,
            min=0.5,
            max=1.0,
            step=0.005,
            readout_format=".1%",
            description="keep at least",
            tooltip=f"Share of the base model's quality ({study.metric.name})",
            continuous_update=False,
            style={"description_width": "120px"},
            layout=w.Layout(width="auto", max_width="460px"),
        )
        self.answer = w.HTML()
        self.bar.observe(self._changed, names="value")
        self.widget = w.VBox([self.bar, self.answer])
        self.refresh = Throttle(self._refresh, interval=1.0)
        self._refresh()

    def code(self) -> str:
        """Return the Python that chooses the same run."""
        return f"study.choose(accuracy={self.bar.value:g})"

    def _changed(self, _: Any) -> None:
        self._refresh()

    def _refresh(self) -> None:
        try:
            text = self._study.choose(accuracy=self.bar.value).nearest
        except WorkbenchError as error:  # such as no baseline yet: an answer, not an accident
            text = str(error)
        self.answer.value = f'<span role="status">{html.escape(text)}</span>'
