"""One line below the plot: the most useful thing to do next, and a button that does it."""

from __future__ import annotations

import threading
import time
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import about_html, button, row, show
from workbench.app.session import Session
from workbench.errors import WorkbenchError
from workbench.records import RunState
from workbench.selection.requirements import Requirements
from workbench.study.next_step import BASE, EXAMPLES, KEEP, PREDICT, RUN, NextStep

QUIET_SECONDS = 0.5
"""How long nothing may have changed before the step is computed."""

_DOES = {
    BASE: ("Evaluate it", "play"),
    PREDICT: ("Predict", "magic"),
    RUN: ("Run it", "play"),
    EXAMPLES: ("Select that run", "check"),
    KEEP: ("Select that run", "check"),
}


class NextStepPanel(StudyPanel):
    """The bar is the one of *Choose & keep*.

    Attributes
    ----------
    line : ipywidgets.HTML
    go : ipywidgets.Button
    """

    interval = 2.0

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._step: NextStep | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_asked_again = False
        self.line = w.HTML()
        self.go = button(
            "", "", "Does what the line says", self._guard(lambda _: self._do()), disabled=True
        )
        self.widget = w.VBox([row(self.line, self.go), self.notice.widget])
        session.requirements.listen(self.refresh)
        self.refresh()

    def code(self) -> str:
        """Return the Python that says the same."""
        return "print(study.next_step())"

    def _refresh(self) -> None:
        """Compute it in a thread of its own, when all else was drawn: it may take seconds."""
        with self._lock:
            if self._thread is not None:
                self._is_asked_again = True
                return
            self._thread = threading.Thread(target=self._work, name="wb-next-step", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            time.sleep(QUIET_SECONDS)
            with self._lock:
                if self._is_asked_again:  # runs still come
                    self._is_asked_again = False
                    continue
            self.notice.watch(self._compute)()
            with self._lock:
                if not self._is_asked_again:
                    self._thread = None
                    return
                self._is_asked_again = False

    def _compute(self) -> None:
        study: Any = self._session.study
        if any(record.state is RunState.RUNNING for record in self._session.records):
            return  # what it finds changes the step, and it takes the time of all else
        asked = self._session.requirements.value or {"accuracy": 0.97}
        try:
            self._step = study.next_step(Requirements(**asked))
        except WorkbenchError:  # such as of a study that is being deleted: there is no advice
            self._step = None
        step = self._step
        known = None if step is None else _DOES.get(step.kind)
        self.line.value = "" if step is None else about_html(f"Next: {step.text}", is_told=True)
        show(self.go, is_shown=known is not None)
        if known is not None:
            self.go.description, self.go.icon = known
            computes = step is not None and step.kind in (BASE, PREDICT, RUN)
            self.go.disabled = computes and self._session.is_recorded

    def _do(self) -> None:
        step, session = self._step, self._session
        if step is None:
            return
        if step.kind == PREDICT:
            session.study.submit_tabulate(on_event=session.events.emit)
        elif step.recipe is not None:
            session.submit([step.recipe])
        elif step.run is not None:
            session.selection.set([step.run])
