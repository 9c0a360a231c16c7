"""A button that measures the speed of runs on this machine, and one that stops it."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w

from workbench.errors import ConfigError, StudyError
from workbench.widgets.desk import Desk
from workbench.widgets.waiting import Waiting


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
        self.stop.on_click(desk.banner.guard(lambda _: self._on_measured()))

    def _switch(self) -> None:
        busy = self._waiting.is_busy
        self.button.disabled = busy or self._desk.is_recorded
        self.stop.layout.display = "" if busy else "none"

    def _measure(self) -> None:
        desk = self._desk
        if not desk.study.wait(0):
            raise StudyError("Runs are being computed, which would spoil the times; wait for them.")
        runs = self._wanted()
        if not runs:
            raise ConfigError(self._lacks)

        def done(count: int) -> None:
            for run in runs:
                desk.history.note(f"study.measure({run!r})")
            counted = "1 run" if count == 1 else f"{count} runs"
            self._waiting.say(f"Measured {counted}. {self._then}".strip())
            self._on_measured()

        self._waiting.ask(
            "measure", done, "Loading the models to measure …", desk.banner.note, runs=runs
        )
