"""A button that measures the speed of runs on this machine, and one that stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from workbench.app.notice import Notice
from workbench.app.parts.controls import button
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.session import Session
from workbench.errors import ConfigError, StudyError
from workbench.records import RunState


class MeasureButton:
    """Measures in a process of its own; what was measured before Stop is kept.

    Parameters
    ----------
    session : Session
    notice : Notice
        Where it is told why nothing is measured.
    wanted : callable
        Returns the ids of the runs to measure.
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
        notice: Notice,
        wanted: Callable[[], list[str]],
        *,
        text: str = "Measure speed",
        tooltip: str,
        lacks: str,
        then: str = "",
    ) -> None:
        self._session, self._notice = session, notice
        self._wanted = wanted
        self._lacks, self._then = lacks, then
        self._before: dict[str, int] = {}  # how much was measured of each run by then
        self._question = InspectorQuestion(session, text, self._switch, notice.watch(self._keep))
        self.button = button(
            text, "clock-o", tooltip, notice.guard(lambda _: self._measure()),
            disabled=session.is_recorded,
        )  # fmt: skip
        self.stop, self.status = self._question.stop, self._question.status
        self._switch()

    def _switch(self) -> None:
        busy = self._question.is_busy
        self.button.disabled = busy or self._session.is_recorded
        self.stop.layout.display = "" if busy else "none"

    def _measure(self) -> None:
        session = self._session
        # runs of other processes too
        is_computed = any(record.state is RunState.RUNNING for record in session.records)
        if is_computed or not session.study.wait(0):
            raise StudyError("Runs are being computed, which would spoil the times; wait for them.")
        runs = self._wanted()
        if not runs:
            raise ConfigError(self._lacks)

        known = {record.id: len(record.measurements) for record in session.records}
        self._before = {run: known[run] for run in runs if run in known}

        def done(found: dict[str, Any]) -> None:
            for run in runs:
                session.history.note(f"study.measure({run!r})")
            count = found["count"]
            counted = "1 run" if count == 1 else f"{count} runs"
            if found["warnings"]:  # such as of a machine that is busy
                self._notice.note(" ".join(found["warnings"]))
            self._question.say(f"Measured {counted}. {self._then}".strip())
            session.measured.emit()

        self._question.ask("measure", done, "Loading the models to measure …", runs=runs)

    def _keep(self) -> None:
        """Show what was measured before the end came, and take it into the script."""
        for record in self._session.records:
            if len(record.measurements) > self._before.get(record.id, math.inf):
                self._session.history.note(f"study.measure({record.id!r})")
        self._session.measured.emit()
