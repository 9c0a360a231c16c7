"""What waits, runs and has ended: progress, the time that is left, and cancelling."""

from __future__ import annotations

import html
import threading
import time
from dataclasses import dataclass, replace

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import button, card, classed, one_of, row, show
from workbench.app.parts.durations import duration
from workbench.app.parts.inspector_question import words_of
from workbench.app.parts.throttle import Throttle
from workbench.app.queue_file import QueueFile
from workbench.app.session import Session
from workbench.prediction.estimates import earliest_end, estimate_seconds
from workbench.recipes import Training
from workbench.recipes.recipe import Recipe, shortened
from workbench.study.running.runner import FINAL, Event
from workbench.views.run_names import distinct

MOST_SHOWN = 8
_OPEN = {"queued": "queued", "started": "running"}
"""States of jobs that have not ended, and what they are called."""
IDLE = "Nothing is running."


@dataclass(frozen=True)
class Entry:
    """One job of the queue.

    Attributes
    ----------
    label, recipe, state : str
        ``recipe`` is its JSON, empty where predictions are made ready; ``state`` is the kind of
        the last event that changed it.
    note : str
        Why it ended without a result.
    model : str
        Name of the base model.
    """

    label: str
    recipe: str
    state: str
    note: str = ""
    model: str = ""


class QueuePanel(StudyPanel):
    """The queue of the study's worker process.

    Clicks only submit and cancel; everything is computed in the worker, so the kernel stays free.

    Attributes
    ----------
    cancel, cancel_all : ipywidgets.Button
    bar : ipywidgets.FloatProgress
    waiting : ipywidgets.Select
        The jobs that wait, the next one first.
    earlier, later, remove : ipywidgets.Button
        Of the chosen one of them.
    status, list : ipywidgets.HTML
    strip : ipywidgets.Widget
        How far the current job is; above everything, where it is seen without scrolling.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._lock = threading.Lock()
        self._entries: dict[int, Entry] = {}
        self._current: int | None = None
        self._started = self._stage_started = 0.0
        self._stage = ""
        self.cancel = button(
            "Cancel",
            "stop",
            "Stop the current run and go on with the next; finished runs are kept",
            self._guard(lambda _: self._cancel(current_only=True)),
            disabled=True,
        )
        self.cancel_all = button(
            "Cancel all",
            "ban",
            "Stop the current run and forget those that wait; finished runs are kept",
            self._guard(lambda _: self._cancel(current_only=False)),
            disabled=True,
        )
        self.bar = w.FloatProgress(min=0, max=1, layout=w.Layout(width="100%"))
        self.status, self.list = w.HTML(), w.HTML()
        self._progress = Throttle(self._show_progress)
        self._file = QueueFile(session.study.path)
        session.events.listen(self.notice.watch(self._show))
        self.strip = classed(
            card("", self.status, self.bar, row(self.cancel, self.cancel_all), self.notice.widget),
            "wb-queue",
        )
        self.waiting = one_of("waiting", 4)
        move, tip = self._move, "The job that is chosen in this list"
        self.earlier = button("Earlier", "arrow-up", tip, self._guard(lambda _: move(-1)))
        self.later = button("Later", "arrow-down", tip, self._guard(lambda _: move(1)))
        self.remove = button("Remove", "trash", tip, self._guard(lambda _: self._remove()))
        self._waiting = w.VBox([self.waiting, row(self.earlier, self.later, self.remove)])
        self.widget = card("Queue", self._waiting, self.list)
        self._say(IDLE)

    @property
    def pending(self) -> tuple[tuple[Recipe, str], ...]:
        """Recipes that wait or are being computed, and which of the two."""
        with self._lock:
            entries = list(self._entries.values())
        return tuple(
            (Recipe.from_json(entry.recipe), _OPEN[entry.state])
            for entry in entries
            if entry.state in _OPEN and entry.recipe
        )

    def resume(self) -> None:
        """Queue what a kernel that has ended left in the study's queue."""
        left = self._file.left()
        for model, recipe in left:
            self._session.submit([Recipe.from_json(recipe)], model=model)
        if left:
            runs = "1 run goes" if len(left) == 1 else f"{len(left)} runs go"
            self.notice.note(f"{runs} on that waited when the kernel ended.")

    def _move(self, places: int) -> None:
        if self.waiting.value is not None:
            self._session.study.move(self.waiting.value, places)
            self._show_list()

    def _remove(self) -> None:
        if self.waiting.value is not None:
            self._session.study.cancel(job=self.waiting.value)

    def code(self) -> str:
        """Return the Python that stops what the Cancel all button stops."""
        return "study.cancel()"

    def _cancel(self, *, current_only: bool) -> None:
        self.cancel.disabled = True
        self._say("Cancelling …")
        self._session.study.cancel(current_only=current_only)

    def _show(self, event: Event) -> None:
        if event.kind == "progress":
            self._progress(event)
            return
        if event.kind == "idle":
            self._current = None
            self.cancel.disabled = self.cancel_all.disabled = True
            return
        with self._lock:
            old = self._entries.get(
                event.job, Entry(event.label, event.recipe, "", model=event.model)
            )
            note = event.error or ("was done already" if event.cached else "")
            self._entries[event.job] = replace(old, state=event.kind, note=note)
            waiting = [e for e in self._entries.values() if e.recipe and e.state in _OPEN]
        if event.kind in FINAL or event.kind == "queued":
            self._file.write([(entry.model, entry.recipe) for entry in waiting])
        if event.kind == "queued":
            self.cancel_all.disabled = False
            if self._current is None:
                self._say(f"{event.label} waits for the worker process …")
        elif event.kind == "started":
            self._current = event.job
            self._started = self._stage_started = time.monotonic()
            self._stage = ""
            self.cancel.disabled = self.cancel_all.disabled = False
            self.bar.value = 0
            self._say(f"{event.label} has started{_waiting(event)}")
        elif event.kind in FINAL:
            self._progress.flush()
            with self._lock:  # progress that is being shown meanwhile must not have the last word
                self._current = None
            self.bar.value = 1 if event.kind == "finished" else 0
            self._tell_end(event)
        self._show_list()

    def _tell_end(self, event: Event) -> None:
        if event.kind == "failed":
            self._session.notice.note(f"{event.label} failed: {event.error}")
            self._say(f"{event.label} failed")
        elif event.kind == "cancelled":
            self._say(f"{event.label} was cancelled; finished runs are kept")
        else:
            self._say(f"{event.label} was done already" if event.cached else f"{event.label} done")

    def _show_progress(self, event: Event) -> None:
        if self._current != event.job:
            return
        now = time.monotonic()
        if event.stage != self._stage:
            self._stage, self._stage_started = event.stage, now
        share = min(event.done / max(event.total, 1), 1.0)
        where = words_of(event.stage, event.done, event.total, shortened(event.detail, 40))
        left = self._left(event, share, now)
        with self._lock:
            if self._current == event.job:
                self.bar.value = share
                self._say(f"{event.label}: {where}{left}{_waiting(event)}")

    def _left(self, event: Event, share: float, now: float) -> str:
        """Return the time that is left: of the stage, and of the whole run by earlier ones."""
        guesses = []
        taken = now - self._stage_started
        if event.stage == "train" and event.recipe:
            return self._training_left(event, share, taken)
        if share > 0 and taken > 1:
            guesses.append(taken * (1 - share) / share)
        if event.recipe:
            recipe = Recipe.from_json(event.recipe)
            whole = estimate_seconds(self._session.records, recipe, event.model)
            if whole is not None:
                guesses.append(whole - (now - self._started))
        if not guesses or max(guesses) < 1:
            return ""
        seconds = max(guesses)
        text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f", about {text} left"

    def _training_left(self, event: Event, share: float, taken: float) -> str:
        """Return between which times a training ends: as soon as patience allows, or at the end."""
        trained = [s for s in Recipe.from_json(event.recipe).steps if isinstance(s, Training)]
        if event.done < 2 or not trained or not share:
            return ""
        whole = taken / share
        soon = max(0.0, whole * earliest_end(trained[-1]) - taken)
        return f", {duration(soon, whole - taken)} left"

    def _show_list(self) -> None:
        with self._lock:
            entries = dict(self._entries)
        study = self._session.study
        queue = [n for n in (study.queue if study.is_open else ()) if n in entries]
        options = list(zip(distinct([entries[n].label for n in queue], 38), queue, strict=True))
        if list(self.waiting.options) != options:
            kept = self.waiting.value
            self.waiting.options = options
            self.waiting.value = kept if kept in queue else next(iter(queue), None)
        show(self._waiting, is_shown=bool(queue))
        others = [entry for entry in entries.values() if entry.state in FINAL]
        shown = list(reversed(others[-MOST_SHOWN:]))
        marks = {"finished": "✓", "failed": "✕", "cancelled": "–"}
        rows = "".join(
            f'<li class="wb-{entry.state}"><span aria-hidden="true">{marks[entry.state]}</span>'
            f" {html.escape(shortened(entry.label, 40))} <em>{entry.state}</em>"
            + (f"<small>{html.escape(shortened(entry.note, 200))}</small>" if entry.note else "")
            + "</li>"
            for entry in shown
        )
        self.list.value = f'<ul class="wb-jobs">{rows}</ul>'

    def _say(self, text: str) -> None:
        self.status.value = f'<span role="status">{html.escape(text)}</span>'


def _waiting(event: Event) -> str:
    return f", {event.waiting} more waiting" if event.waiting else ""
