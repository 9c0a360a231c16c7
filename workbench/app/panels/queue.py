"""What waits, runs and has ended: progress, the time that is left, and cancelling."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import ipywidgets as w

from workbench.app.parts.throttle import Throttle
from workbench.app.session import Session
from workbench.prediction.estimates import estimate_seconds
from workbench.recipes.recipe import Recipe, shortened
from workbench.study.running.runner import FINAL, Event

MOST_SHOWN = 8
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
    """

    label: str
    recipe: str
    state: str
    note: str = ""


class QueuePanel:
    """The queue of the study's worker process.

    Clicks only submit and cancel; everything is computed in the worker, so the kernel stays free.

    Parameters
    ----------
    session : Session
    on_change : callable
        Called, in a background thread, when a job has started or ended.

    Attributes
    ----------
    widget : ipywidgets.Widget
    cancel, cancel_all : ipywidgets.Button
    bar : ipywidgets.FloatProgress
    status, list : ipywidgets.HTML
    """

    def __init__(
        self, session: Session, on_change: Callable[[Event], None] = lambda event: None
    ) -> None:
        self._session = session
        self._on_change = on_change
        self._lock = threading.Lock()
        self._entries: dict[int, Entry] = {}
        self._current: int | None = None
        self._follower: QueuePanel | None = None
        self._started = self._stage_started = 0.0
        self._stage = ""
        self.cancel = w.Button(
            description="Cancel",
            icon="stop",
            disabled=True,
            tooltip="Stop the current run and go on with the next; finished runs are kept",
            layout=w.Layout(width="auto"),
        )
        self.cancel_all = w.Button(
            description="Cancel all",
            icon="ban",
            disabled=True,
            tooltip="Stop the current run and forget those that wait; finished runs are kept",
            layout=w.Layout(width="auto"),
        )
        self.cancel.on_click(session.banner.guard(lambda _: self._cancel(current_only=True)))
        self.cancel_all.on_click(session.banner.guard(lambda _: self._cancel(current_only=False)))
        self.bar = w.FloatProgress(min=0, max=1, layout=w.Layout(width="100%"))
        self.status = w.HTML()
        self.list = w.HTML()
        self._progress = Throttle(self._show_progress)
        buttons = w.HBox([self.cancel, self.cancel_all])
        buttons.add_class("wb-buttons")
        self.widget = w.VBox([w.HTML("<h3>Queue</h3>"), self.status, self.bar, buttons, self.list])
        self.widget.add_class("wb-card")
        self.widget.add_class("wb-queue")
        self._say(IDLE)

    @property
    def pending(self) -> tuple[tuple[Recipe, str], ...]:
        """Recipes that wait or are being computed, and which of the two."""
        words = {"queued": "queued", "started": "running"}
        with self._lock:
            entries = list(self._entries.values())
        return tuple(
            (Recipe.from_json(entry.recipe), words[entry.state])
            for entry in entries
            if entry.state in words and entry.recipe
        )

    def submit(self, recipes: list[Recipe]) -> None:
        """Queue recipes and return at once."""
        self._session.study.submit(recipes, on_event=self.on_event)

    def submit_predictions(self) -> None:
        """Queue the predictions of the study's first model, after what waits already."""
        self._session.study.submit_tabulate(on_event=self.on_event)

    def code(self) -> str:
        """Return the Python that stops what the Cancel all button stops."""
        return "study.cancel()"

    def _cancel(self, *, current_only: bool) -> None:
        self.cancel.disabled = True
        self._say("Cancelling …")
        self._session.study.cancel(current_only=current_only)

    def follow(self, earlier: QueuePanel) -> None:
        """Show what another panel's clicks have queued, and all that comes of it."""
        with earlier._lock:
            self._entries, self._current = dict(earlier._entries), earlier._current
            earlier._follower = self
        self._started = self._stage_started = time.monotonic()
        self.cancel.disabled = earlier.cancel.disabled
        self.cancel_all.disabled = earlier.cancel_all.disabled
        self.bar.value, self.status.value = earlier.bar.value, earlier.status.value
        self._show_list()

    def on_event(self, event: Event) -> None:
        """Show an event of the study's worker; called in a background thread."""
        if self._follower is not None:
            self._follower.on_event(event)
        try:
            self._show(event)
        except Exception as error:
            self._session.banner.error(error)

    def _show(self, event: Event) -> None:
        if event.kind == "progress":
            self._progress(event)
            return
        if event.kind == "idle":
            self._current = None
            self.cancel.disabled = self.cancel_all.disabled = True
            return
        with self._lock:
            old = self._entries.get(event.job, Entry(event.label, event.recipe, ""))
            note = event.error or ("was done already" if event.cached else "")
            self._entries[event.job] = replace(old, state=event.kind, note=note)
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
        if event.kind != "queued":
            self._on_change(event)

    def _tell_end(self, event: Event) -> None:
        if event.kind == "failed":
            self._session.banner.note(f"{event.label} failed: {event.error}")
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
        where = f"{event.stage} {event.done}/{event.total} {shortened(event.detail, 40)}".rstrip()
        left = self._left(event, share, now)
        with self._lock:
            if self._current == event.job:
                self.bar.value = share
                self._say(f"{event.label}: {where}{left}{_waiting(event)}")

    def _left(self, event: Event, share: float, now: float) -> str:
        """Return the time that is left: of the stage, and of the whole run by earlier ones."""
        guesses = []
        taken = now - self._stage_started
        if share > 0 and taken > 1:
            guesses.append(taken * (1 - share) / share)
        if event.recipe:
            recipe = Recipe.from_json(event.recipe)
            whole = estimate_seconds(self._session.study.records, recipe, event.model)
            if whole is not None:
                guesses.append(whole - (now - self._started))
        if not guesses or max(guesses) < 1:
            return ""
        seconds = max(guesses)
        text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f", about {text} left"

    def _show_list(self) -> None:
        with self._lock:
            entries = list(self._entries.values())
        waiting = [entry for entry in entries if entry.state == "queued"]
        others = [entry for entry in entries if entry.state in FINAL]
        shown = [*waiting[:MOST_SHOWN], *reversed(others[-MOST_SHOWN:])]
        marks = {"queued": "…", "finished": "✓", "failed": "✕", "cancelled": "–"}
        rows = "".join(
            f'<li class="wb-{entry.state}"><span aria-hidden="true">{marks[entry.state]}</span>'
            f" {html.escape(shortened(entry.label, 40))} <em>{entry.state}</em>"
            + (f"<small>{html.escape(shortened(entry.note, 200))}</small>" if entry.note else "")
            + "</li>"
            for entry in shown
        )
        more = len(waiting) - MOST_SHOWN
        rows += f"<li>and {more} more waiting</li>" if more > 0 else ""
        self.list.value = f'<ul class="wb-jobs">{rows}</ul>'

    def _say(self, text: str) -> None:
        self.status.value = f'<span role="status">{html.escape(text)}</span>'


def _waiting(event: Event) -> str:
    return f", {event.waiting} more waiting" if event.waiting else ""
