"""A button that measures the speed of runs on this machine, and one that stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.session import Session
from workbench.errors import ConfigError, StudyError
from workbench.records import RunState


class MeasureButton:
    """Measures in a process of its own; what was measured before Stop is kept.

    Parameters
    ----------
    session : Session
    wanted : callable
        Returns the ids of the runs to measure.
    on_measured : callable
        Called, in a background thread, when runs were measured.
    lacks : str
        What is said where there are none.
    then : str
        What is said when they were measured.

    Attributes
    ----------
    button, stop : ipywidgets.Button
    status : ipywidgets.HTML
    """

    def __init__(
        self,
        session: Session,
        wanted: Callable[[], list[str]],
        on_measured: Callable[[], None],
        *,
        text: str = "Measure speed",
        tooltip: str,
        lacks: str,
        then: str = "",
    ) -> None:
        self._session = session
        self._wanted = wanted
        self._on_measured = on_measured
        self._lacks = lacks
        self._then = then
        self._before: dict[str, int] = {}  # how much was measured of each run by then
        self._question = InspectorQuestion(session, text, self._switch)
        self.button = w.Button(
            description=text,
            icon="clock-o",
            tooltip=tooltip,
            layout=w.Layout(width="auto"),
            disabled=session.is_recorded,
        )
        self.button.on_click(session.banner.guard(lambda _: self._measure()))
        self.stop, self.status = self._question.stop, self._question.status
        self.stop.layout.display = "none"
        self.stop.on_click(session.banner.guard(lambda _: self._keep()))

    def _switch(self) -> None:
        busy = self._question.is_busy
        self.button.disabled = busy or self._session.is_recorded
        self.stop.layout.display = "" if busy else "none"

    def _measure(self) -> None:
        session = self._session
        is_computed = any(
            r.state is RunState.RUNNING for r in session.study.records
        )  # elsewhere too
        if is_computed or not session.study.wait(0):
            raise StudyError("Runs are being computed, which would spoil the times; wait for them.")
        runs = self._wanted()
        if not runs:
            raise ConfigError(self._lacks)

        known = {record.id: len(record.measurements) for record in session.study.records}
        self._before = {run: known[run] for run in runs if run in known}

        def done(found: dict[str, Any]) -> None:
            for run in runs:
                session.history.note(f"study.measure({run!r})")
            count = found["count"]
            counted = "1 run" if count == 1 else f"{count} runs"
            if found["warnings"]:  # such as of a machine that is busy
                session.banner.note(" ".join(found["warnings"]))
            self._question.say(f"Measured {counted}. {self._then}".strip())
            self._on_measured()

        def failed(text: str) -> None:
            session.banner.note(text)
            self._keep()

        self._question.ask("measure", done, "Loading the models to measure …", failed, runs=runs)

    def _keep(self) -> None:
        """Show what was measured before the end came, and take it into the script."""
        for record in self._session.study.records:
            if len(record.measurements) > self._before.get(record.id, math.inf):
                self._session.history.note(f"study.measure({record.id!r})")
        self._on_measured()
