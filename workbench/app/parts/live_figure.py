"""A live plotly figure that does not carry 5 MB of JavaScript into saved notebooks."""

from __future__ import annotations

import contextlib
import functools
import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets

HERE = Path(__file__).parent
_CODE = HERE / "figure.js"
_KEYS = HERE / "figure_keys.js"
_NOW: dict[str, Callable[[go.Figure], Any]] = {
    "_widget_data": lambda figure: [trace.to_plotly_json() for trace in figure.data],
    "_widget_layout": lambda figure: figure.layout.to_plotly_json(),
}


class LiveFigure(go.FigureWidget):
    """A FigureWidget that is drawn as it is now in every page, and after every reload.

    Plotly's own widget has its code in its state, keeps there the figure that it was made of, and
    forgets what it has in common with the front end's defaults: after an update its front end
    reports the traces that were sent to it as defaults of its own, and the kernel's are dropped.
    This one sends the code when a page asks for it, in a widget that is closed again; its traces
    are those that were set, and its state is the figure as it is by then.
    """

    _esm = _KEYS.read_text(encoding="utf-8") + _CODE.read_text(encoding="utf-8")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._changing = threading.RLock()
        self._is_made = True
        self._config = CONFIG
        self.on_msg(self._asked)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the state, its figure as it is now: a page that reconnects is sent this."""
        state = super().get_state(key=key, drop_defaults=drop_defaults)
        if self._is_made:
            with self._changing:  # never half of a change that another thread makes
                for name in state.keys() & _NOW.keys():
                    state[name] = self.trait_metadata(name, "to_json")(_NOW[name](self), self)
        return state

    @contextlib.contextmanager
    def batch_update(self) -> Iterator[None]:
        """Make several changes in one message to the browser."""
        with self._changing, super().batch_update():
            yield

    _is_made = False

    @staticmethod
    def _remove_overlapping_props(*_: Any) -> list[Any]:
        """Keep every property that was set, whatever the front end calls a default."""
        return []

    def _asked(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("type") != "show":
            return
        self.send_state(list(_NOW))
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
