"""A visible place for errors beside what caused them: exceptions in callbacks would else vanish."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.errors import WorkbenchError


class Notice:
    """Shows one message at a time; hidden while there is none.

    Attributes
    ----------
    text : str
    widget : ipywidgets.HTML
    """

    def __init__(self) -> None:
        self.text = ""
        self.widget = w.HTML(layout=w.Layout(display="none"))

    def error(self, error: BaseException) -> None:
        """Show an exception: its message if the workbench raised it, else its type too."""
        text = str(error)
        if not isinstance(error, WorkbenchError):
            text = f"{type(error).__name__}: {text}"
        self.problem(text)

    def problem(self, text: str) -> None:
        """Show what went wrong."""
        self._show(plain(text), "wb-notice-error", "alert")

    def note(self, text: str) -> None:
        """Show a message that is not an error."""
        self._show(text, "wb-notice", "status")

    def clear(self) -> None:
        """Hide the message."""
        self.text = ""
        self.widget.value = ""
        self.widget.layout.display = "none"

    def guard(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Return a callback for what the user does: shows what is raised, and raises nothing.

        What was wrong before is gone as soon as the user does something else.
        """
        watched = self.watch(callback)

        @functools.wraps(callback)
        def guarded(*args: Any) -> None:
            if self.text:
                self.clear()
            watched(*args)

        return guarded

    def watch(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Return a callback for what happens by itself; what the user was told before stays."""

        @functools.wraps(callback)
        def watched(*args: Any) -> None:
            try:
                callback(*args)
            except Exception as error:
                self.error(error)

        return watched

    def _show(self, text: str, kind: str, role: str) -> None:
        self.text = text
        self.widget.value = f'<div role="{role}" class="{kind}">{html.escape(text)}</div>'
        self.widget.layout.display = ""


def plain(text: str) -> str:
    """Return an error's text without the words of Python that only its API takes."""
    text = re.sub(r",? or None for ([^.;,]+)", r", or “\1”", text)
    text = re.sub(r",? or None\b", "", text)
    text = re.sub(r",? or overwrite=True[^.;]*", "", text)
    return re.sub(r"\b([a-z]+(?:_[a-z]+)*)=(?=[\w'\"-])", _spoken, text)


def _spoken(found: re.Match[str]) -> str:
    return found[1].replace("_", " ") + " "
