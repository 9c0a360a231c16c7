"""Search for the smallest run that passes: minutes in, the proof out."""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.choose import requirements_code
from workbench.app.parts.controls import (
    LONG_LABEL,
    NumberField,
    about,
    answer_html,
    busy_html,
    button,
    card,
    row,
    show,
)
from workbench.app.parts.rows import Rows
from workbench.app.session import Session
from workbench.errors import StudyError
from workbench.progress import Progress
from workbench.selection.requirements import Requirements
from workbench.study.searching import SearchResult

HEADS = [("run", "text"), ("MB", ""), ("chance before", ""), ("quality", ""), ("answer", "text")]


class SearchPanel(StudyPanel):
    """What is asked is what *Choose* asks; the runs are computed in the study's worker.

    Attributes
    ----------
    minutes : NumberField
    go, stop : ipywidgets.Button
    status : ipywidgets.HTML
        What is tried now, and then what was found.
    trials : Rows
        What was computed; rows can be selected.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.minutes = NumberField(
            "at most, minutes", 30, 0.1, 10_000, tooltip="Of computing, in all",
            label=LONG_LABEL, most="340px",
        )  # fmt: skip
        self.go = button(
            "Search", "search", "Predict, run and train until the smallest that passes is found",
            self._guard(lambda _: self._start()), primary=True, disabled=session.is_recorded,
        )  # fmt: skip
        self.stop = button(
            "Stop", "stop", "Finished runs are kept; Search goes on from them",
            self._guard(lambda _: session.study.cancel()),
        )  # fmt: skip
        self.status = w.HTML()
        self.trials = Rows(height="240px")
        self.trials.observe(
            self._guard(lambda _: session.selection.set(self.trials.selected)), names="selected"
        )
        show(self.stop, self.trials, is_shown=False)
        self._thread: threading.Thread | None = None
        self.widget = card(
            "Find it for me",
            about(
                "Tries what is predicted to save most, verifies it, and trains back what was lost"
                " where nothing smaller passes. The bar is the one above."
            ),
            self.minutes, row(self.go, self.stop), self.notice.widget, self.status, self.trials,
        )  # fmt: skip

    @property
    def is_searching(self) -> bool:
        """Whether a search goes on."""
        return self._thread is not None and self._thread.is_alive()

    def code(self) -> str:
        """Return the Python that searches for the same."""
        asked = requirements_code(self._session.requirements.value)
        return f"study.search({asked}, budget_minutes={self.minutes.value:g})"

    def _start(self) -> None:
        if self.is_searching:
            raise StudyError("A search goes on already; Stop ends it.")
        wanted = Requirements(**self._session.requirements.value)
        self._thread = threading.Thread(
            target=self.notice.watch(self._search),
            args=(wanted, self.minutes.checked()),
            name="wb-search",
            daemon=True,
        )
        self._busy(is_busy=True)
        self.status.value = busy_html("Searching …")
        self._thread.start()

    def _search(self, wanted: Requirements, minutes: float) -> None:
        session = self._session
        try:
            found = session.study.search(
                wanted,
                budget_minutes=minutes,
                on_progress=self._tell,
                on_event=session.events.emit,
                in_worker=True,
            )
        except BaseException:
            self.status.value = ""
            raise
        finally:
            self._busy(is_busy=False)
        self._show(found)

    def _busy(self, *, is_busy: bool) -> None:
        self.go.disabled = is_busy or self._session.is_recorded
        show(self.stop, is_shown=is_busy)

    def _tell(self, progress: Progress) -> None:
        left = max(0.0, (progress.total - progress.done) / 60)
        self.status.value = busy_html(f"{progress.detail}; {left:.1f} minutes left")

    def _show(self, found: SearchResult) -> None:
        kind = "none" if found.run is None else "pass"
        self.status.value = answer_html(str(found), kind)
        known = {verdict.run.id: verdict for verdict in found.decision.verdicts}
        rows: list[tuple[str, list[Any]]] = []
        for trial in found.trials:
            verdict = known.get(trial.run)
            quality = None if verdict is None else verdict.quality
            size = None if verdict is None else verdict.run.size_bytes
            cells = [
                trial.label,
                f"{(size or trial.predicted_bytes) / 1e6:.2f}",
                f"{trial.chance:.0%}",
                "–" if quality is None else f"{quality:.1%}",
                trial.state.value if verdict is None else verdict.answer,
            ]
            rows.append((trial.run, cells))
        show(self.trials, is_shown=bool(rows))
        self.trials.fill(HEADS, rows)
        if found.run is not None:
            self._session.selection.set([found.run.id])
