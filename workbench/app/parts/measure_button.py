"""A button that measures the speed of runs on this machine, and one that stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.parts.inspector_question import Waiting
from workbench.app.session import Desk
from workbench.errors import ConfigError, StudyError
from workbench.records import RunState


class Measuring:
    """Measures in a process of its own; what was measured before Stop is kept.

    Parameters
    ----------
    desk : Desk
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
        desk: Desk,
        wanted: Callable[[], list[str]],
        on_measured: Callable[[], None],
        *,
        text: str = "Measure speed",
        tooltip: str,
        lacks: str,
        then: str = "",
    ) -> None:
        self._desk = desk
        self._wanted = wanted
        self._on_measured = on_measured
        self._lacks = lacks
        self._then = then
        self._before: dict[str, int] = {}  # how much was measured of each run by then
        self._waiting = Waiting(desk, text, self._switch)
        self.button = w.Button(
            description=text,
            icon="clock-o",
            tooltip=tooltip,
            layout=w.Layout(width="auto"),
            disabled=desk.is_recorded,
        )
        self.button.on_click(desk.banner.guard(lambda _: self._measure()))
        self.stop, self.status = self._waiting.stop, self._waiting.status
        self.stop.layout.display = "none"
        self.stop.on_click(desk.banner.guard(lambda _: self._keep()))

    def _switch(self) -> None:
        busy = self._waiting.is_busy
        self.button.disabled = busy or self._desk.is_recorded
        self.stop.layout.display = "" if busy else "none"

    def _measure(self) -> None:
        desk = self._desk
        is_computed = any(r.state is RunState.RUNNING for r in desk.study.records)  # elsewhere too
        if is_computed or not desk.study.wait(0):
            raise StudyError("Runs are being computed, which would spoil the times; wait for them.")
        runs = self._wanted()
        if not runs:
            raise ConfigError(self._lacks)

        known = {record.id: len(record.measurements) for record in desk.study.records}
        self._before = {run: known[run] for run in runs if run in known}

        def done(found: dict[str, Any]) -> None:
            for run in runs:
                desk.history.note(f"study.measure({run!r})")
            count = found["count"]
            counted = "1 run" if count == 1 else f"{count} runs"
            if found["warnings"]:  # such as of a machine that is busy
                desk.banner.note(" ".join(found["warnings"]))
            self._waiting.say(f"Measured {counted}. {self._then}".strip())
            self._on_measured()

        def failed(text: str) -> None:
            desk.banner.note(text)
            self._keep()

        self._waiting.ask("measure", done, "Loading the models to measure …", failed, runs=runs)

    def _keep(self) -> None:
        """Show what was measured before the end came, and take it into the script."""
        for record in self._desk.study.records:
            if len(record.measurements) > self._before.get(record.id, math.inf):
                self._desk.history.note(f"study.measure({record.id!r})")
        self._on_measured()
