"""Let a small model answer what it is sure of, and a larger one the rest: a cascade of runs."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.report import cascade_code
from workbench.app.panels.router import RouterPanel
from workbench.app.parts.controls import (
    SEVERAL,
    about,
    about_html,
    button,
    card,
    classed,
    columns,
    dropdown,
    row,
    several_of,
    share,
)
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.parts.run_picker import RunPicker
from workbench.app.session import Session
from workbench.recipes.recipe import shortened
from workbench.records import RunRecord
from workbench.selection.cascades import SIGNALS, Cascade, cascade_of, facts
from workbench.tasks.output import Output
from workbench.views.figures import cascade_figure
from workbench.views.run_names import run_names

LACKS = "Choose two runs or more; the smallest is asked first."
OTHER_TASK = (
    "A cascade asks how sure a model is of one answer per example, so it needs a classification"
    " task (a labelled table on the Start tab). This study's task is {kind}."
)


class RoutingPanel(StudyPanel):
    """The tiers and their signal on the left; accuracy against cost, words and a table right.

    Computed from stored outcomes in a process of its own; only validation parts that were never
    evaluated are, the first time.

    Attributes
    ----------
    runs : ipywidgets.SelectMultiple
        The tiers; they are asked in the order of their size.
    signal, cost : ipywidgets.Dropdown
    accuracy : ipywidgets.FloatSlider
    go : ipywidgets.Button
    answer : ipywidgets.HTML
    table : Rows
    router : RouterPanel
    is_possible : bool
        Whether the task has one answer per example, so that a cascade can be asked for.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard = self._guard
        kind = session.study.describe()["task"]["kind"]
        output = session.study.output
        self.is_possible = output.classifies
        self._is_timed = output is Output.LABELS  # a decoder's times are of tokens
        self.runs = several_of("tiers", 9)
        self._tiers = RunPicker(session, self.runs, guard(self._choose), most=34, facts=True)
        self.order, self.answer = w.HTML(), w.HTML()
        self.signal = dropdown(
            "signal", SIGNALS, tooltip="How sure a model is: the likeliest class's probability, its"
            " lead over the next, or minus the entropy of all",
        )  # fmt: skip
        self.accuracy = share(
            "keep at least", 1.0, 0.9, 1.0, 0.005,
            tooltip="Share of the last model's accuracy, on the validation part",
        )  # fmt: skip
        self.cost = dropdown("against", tooltip="What a query to a model costs")
        self._question = InspectorQuestion(session, "Routing", self._switch)
        self.go = button(
            "Show", "play", "From stored outcomes; a validation part that lacks is evaluated first",
            guard(lambda _: self._show()), primary=True,
        )  # fmt: skip
        self.place = FigureSlot()
        self.table = Rows(height="260px")
        self.router = RouterPanel(session)
        self._usual: str | None = None  # the cost that was offered last
        session.prices.listen(self.notice.watch(self._offer_costs))
        left = card(
            "Small first, larger for the hard cases", about(f"{LACKS} {SEVERAL}."), self.runs,
            self.order, self.signal, self.accuracy, self.cost, row(self.go, self._question.stop),
            self.notice.widget, self._question.status,
        )  # fmt: skip
        found = card("", self.answer, self.place.widget, self.table)
        right = classed(w.VBox([found, self.router.widget]), "wb-column")
        self.widget = columns("wb-form-side", left, right)
        self.refresh()
        self._say("" if self.is_possible else OTHER_TASK.format(kind=kind.replace("_", " ")))

    def code(self) -> str:
        """Return the Python of the cascade that is shown, ``""`` if none is."""
        asked = self._session.cascade.value
        return "" if asked is None else cascade_code(asked)

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def _refresh(self) -> None:
        """Offer the finished runs; what is shown stays."""
        self._tiers.offer(self._done())
        self._offer_costs()
        self._switch()

    def _done(self) -> list[RunRecord]:
        return sorted(self._session.done, key=lambda record: record.size_bytes or 0)

    def _choose(self) -> None:
        names = run_names((r for r in self._done() if r.id in self.runs.value), 30).values()
        self.order.value = about_html(" → ".join(names) if len(names) > 1 else "")
        self._switch()

    def _switch(self) -> None:
        enough = len(self.runs.value) > 1
        self.go.disabled = self._question.is_busy or not enough or not self.is_possible

    def _offer_costs(self) -> None:
        options: list[tuple[str, str]] = [("size: MB that are read", "size")]
        if self._is_timed:
            options.append(("measured latency", "latency"))
        if self._session.prices.value is not None:
            options.append(("dollars at your prices", "dollars"))
        kept = self.cost.value
        if list(self.cost.options) != options:
            self.cost.options = options
        done = self._done() if self._is_timed else []
        timed = bool(done) and all(r.measurement("latency_ms") is not None for r in done)
        usual, self._usual = self._usual, "latency" if timed else "size"
        is_chosen = kept != usual and kept in [value for _, value in options]
        self.cost.value = kept if is_chosen else self._usual

    def _show(self) -> None:
        runs = [record.id for record in self._done() if record.id in self.runs.value]
        cost: Any = self.cost.value
        if cost == "dollars":
            assert self._session.prices.value is not None
            cost = dataclasses.asdict(self._session.prices.value)
        asked = {
            "runs": runs,
            "signal": self.signal.value,
            "accuracy": round(self.accuracy.value, 6),
            "cost": cost,
        }
        self._question.ask(
            "cascade",
            lambda found: self._answered(asked, found),
            "Looking at the outcomes of each model …",
            **asked,
        )

    def _answered(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        found, unit = cascade_of(told["found"]), told["unit"]
        self._session.cascade.set(asked)
        self._session.history.keep("cascade", f"cascade = {self.code()}\nprint(cascade)")
        self._say(told["words"], _threshold(found, asked["signal"]), found.winner)
        self.place.draw(lambda: cascade_figure(found, unit))
        self._tabulate(found, unit)

    def _tabulate(self, found: Cascade, unit: str) -> None:
        heads = [
            ("", "text"), ("accuracy", ""), (f"{unit} a query", ""), ("first answers", ""),
            ("ms, usual text", ""), ("p50, ms", ""), ("p95, ms", ""), ("p99, ms", ""),
        ]  # fmt: skip
        rows: list[tuple[str, list[object]]] = []
        for fact in facts(found):
            measured = fact["p50_ms"] is not None
            rows.append(
                (
                    "",
                    [
                        shortened(str(fact["what"]), 40),
                        _number(fact["accuracy"], ".1%"),
                        _number(fact["cost"], ".4g"),
                        _number(fact["first_answers"], ".0%"),
                        _number(fact["latency_ms"], ".3g"),
                        *(
                            _number(fact[name], ".3g", "too few" if measured else "not measured")
                            for name in ("p50_ms", "p95_ms", "p99_ms")
                        ),
                    ],
                )
            )
        self.table.html = rows_html(heads, rows)

    def _say(self, *texts: str) -> None:
        kind = {"cascade": "pass", "single": "none"}.get(texts[-1], "maybe")
        shown = "".join(f"<p>{html.escape(text)}</p>" for text in texts[:2] if text)
        self.answer.value = (
            f'<div class="wb-answer wb-answer-{kind}" role="status">{shown}</div>'
            if shown
            else '<div class="wb-about">Choose the tiers and press Show.</div>'
        )


def _threshold(found: Cascade, signal: str) -> str:
    """Return which queries stay, tier by tier."""
    parts = [
        f"{shortened(name, 30)} answers where its {signal} is at least {level:.3g}"
        if level != float("inf")
        else f"{shortened(name, 30)} passes everything on"
        for name, level in zip(found.tiers, found.validation.thresholds, strict=False)
    ]
    return f"Chosen on the validation part: {'; '.join(parts)}."


def _number(value: Any, form: str, lacking: str = "–") -> str:
    return lacking if value is None else format(value, form)
