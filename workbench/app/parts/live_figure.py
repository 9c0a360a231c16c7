"""A live plotly figure that does not carry 5 MB of JavaScript into saved notebooks."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets

HERE = Path(__file__).parent
_CODE = HERE / "figure.js"
_KEYS = HERE / "figure_keys.js"


class LiveFigure(go.FigureWidget):
    """A FigureWidget that is always drawn as it is now, also after a page was reloaded.

    Plotly's own widget has its code in its state, and keeps there the figure that it was made of.
    This one sends the code when a page asks for it, in a widget that is closed again, and with it
    the figure as it is by then.
    """

    _esm = _KEYS.read_text(encoding="utf-8") + _CODE.read_text(encoding="utf-8")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._config = CONFIG
        self.on_msg(self._asked)

    def _asked(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("type") != "show":
            return
        self._widget_data = [trace.to_plotly_json() for trace in self.data]
        self._widget_layout = self.layout.to_plotly_json()
        self.send_state(["_widget_data", "_widget_layout"])
        if content.get("needed"):
            PlotlyCode().on_msg(_close)
        self.send({"type": "fresh"})


CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "workbench"},
    "modeBarButtonsToRemove": ["autoScale2d"],
}


class PlotlyCode(anywidget.AnyWidget):
    """Plotly's JavaScript, for one page."""

    _esm = (HERE / "plotly_code.js").read_text(encoding="utf-8")
    code = traitlets.Bytes().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(code=_packed())


def _close(widget: Any, content: Any, buffers: Any) -> None:
    if isinstance(content, dict) and content.get("type") == "done":
        widget.close()


@functools.cache
def _packed() -> bytes:
    """Return plotly's widget as it comes with plotly, compressed: a third of its bytes."""
    import plotly

    path = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
    return gzip.compress(path.read_bytes(), 6, mtime=0)
