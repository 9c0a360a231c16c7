"""A visible place for errors: exceptions in widget callbacks would else vanish."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.errors import WorkbenchError

_STYLE = (
    "border-left: 4px solid {colour}; background: {colour}1a; padding: .4rem .8rem;"
    " white-space: pre-wrap; line-height: 1.4"
)


class Notice:
    """Shows one message at a time; hidden while there is none."""

    def __init__(self) -> None:
        self.text = ""
        self.widget = w.HTML(layout=w.Layout(display="none"))

    def error(self, error: BaseException) -> None:
        """Show an exception: its message if the workbench raised it, else its type too."""
        text = str(error)
        if not isinstance(error, WorkbenchError):
            text = f"{type(error).__name__}: {text}"
        self._show(text, "#D55E00", "alert")

    def note(self, text: str) -> None:
        """Show a message that is not an error."""
        self._show(text, "#0072B2", "status")

    def clear(self) -> None:
        """Hide the banner."""
        self.text = ""
        self.widget.value = ""
        self.widget.layout.display = "none"

    def guard(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Return a callback that shows what the given one raises, and raises nothing."""

        @functools.wraps(callback)
        def guarded(*args: Any) -> None:
            try:
                callback(*args)
            except Exception as error:
                self.error(error)

        return guarded

    def _show(self, text: str, colour: str, role: str) -> None:
        self.text = text
        style = _STYLE.format(colour=colour)
        self.widget.value = f'<div role="{role}" style="{style}">{html.escape(text)}</div>'
        self.widget.layout.display = ""
