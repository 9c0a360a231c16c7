"""The live plot: one figure at a time, changed in place, a few times a second at most."""

from __future__ import annotations

import base64
import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.parts.live_figure import LiveFigure
from workbench.app.parts.measure_button import MeasureButton
from workbench.app.parts.throttle import Throttle
from workbench.app.session import Session
from workbench.atomic_files import write_file
from workbench.errors import StudyError
from workbench.records import RunState
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
from workbench.views.figures.live import OVERLAYS, draft_trace, frame_with, region, ring, x_range

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction
    from workbench.recipes.recipe import Recipe

AXES = (("size", "size"), ("latency", "latency"), ("memory", "memory"))


class FrontierPanel:
    """A metric against size, latency or memory, with all that is measured, predicted or waiting.

    Parameters
    ----------
    session : Session
    on_predicted : callable
        Called with the recipe of a predicted point that was clicked.
    on_measured : callable
        Called, in a background thread, when speeds were measured.

    Attributes
    ----------
    widget : ipywidgets.Widget
    metric, axis : ipywidgets.Dropdown
    log_x, log_y : ipywidgets.Checkbox
    figure : LiveFigure
    """

    def __init__(
        self,
        session: Session,
        on_predicted: Callable[[Recipe], None] = lambda recipe: None,
        on_measured: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._on_predicted = on_predicted
        self._lock = threading.RLock()
        self._draft: Prediction | None = None
        self._pending: tuple[tuple[Prediction, str], ...] = ()
        self.overlay = Overlay()
        names = [metric.name for metric in session.study.metrics]
        self.metric = _dropdown([(name.replace("_", " "), name) for name in names], "metric")
        self.axis = _dropdown(list(AXES), "against")
        self.log_x = _check("log x", "Spread small models out")
        self.log_y = _check("log y", "Spread good models out")
        self.save = w.Dropdown(
            options=[("Save …", ""), ("as SVG", "svg"), ("as HTML", "html")],
            tooltip="Save the plot in the study's folder; the camera above the plot saves a PNG",
            layout=w.Layout(width="auto"),
        )
        self._measuring = MeasureButton(
            session,
            self._to_measure,
            on_measured,
            tooltip="Latency and memory of the selected runs and the base model, on this machine",
            lacks="Select the runs to measure first, in the plot or the table.",
            then="Choose latency or memory as the axis.",
        )
        self.measure = self._measuring.button
        self.note = w.HTML()
        self.note.add_class("wb-note")
        self.caption = w.HTML()
        self.caption.add_class("wb-caption")
        self._view = self._read()
        self.figure = self._new_figure()
        for control in (self.metric, self.axis):
            control.observe(session.banner.guard(lambda _: self._refresh()), names="value")
        for control in (self.log_x, self.log_y):
            control.observe(session.banner.guard(lambda _: self._draw()), names="value")
        self.save.observe(session.banner.guard(self._save), names="value")
        session.selection.listen(self._ring)
        bar = w.HBox(
            [
                self.metric, self.axis, self.log_x, self.log_y, self.save, self.measure,
                self._measuring.stop,
            ]
        )  # fmt: skip
        bar.add_class("wb-toolbar")
        self._place = w.VBox([self.figure])
        self.widget = w.VBox([bar, self._place, self.caption, self._measuring.status, self.note])
        self.widget.add_class("wb-frontier")
        self.refresh = Throttle(session.banner.guard(self._refresh))

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

    def show_draft(self, prediction: Prediction | None) -> None:
        """Move the hollow point of the recipe that is being edited; only that is drawn anew."""
        with self._lock:
            self._draft = prediction
            draft = self._place_of(prediction)
            self.overlay = _with(self.overlay, draft=draft)
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

    def show_bar(self, most: dict[str, float], bar: float | None) -> None:
        """Shade what is accepted: at most so much on an axis, at least so good."""
        with self._lock:
            self._most, self._bar = most, bar
            self.overlay = _with(self.overlay, **self._asked())
            self.figure.layout.shapes = [region(self.overlay, self._frame())]

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
    _most: dict[str, float] = {}  # noqa: RUF012 - replaced, never changed
    _bar: float | None = None

    def _asked(self) -> dict[str, float | None]:
        """Return what is accepted in the units that are shown: the bar is of the first metric."""
        is_decisive = self.metric.value == self._session.study.metric.name
        return {"most": self._most.get(self.axis.value), "bar": self._bar if is_decisive else None}

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
            self.note.value = f'<span role="status">{html.escape(str(error))}</span>'
            return TradeoffView(self._session.study.metric)
        return figure.view

    def _frame(self) -> Frame:
        return frame_with(self._view, self.overlay.draft, log_x=self.log_x.value)

    def _new_figure(self) -> LiveFigure:
        self.caption.value = html.escape(footnote(self._view, self._frame()))
        figure = LiveFigure(
            live_figure(self._view, self.overlay, log_x=self.log_x.value, log_y=self.log_y.value)
        )
        for trace in figure.data[OVERLAYS:]:
            trace.on_click(self._session.banner.guard(self._clicked))
        return figure

    def _refresh(self) -> None:
        view = self._read()
        with self._lock:
            self._view = view
            found = [(self._place_of(prediction), state) for prediction, state in self._pending]
            self.overlay = _with(
                self.overlay,
                draft=self._place_of(self._draft),
                pending=tuple((point, state) for point, state in found if point is not None),
                **self._asked(),
            )
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            self.caption.value = html.escape(footnote(self._view, self._frame()))
            update_live(
                self.figure,
                self._view,
                self.overlay,
                log_x=self.log_x.value,
                log_y=self.log_y.value,
            )

    def _ring(self) -> None:
        with self._lock:
            self.overlay = _with(self.overlay, selected=self._session.selection.runs)
            with self.figure.batch_update():
                self.figure.data[0].update(ring(self._view, self.overlay.selected, self._frame()))

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if not points.point_inds or not trace.customdata:
            return
        id = trace.customdata[points.point_inds[0]]
        predicted = [p for p in self._view.predicted if p.recipe.id == id]
        if predicted:
            self._on_predicted(predicted[0].recipe)
        elif any(point.run_id == id for point in self._view.points):
            self._session.selection.toggle(id)

    def _to_measure(self) -> list[str]:
        """Return the selected runs, and the base models that have no times yet."""
        # Not of the points that are seen: against latency those without times have none.
        done = [r for r in self._session.study.records if r.state is RunState.DONE]
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
        self._session.banner.note(f"Saved {path}")


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


def _with(overlay: Overlay, **changes: Any) -> Overlay:
    from dataclasses import replace

    return replace(overlay, **changes)


def _dropdown(options: list[tuple[str, str]], text: str) -> w.Dropdown:
    return w.Dropdown(
        options=options,
        description=text,
        style={"description_width": "auto"},
        layout=w.Layout(width="auto"),
    )


def _check(text: str, tooltip: str) -> w.Checkbox:
    return w.Checkbox(
        description=text, tooltip=tooltip, indent=False, layout=w.Layout(width="auto")
    )
