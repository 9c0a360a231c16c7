"""When a run's answers can be believed: how sure it is, where it fails, and how steady it is."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w

from workbench.app.panels.consistency import ConsistencyPanel
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows
from workbench.app.parts.run_options import offered
from workbench.app.parts.trust_views import VIEWS, View
from workbench.app.session import Session
from workbench.recipes.recipe import shortened
from workbench.records import RunState
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


class TrustPanel:
    """One run at a time, one question per view.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
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
        self._session = session
        self._known: dict[tuple[str, float], TrustView] = {}
        self._is_loading = False
        guard = session.banner.guard
        self.run = w.Select(
            rows=12,
            description="run",
            style={"description_width": "0px"},
            layout=w.Layout(width="100%"),
        )
        self.threshold = w.FloatSlider(
            value=0.9,
            min=0.5,
            max=0.99,
            step=0.01,
            readout_format=".0%",
            description="sure from",
            tooltip="Confidence from which a mistake counts as a confident one",
            continuous_update=False,
            style={"description_width": "70px"},
            layout=w.Layout(width="auto"),
        )
        self._question = InspectorQuestion(session, "Trust", self._switch)
        self.go = w.Button(
            description="Show", icon="play", button_style="primary", layout=w.Layout(width="auto")
        )
        tips = [view.about for view in VIEWS.values()]
        self.view = w.ToggleButtons(
            options=[*VIEWS, _STEADY], tooltips=[*tips, "Whether answers stay where texts vary"]
        )
        self.view.add_class("wb-subnav")
        self.summary, self.about = w.HTML(), w.HTML()
        self.place = FigureSlot()
        self.table = Rows(searchable=True, label="Search", height="420px")
        self.consistency = ConsistencyPanel(session, lambda: self.run.value)
        self.run.observe(guard(lambda _: self._draw()), names="value")
        self.threshold.observe(guard(lambda _: self._draw()), names="value")
        self.view.observe(guard(lambda _: self._draw()), names="value")
        self.go.on_click(guard(lambda _: self._show()))
        session.selection.listen(guard(self._follow))
        buttons = w.HBox([self.go, self._question.stop])
        buttons.add_class("wb-buttons")
        left = w.VBox(
            [w.HTML("<h3>Run</h3>"), self.run, self.threshold, buttons, self._question.status]
        )
        self._views = w.VBox([self.summary, self.about, self.place.widget, self.table])
        right = w.VBox([self.view, self._views, self.consistency.widget])
        for part in (left, right):
            part.add_class("wb-card")
        self.widget = w.HBox([left, right])
        self.widget.add_class("wb-split")
        if not session.study.output.classifies:
            kind = html.escape(session.study.describe()["task"]["kind"].replace("_", " "))
            only = w.HTML(f"<h3>Trust</h3>{OTHER_TASK.format(kind=kind)}")
            only.add_class("wb-card")
            only.add_class("wb-lead")
            self.widget.children = [only]
            self.widget.remove_class("wb-split")
        self.refresh()
        self._draw()

    def code(self) -> str:
        """Return the Python that makes what is shown, ``""`` where nothing is."""
        return "" if self._found() is None else _code(self.run.value, self.threshold.value)

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def refresh(self) -> None:
        """Offer the finished runs; what is shown of the chosen one stays."""
        self._offer()
        self._switch()

    def _offer(self) -> None:
        done = [r for r in self._session.study.records if r.state is RunState.DONE]
        options = [
            (
                shortened(r.label if r.recipe.steps else f"{r.model} (dense)", 40),
                r.id,
            )
            for r in offered(self._session, done, [self.run.value])
        ]
        if list(self.run.options) != options:
            kept, ids = self.run.value, [id for _, id in options]
            self._is_loading = kept in ids  # the list forgets its choice for a moment
            self.run.options = options
            self.run.value = kept if kept in ids else (ids[-1] if ids else None)
            self._is_loading = False

    def _follow(self) -> None:
        chosen = self._session.selection.runs
        self._offer()
        if chosen and chosen[-1] in [id for _, id in self.run.options]:
            self.run.value = chosen[-1]

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
        if self._is_loading:
            return
        self._switch()
        is_steady = self.view.value == _STEADY
        self._views.layout.display = "none" if is_steady else ""
        self.consistency.widget.layout.display = "" if is_steady else "none"
        self.threshold.layout.display = "" if self.view.value == "Sure mistakes" else "none"
        self.go.layout.display = self._question.stop.layout.display = "none" if is_steady else ""
        if is_steady:
            self.consistency.refresh()
            self.place.clear()
            return
        found = self._found()
        view: View = VIEWS[self.view.value]
        self.about.value = f'<div class="wb-about">{html.escape(view.about)}</div>'
        if found is None:
            self.summary.value = f'<div class="wb-about">{START}</div>'
            self.place.clear()
            self.table.html = ""
            self.table.layout.display = "none"
            return
        words = html.escape(view.words(found))
        self.summary.value = f'<div class="wb-answer" role="status">{words}</div>'
        figure = view.figure
        if figure is None:
            self.place.clear()
        else:
            self.place.draw(lambda: figure(found))
        self.table.html = view.rows(found)
        self.table.layout.display = ""


def _code(run: str, threshold: float) -> str:
    given = "" if threshold == 0.9 else f", threshold={threshold:g}"
    return f"study.trust({run!r}{given})"
