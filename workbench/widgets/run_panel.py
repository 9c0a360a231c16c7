"""Choose a method, run it in the study's worker process, watch it, cancel it."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.sweep import Event
from workbench.widgets.banner import Banner
from workbench.widgets.form import MethodForm
from workbench.widgets.throttle import Throttle

if TYPE_CHECKING:
    from workbench.study import Study


class RunPanel:
    """The form with its Run and Cancel buttons and a progress bar.

    A click only submits or cancels; runs are computed in the study's worker process, so the
    kernel stays free.

    Parameters
    ----------
    study : Study
    banner : Banner
        Where errors are shown.
    on_change : callable
        Called, in a background thread, when a run has started or ended.
    """

    def __init__(
        self, study: Study, banner: Banner, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._study = study
        self._banner = banner
        self._on_change = on_change
        self._busy = False
        self._code = w.HTML()
        self.form = MethodForm(banner.guard(self._show_code))
        self.run = w.Button(
            description="Run", icon="play", button_style="primary", tooltip="Compute this recipe"
        )
        self.cancel = w.Button(
            description="Cancel",
            icon="stop",
            disabled=True,
            tooltip="Stop the current run and forget those that wait; finished runs are kept",
        )
        self.run.on_click(banner.guard(self._run))
        self.cancel.on_click(banner.guard(self._cancel))
        self.bar = w.IntProgress(min=0, max=1, layout=w.Layout(width="auto", max_width="460px"))
        self.status = w.HTML("Nothing is running.")
        self._progress = Throttle(self._show_progress)
        self.widget = w.VBox(
            [
                self.form.widget,
                w.HBox([self.run, self.cancel]),
                self.bar,
                self.status,
                self._code,
            ],
            layout=w.Layout(width="100%"),
        )
        self._show_code()

    def code(self) -> str:
        """Return the Python that does what the Run button does."""
        return f"study.run({self.form.code()})"

    def _run(self, _: Any) -> None:
        step = self.form.value
        self._banner.clear()
        self._study.submit([step], on_event=self.on_event)

    def _cancel(self, _: Any) -> None:
        self.cancel.disabled = True
        self.status.value = "Cancelling …"
        self._study.cancel()

    def on_event(self, event: Event) -> None:
        """Show an event of the study's worker; called in a background thread."""
        try:
            self._show(event)
        except Exception as error:
            self._banner.error(error)

    def _show(self, event: Event) -> None:
        if event.kind == "progress":
            self._progress(event)
            return
        if event.kind == "queued":
            self.cancel.disabled = False
            if not self._busy:
                self._say(f"{event.label} is waiting for the worker process …")
        elif event.kind == "started":
            self._busy = True
            self.cancel.disabled = False
            self.bar.value, self.bar.max = 0, 1
            self._say(f"{event.label} has started{_waiting(event)}")
            self._on_change()
        elif event.kind == "idle":
            self._busy = False
            self.cancel.disabled = True
        else:
            self._progress.flush()
            self.bar.value = self.bar.max if event.kind == "finished" else 0
            self._tell_end(event)
            self._on_change()

    def _tell_end(self, event: Event) -> None:
        if event.kind == "failed":
            self._banner.note(f"{event.label} failed: {event.error}")
            self._say(f"{event.label} failed")
        elif event.kind == "cancelled":
            self._say(f"{event.label} was cancelled; finished runs are kept")
        else:
            self._say(f"{event.label} was done already" if event.cached else f"{event.label} done")

    def _show_progress(self, event: Event) -> None:
        if not self._busy:
            return
        self.bar.max = max(event.total, 1)
        self.bar.value = min(event.done, self.bar.max)
        where = f"{event.stage} {event.done}/{event.total} {event.detail}".rstrip()
        self._say(f"{event.label}: {where}{_waiting(event)}")

    def _say(self, text: str) -> None:
        self.status.value = f'<span role="status">{html.escape(text)}</span>'

    def _show_code(self) -> None:
        try:
            code = self.code()
        except Exception:  # values that do not go together are refused when Run is clicked
            code = ""
        self._code.value = f"<code>{html.escape(code)}</code>"


def _waiting(event: Event) -> str:
    return f", {event.waiting} more waiting" if event.waiting else ""
