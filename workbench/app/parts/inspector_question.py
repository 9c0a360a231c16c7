"""A question to the process that looks into models: its progress, its end, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.notice import plain
from workbench.app.parts.controls import answer_html, button, problem_html
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
    on_stop : callable
        Called when it was stopped or has failed.

    Attributes
    ----------
    stop : ipywidgets.Button
    status : ipywidgets.HTML
    is_busy : bool
    """

    def __init__(
        self,
        session: Session,
        where: str,
        on_change: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._where = where
        self._on_change, self._on_stop = on_change, on_stop
        self._number = 0
        self.is_busy = False
        tooltip = "What was finished before is kept"
        self.stop = button("Stop", "stop", tooltip, lambda _: self._stop(), disabled=True)
        self.status = w.HTML()

    def ask(self, what: str, on_answer: Callable[[Any], None], told: str, **arguments: Any) -> None:
        """Ask one of :data:`workbench.study.inspector.ANSWERS` and return at once.

        Parameters
        ----------
        what : str
        on_answer : callable
            Called with the answer, unless another question was asked meanwhile.
        told : str
            What is shown until the first progress.
        """
        self._number += 1
        number = self._number

        def is_current() -> bool:
            return number == self._number

        def answered(found: Any) -> None:
            if is_current():
                self._end("")
                try:
                    on_answer(found)
                except Exception as error:
                    self.say(str(error), is_problem=True)

        def failed(text: str) -> None:
            if is_current():
                self._end(text, is_problem=True)
                self._on_stop()

        def progress(found: dict[str, Any]) -> None:
            if is_current():
                self.say(words_of(found["stage"], found["done"], found["total"], found["detail"]))

        self.is_busy, self.stop.disabled = True, False
        self.say(told)
        self._on_change()
        self._session.inspector.ask(what, answered, failed, progress, **arguments)

    def forget(self) -> None:
        """Take no answer that is on its way."""
        self._number += 1
        if self.is_busy:
            self._end("")

    def say(self, text: str, *, is_problem: bool = False) -> None:
        """Show a line, escaped; an empty one is hidden."""
        self.status.value = problem_html(plain(text)) if is_problem else answer_html(text)

    def _stop(self) -> None:
        self._number += 1
        self._session.inspector.stop(
            f"Stopped, as Stop was pressed under {self._where}. Start it again."
        )
        self._end("Stopped. What was finished before is kept.")
        self._on_stop()

    def _end(self, text: str, *, is_problem: bool = False) -> None:
        self.is_busy, self.stop.disabled = False, True
        self.say(text, is_problem=is_problem)
        self._on_change()


STAGES = {
    "calibrate": "reading calibration data", "depth": "weighing blocks",
    "embeddings": "storing embeddings", "evaluate": "evaluating", "export": "writing",
    "features": "reading texts", "generate": "writing answers",
    "gradients": "reading calibration data", "head": "fitting the head",
    "layers": "comparing layers", "load": "loading the model", "measure": "measuring",
    "predict": "making predictions", "prove": "checking what was written",
    "solve": "compressing layers", "teacher": "asking the teacher", "train": "training",
    "validate": "validating", "wait": "waiting", "width": "weighing heads and neurons",
    "write": "writing",
}  # fmt: skip
"""What the stages of a job are called by those who wait for it."""


def words_of(stage: str, done: float, total: float, detail: str = "") -> str:
    """Return how far something is, such as ``"compressing, layer 6 of 20"``."""
    stage = STAGES.get(stage, stage)
    share = f"{done:g} of {total:g}" if total <= 99 else f"{done / max(total, 1):.0%}"
    return f"{stage} {share} {detail}".strip()
