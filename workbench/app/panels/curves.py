"""How trainings go: losses while they run, several runs overlaid."""

from __future__ import annotations

import threading
from dataclasses import replace

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import card, show
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.throttle import Throttle
from workbench.app.session import Session
from workbench.progress import losses_of
from workbench.study.running.runner import FINAL, Event
from workbench.views.curves import LossCurve, LossCurves, loss_curves

MOST_CURVES = 6
SECONDS = 1.0


class CurvesPanel(StudyPanel):
    """The training that runs, those that are selected, and the newest ones.

    Attributes
    ----------
    place : FigureSlot
    """

    interval = SECONDS

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._lock = threading.Lock()
        self._live: LossCurve | None = None
        self._drawn: tuple[str, ...] = ()
        self.place = FigureSlot()
        self._soon = Throttle(self.notice.watch(self._draw), SECONDS)
        self.widget: w.Widget = card("Training", self.notice.widget, self.place.widget)
        session.events.listen(self.notice.watch(self._hear))
        session.selection.listen(self.notice.watch(self._draw))
        self.refresh()

    def code(self) -> str:
        """Return the Python that draws the same curves."""
        chosen = [curve.run for curve in self.curves() if not curve.is_live]
        return f"study.loss_curves({chosen!r}).plot()" if chosen else ""

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def curves(self) -> tuple[LossCurve, ...]:
        """Return what is shown: the one that runs first, then selected ones, then the newest."""
        done = {curve.run: curve for curve in loss_curves(self._session.done).curves}
        order = [*(run for run in self._session.selection.runs if run in done), *reversed(done)]
        kept = [done[run] for run in dict.fromkeys(order)]
        with self._lock:
            live = self._live
        first = [] if live is None or live.run in done else [live]
        return tuple([*first, *kept][:MOST_CURVES])

    def _hear(self, event: Event) -> None:
        if event.kind == "progress" and event.stage == "train":
            loss, validation = losses_of(event.detail)
            if loss is None:
                return
            with self._lock:
                live = self._live
                if live is None or live.run != event.run:
                    live = LossCurve(event.run or "", event.label, (), is_live=True)
                if not live.loss or event.done > live.loss[-1][0]:
                    live = replace(live, loss=(*live.loss, (event.done, loss)))
                known = live.validation[-1][1] if live.validation else None
                if validation is not None and validation != known:
                    live = replace(live, validation=(*live.validation, (event.done, validation)))
                self._live = live
            self._soon()
        elif event.kind in FINAL and self._live is not None and self._live.run == event.run:
            with self._lock:
                self._live = None
            self._soon()

    def _refresh(self) -> None:
        self._draw()

    def _draw(self) -> None:
        found = LossCurves(self.curves())
        show(self.widget, is_shown=bool(found.curves))
        if not found.curves:  # no figure is made that nobody sees
            self._drawn = ()
            self.place.clear()
            return
        drawn = tuple(f"{curve.run}{curve.is_live}" for curve in found.curves)
        if self.place.figure is None or drawn != self._drawn:
            self._drawn = drawn
            self.place.draw(found.plot)
            return
        new = found.plot()
        with self.place.figure.batch_update():
            for old, trace in zip(self.place.figure.data, new.data, strict=True):
                old.update({"x": trace.x, "y": trace.y}, overwrite=False)
