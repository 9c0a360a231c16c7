"""When a run's answers can be believed: how sure it is, where it fails, and how steady it is."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.consistency import ConsistencyPanel
from workbench.app.parts.controls import (
    about_html,
    answer_html,
    button,
    buttons,
    card,
    classed,
    columns,
    one_of,
    row,
    share,
    show,
)
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows
from workbench.app.parts.run_picker import RunPicker
from workbench.app.parts.trust_views import VIEWS, View
from workbench.app.session import Session
from workbench.selection.trust import TrustView

START = "Choose a run and press Show. Its validation part is evaluated the first time."
OTHER_TASK = (
    "<p>Calibration, mistakes that a model is sure of, slices and consistency need one answer per"
    " example: a classification task, such as a labelled table on the Start tab. This study's task"
    " is {kind}.</p><p>What tells you when to believe a run of it: the 95 % intervals in the plot"
    " and the table; <b>Compare → Flips</b>, the examples that a run does worse or better;"
    " <b>Compare → Generate</b>, texts side by side; and the verdicts under <b>Choose &amp;"
    " keep</b>, which say whether a difference is sure.</p>"
)
_STEADY = "Consistency"


class TrustPanel(StudyPanel):
    """One run at a time, one question per view.

    Attributes
    ----------
    run : ipywidgets.Select
    threshold : ipywidgets.FloatSlider
        Confidence from which a mistake counts as a confident one.
    view : ipywidgets.ToggleButtons
    go : ipywidgets.Button
    summary : ipywidgets.HTML
    table : Rows
    consistency : ConsistencyPanel
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._known: dict[tuple[str, float], TrustView] = {}
        guard = self._guard
        self.run = one_of("run", 12)
        self._runs = RunPicker(session, self.run, guard(self._draw), follows=True)
        self.threshold = share(
            "sure from", 0.9, 0.5, 0.99, 0.01, label="70px",
            tooltip="Confidence from which a mistake counts as a confident one",
        )  # fmt: skip
        self._question = InspectorQuestion(session, "Trust", self._switch)
        self.go = button("Show", "play", on_click=guard(lambda _: self._show()), primary=True)
        tips = [view.about for view in VIEWS.values()]
        self.view = buttons(
            [*VIEWS, _STEADY],
            kind="wb-subnav",
            tooltips=[*tips, "Whether answers stay where texts vary"],
        )
        self.summary, self.about = w.HTML(), w.HTML()
        self.place = FigureSlot()
        self.table = Rows(searchable=True, label="Search", height="420px")
        self.consistency = ConsistencyPanel(session)
        for control in (self.threshold, self.view):
            control.observe(guard(lambda _: self._draw()), names="value")
        left = card(
            "Run", self.run, self.threshold, row(self.go, self._question.stop),
            self.notice.widget, self._question.status,
        )  # fmt: skip
        self._views = w.VBox([self.summary, self.about, self.place.widget, self.table])
        right = card("", self.view, self._views, self.consistency.widget)
        kind = session.study.describe()["task"]["kind"]
        if session.study.output.classifies:
            self.widget = columns("wb-split", left, right)
        else:
            told = OTHER_TASK.format(kind=html.escape(kind.replace("_", " ")))
            self.widget = w.HBox([classed(w.HTML(f"<h3>Trust</h3>{told}"), "wb-card", "wb-lead")])
        self.refresh()
        self._draw()

    def code(self) -> str:
        """Return the Python that makes what is shown, ``""`` where nothing is."""
        return "" if self._found() is None else _code(self.run.value, self.threshold.value)

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def _refresh(self) -> None:
        """Offer the finished runs; what is shown of the chosen one stays."""
        self._runs.offer(self._session.done)
        self._switch()

    def _switch(self) -> None:
        known = self._found() is not None
        self.go.disabled = self._question.is_busy or known or self.run.value is None

    def _found(self) -> TrustView | None:
        return self._known.get((self.run.value or "", self.threshold.value))

    def _show(self) -> None:
        key = (self.run.value, self.threshold.value)

        def answered(told: Any) -> None:
            self._known[key] = TrustView.from_dict(told)
            self._draw()
            # of what was asked: another run may be chosen by now
            self._session.history.keep("trust", f"trust = {_code(*key)}\nprint(trust)")

        self._question.ask(
            "trust",
            answered,
            "Loading the models in a process of its own …",
            run=key[0],
            threshold=key[1],
        )

    def _draw(self) -> None:
        """Show the chosen view of the chosen run, if that is known."""
        self._switch()
        is_steady = self.view.value == _STEADY
        show(self._views, self.go, self._question.stop, is_shown=not is_steady)
        show(self.consistency.widget, is_shown=is_steady)
        show(self.threshold, is_shown=self.view.value == "Sure mistakes")
        if is_steady:
            self.consistency.run = self.run.value
            self.consistency.refresh()
            self.place.clear()
            return
        found = self._found()
        view: View = VIEWS[self.view.value]
        self.about.value = about_html(view.about)
        show(self.table, is_shown=found is not None)
        if found is None:
            self.summary.value = about_html(START)
            self.place.clear()
            self.table.html = ""
            return
        self.summary.value = answer_html(view.words(found))
        figure = view.figure
        if figure is None:
            self.place.clear()
        else:
            self.place.draw(lambda: figure(found))
        self.table.html = view.rows(found)


def _code(run: str, threshold: float) -> str:
    given = "" if threshold == 0.9 else f", threshold={threshold:g}"
    return f"study.trust({run!r}{given})"
