"""The live plot: one figure at a time, changed in place, a few times a second at most."""

from __future__ import annotations

import base64
import html
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import about_html, check, classed, dropdown, row
from workbench.app.parts.live_figure import LiveFigure
from workbench.app.parts.measure_button import MeasureButton
from workbench.app.session import Session
from workbench.atomic_files import write_file
from workbench.errors import StudyError
from workbench.selection.compare import SIZE, PredictedPoint, TradeoffView, family_of
from workbench.selection.quality import LATENCY
from workbench.stored_paths import within
from workbench.views.figures import (
    Overlay,
    live_figure,
    static_svg,
    tradeoff_figure,
    update_live,
    write_html,
)
from workbench.views.figures.layout import Frame, footnote
from workbench.views.figures.live import (
    OVERLAYS,
    draft_trace,
    frame_with,
    region,
    region_note,
    ring,
    x_range,
)

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction

AXES = (("size", "size"), ("latency", "latency"), ("memory", "memory"))


class FrontierPanel(StudyPanel):
    """A metric against size, latency or memory, with all that is measured, predicted or waiting.

    Attributes
    ----------
    metric, axis : ipywidgets.Dropdown
    log_x, log_y, labels : ipywidgets.Checkbox
    figure : LiveFigure
    """

    interval = 0.25

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard, watch = self._guard, self.notice.watch
        self._lock = threading.RLock()
        self._pending: tuple[tuple[Prediction, str], ...] = ()
        self.overlay = Overlay()
        names = [metric.name for metric in session.study.metrics]
        look = {"label": "auto"}
        self.metric = dropdown("metric", [(n.replace("_", " "), n) for n in names], **look)
        self.axis = dropdown("against", AXES, **look)
        self.log_x = check("log x", "Spread small models out", indent=False)
        self.log_y = check("log y", "Spread good models out", indent=False)
        self.labels = check("names", "Of runs on the front, selected or with a star", indent=False)
        self.save = dropdown(
            "",
            [("Save …", ""), ("as SVG", "svg"), ("as HTML", "html")],
            tooltip="Save the plot in the study's folder; the camera above the plot saves a PNG",
        )
        self._measuring = MeasureButton(
            session,
            self.notice,
            self._to_measure,
            tooltip="Latency and memory of the selected runs and the base model, on this machine",
            lacks="Select the runs to measure first, in the plot or the table.",
            then="Choose latency or memory as the axis.",
        )
        self.measure = self._measuring.button
        self.note = classed(w.HTML(), "wb-note")
        self.caption = classed(w.HTML(), "wb-caption")
        self._view = self._read()
        draft = self._place_of(session.draft.value)
        self.overlay = replace(self.overlay, draft=draft, **self._asked())
        self.figure = self._new_figure()
        for control in (self.metric, self.axis):
            control.observe(guard(lambda _: self._refresh()), names="value")
        for control in (self.log_x, self.log_y, self.labels):
            control.observe(guard(lambda _: self._draw()), names="value")
        self.save.observe(guard(self._save), names="value")
        session.selection.listen(watch(self._ring))
        session.draft.listen(watch(self._show_draft))
        session.accepted.listen(watch(self._show_accepted))
        bar = row(
            self.metric, self.axis, self.log_x, self.log_y, self.labels, self.save, self.measure,
            self._measuring.stop, kind="wb-toolbar",
        )  # fmt: skip
        self._place = w.VBox([self.figure])
        self.widget = classed(
            w.VBox(
                [
                    bar, self.notice.widget, self._measuring.status, self._place, self.caption,
                    self.note,
                ]
            ),
            "wb-frontier",
        )  # fmt: skip

    @property
    def view(self) -> TradeoffView:
        """What the plot shows now."""
        return self._view

    def rebuild(self) -> None:
        """Replace the figure by a new one, because one changed before it is shown can be stale."""
        with self._lock:
            old = self.figure
            self._view = self._read()
            self.figure = self._new_figure()
            self._place.children = [self.figure]
            old.close()

    def _show_draft(self) -> None:
        """Move the hollow point of the recipe that is being edited; only that is drawn anew."""
        with self._lock:
            draft = self._place_of(self._session.draft.value)
            self.overlay = replace(self.overlay, draft=draft)
            frame = frame_with(self._view, draft, log_x=self.log_x.value)
            trace = draft_trace(self._view, draft, frame)
            with self.figure.batch_update():
                self.figure.data[OVERLAYS - 1].update(trace)
                if self._view.points and frame.x != self._shown_x:
                    self.figure.layout.xaxis.range = x_range(frame)
                    self._shown_x = frame.x

    def show_pending(self, pending: tuple[tuple[Prediction, str], ...]) -> None:
        """Show where what waits or runs is expected to come out."""
        if pending != self._pending:
            self._pending = pending
            self.refresh()

    def _show_accepted(self) -> None:
        """Shade what is accepted: at most so much on an axis, at least so good."""
        with self._lock:
            self.overlay = replace(self.overlay, **self._asked())
            frame = self._frame()
            with self.figure.batch_update():
                self.figure.layout.shapes = [region(self.overlay, frame)]
                self.figure.layout.annotations[-1].update(region_note(self.overlay, frame))

    def picture(self) -> str:
        """Return the plot as an image element that needs no script and no kernel."""
        svg = base64.b64encode(static_svg(self._view, log_x=self.log_x.value).encode()).decode()
        text = html.escape(f"{self._view.metric.name} against size, see the table for the numbers")
        return f'<img alt="{text}" src="data:image/svg+xml;base64,{svg}">'

    def code(self) -> str:
        """Return the Python that makes the plot."""
        given = []
        if self.metric.value != self._session.study.metric.name:
            given.append(repr(self.metric.value))
        if self.axis.value != "size":
            given.append(f"x={self.axis.value!r}")
        return f"study.plot({', '.join(given)})"

    _shown_x: tuple[float, float] | None = None

    def _asked(self) -> dict[str, Any]:
        """Return what is accepted in the units that are shown: the bar is of the first metric."""
        most, bar = self._session.accepted.value
        is_decisive = self.metric.value == self._session.study.metric.name
        return {"most": most.get(self.axis.value), "bar": bar if is_decisive else None}

    def _place_of(self, prediction: Prediction | None) -> PredictedPoint | None:
        """Return where a prediction is shown: only sizes and one metric are predicted."""
        if prediction is None or prediction.metric != self.metric.value:
            return None
        if self.axis.value != SIZE.name:
            return None
        return _point(prediction, self._session.study.models[0])

    def _read(self) -> TradeoffView:
        """Return the view of the chosen axis, of the size where nothing was measured on it."""
        self.note.value = ""
        try:
            figure = self._session.study.plot(self.metric.value, x=self.axis.value)
        except StudyError as error:
            if self.axis.value == SIZE.name:
                raise
            self.note.value = about_html(str(error), is_told=True)
            return TradeoffView(self._session.study.metric)
        return figure.view

    def _frame(self) -> Frame:
        return frame_with(self._view, self.overlay.draft, log_x=self.log_x.value)

    def _new_figure(self) -> LiveFigure:
        self.caption.value = html.escape(footnote(self._view, self._frame()))
        figure = LiveFigure(
            live_figure(self._view, self.overlay, log_x=self.log_x.value, log_y=self.log_y.value)
        )
        self._listen(figure, OVERLAYS)
        return figure

    def _listen(self, figure: LiveFigure, start: int) -> None:
        for trace in figure.data[start:]:
            trace.on_click(self._guard(self._clicked))

    def _refresh(self) -> None:
        view = self._read()
        with self._lock:
            self._view = view
            found = [(self._place_of(prediction), state) for prediction, state in self._pending]
            self.overlay = replace(
                self.overlay,
                draft=self._place_of(self._session.draft.value),
                pending=tuple((point, state) for point, state in found if point is not None),
                **self._asked(),
            )
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            stars = tuple(r.id for r in self._session.records if r.annotation.starred)
            named = self.labels.value
            self.overlay = replace(self.overlay, labelled=named, starred=stars if named else ())
            self.caption.value = html.escape(footnote(self._view, self._frame()))
            known = len(self.figure.data)
            update_live(
                self.figure,
                self._view,
                self.overlay,
                log_x=self.log_x.value,
                log_y=self.log_y.value,
            )
            self._listen(self.figure, known)

    def _ring(self) -> None:
        with self._lock:
            self.overlay = replace(self.overlay, selected=self._session.selection.runs)
            with self.figure.batch_update():
                self.figure.data[0].update(ring(self._view, self.overlay.selected, self._frame()))
            if self.labels.value:
                self._draw()

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if not points.point_inds or not trace.customdata:
            return
        id = trace.customdata[points.point_inds[0]]
        predicted = [p for p in self._view.predicted if p.recipe.id == id]
        if predicted:
            self._session.edited.emit(predicted[0].recipe)
        elif any(point.run_id == id for point in self._view.points):
            self._session.selection.toggle(id)

    def _to_measure(self) -> list[str]:
        """Return the selected runs, and the base models that have no times yet."""
        # Not of the points that are seen: against latency those without times have none.
        done = self._session.done
        chosen = [record.id for record in done if record.id in self._session.selection.runs]
        bases = [r.id for r in done if not r.recipe.steps and r.measurement(LATENCY) is None]
        return list(dict.fromkeys([*bases, *chosen])) if chosen else []

    def _save(self, change: Any) -> None:
        kind = self.save.value
        if not kind:
            return
        self.save.value = ""
        name = f"{self._view.metric.name}-against-{self._view.axis.name}.{kind}"
        path = within(Path(self._session.study.path), name)
        if kind == "svg":
            write_file(path, static_svg(self._view, log_x=self.log_x.value))
        else:
            figure = tradeoff_figure(self._view, log_x=self.log_x.value)
            write_html(figure, path, table=self._session.study.table(self.metric.value))
        self.notice.note(f"Saved {path}")


def _point(prediction: Prediction, model: str) -> PredictedPoint | None:
    if prediction.size_bytes is None or prediction.value is None or prediction.kl is None:
        return None
    return PredictedPoint(
        model=model,
        label=prediction.label,
        family=family_of(prediction),
        recipe=prediction.recipe,
        size_bytes=prediction.size_bytes,
        value=prediction.value,
        interval=prediction.interval,
        kl=prediction.kl,
        n_runs=prediction.n_runs,
        notes=prediction.notes,
    )
