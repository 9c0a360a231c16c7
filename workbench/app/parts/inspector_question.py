"""A question to the process that looks into models: its progress, its end, and a way to stop it."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.session import Session


class InspectorQuestion:
    """At most one question of a panel at a time.

    Parameters
    ----------
    session : Session
    where : str
        What the panel is called, for those whose questions end when this one is stopped.
    on_change : callable
        Called when waiting has begun or ended, so that buttons can be switched.

    Attributes
    ----------
    stop : ipywidgets.Button
    status : ipywidgets.HTML
    is_busy : bool
    """

    def __init__(
        self, session: Session, where: str, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._session = session
        self._where = where
        self._on_change = on_change
        self._number = 0
        self.is_busy = False
        self.stop = w.Button(
            description="Stop",
            icon="stop",
            disabled=True,
            tooltip="What was finished before is kept",
            layout=w.Layout(width="auto"),
        )
        self.stop.on_click(session.banner.guard(lambda _: self._stop()))
        self.status = w.HTML()

    def ask(
        self,
        what: str,
        on_answer: Callable[[Any], None],
        told: str,
        on_error: Callable[[str], None] | None = None,
        **arguments: Any,
    ) -> None:
        """Ask one of :data:`workbench.study.inspector.ANSWERS` and return at once.

        Parameters
        ----------
        what : str
        on_answer : callable
            Called with the answer, unless another question was asked meanwhile.
        told : str
            What is shown until the first progress.
        on_error : callable, optional
            Called with why there is no answer. Default: it is shown.
        """
        self._number += 1
        number = self._number

        def is_current() -> bool:
            return number == self._number

        def answered(found: Any) -> None:
            if is_current():
                self._end("")
                self._session.banner.guard(on_answer)(found)

        def failed(text: str) -> None:
            if is_current():
                self._end("" if on_error else text, is_problem=on_error is None)
                if on_error is not None:
                    on_error(text)

        def progress(found: dict[str, Any]) -> None:
            if is_current():
                self.say(_words(found))

        self.is_busy, self.stop.disabled = True, False
        self._session.banner.clear()  # of what was wrong with an earlier one
        self.say(told)
        self._on_change()
        self._session.inspector.ask(what, answered, failed, progress, **arguments)

    def forget(self) -> None:
        """Take no answer that is on its way."""
        if self.is_busy:
            self._number += 1
            self._end("")

    def say(self, text: str, *, is_problem: bool = False) -> None:
        """Show a line, escaped; an empty one is hidden."""
        shown = html.escape(text)
        if is_problem:
            self.status.value = f'<div class="wb-problem" role="alert">{shown}</div>'
        else:
            line = f'<div class="wb-note"><span role="status">{shown}</span></div>'
            self.status.value = line if text else ""

    def _stop(self) -> None:
        self._number += 1
        self._session.inspector.stop(
            f"Stopped, as Stop was pressed under {self._where}. Start it again."
        )
        self._end("Stopped. What was finished before is kept.")

    def _end(self, text: str, *, is_problem: bool = False) -> None:
        self.is_busy, self.stop.disabled = False, True
        self.say(text, is_problem=is_problem)
        self._on_change()


def _words(progress: dict[str, Any]) -> str:
    done, total = progress["done"], max(progress["total"], 1)
    share = f"{done}/{total}" if total <= 99 else f"{done / total:.0%}"
    return f"{progress['stage']} {share} {progress['detail']}".strip()
