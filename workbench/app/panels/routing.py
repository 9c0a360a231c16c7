"""Let a small model answer what it is sure of, and a larger one the rest: a cascade of runs."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.panels.report import cascade_code
from workbench.app.panels.router import RouterPanel
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.parts.run_options import offered
from workbench.app.session import Session
from workbench.recipes.recipe import shortened
from workbench.records import RunRecord, RunState
from workbench.selection.cascades import SIGNALS, Cascade, cascade_of, facts
from workbench.tasks.output import Output
from workbench.views.figures import cascade_figure

_WIDE = {"description_width": "104px"}
LACKS = "Choose two runs or more; the smallest is asked first."
OTHER_TASK = (
    "A cascade asks how sure a model is of one answer per example, so it needs a classification"
    " task (a labelled table on the Start tab). This study's task is {kind}."
)


class RoutingPanel:
    """The tiers and their signal on the left; accuracy against cost, words and a table right.

    Computed from stored outcomes in a process of its own; only validation parts that were never
    evaluated are, the first time.

    Parameters
    ----------
    session : Session
    on_found : callable
        Called when another cascade is shown.

    Attributes
    ----------
    widget : ipywidgets.Widget
    runs : ipywidgets.SelectMultiple
        The tiers; they are asked in the order of their size.
    signal, cost : ipywidgets.Dropdown
    accuracy : ipywidgets.FloatSlider
    go : ipywidgets.Button
    answer : ipywidgets.HTML
    table : Rows
    router : RouterPanel
    """

    def __init__(self, session: Session, on_found: Callable[[], None] = lambda: None) -> None:
        self._session = session
        self._on_found = on_found
        output = session.study.output
        kind = session.study.describe()["task"]["kind"].replace("_", " ")
        self._is_possible = output.classifies
        self._is_timed = output is Output.LABELS  # a decoder's times are of tokens
        guard = session.banner.guard
        self.runs = w.SelectMultiple(
            rows=9,
            description="tiers",
            tooltip="Ctrl or Shift selects several",
            style={"description_width": "0px"},
            layout=w.Layout(width="100%"),
        )
        self.order = w.HTML()
        self.signal = w.Dropdown(
            options=list(SIGNALS),
            description="signal",
            tooltip="How sure a model is: the likeliest class's probability, its lead over the"
            " next, or minus the entropy of all",
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self.accuracy = w.FloatSlider(
            value=1.0,
            min=0.9,
            max=1.0,
            step=0.005,
            readout_format=".1%",
            description="keep at least",
            tooltip="Share of the last model's accuracy, on the validation part",
            continuous_update=False,
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self.cost = w.Dropdown(
            description="against",
            tooltip="What a query to a model costs",
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self._question = InspectorQuestion(session, "Routing", self._switch)
        self.go = w.Button(
            description="Show",
            icon="play",
            button_style="primary",
            tooltip="From stored outcomes; a validation part that lacks is evaluated first",
            layout=w.Layout(width="auto"),
        )
        self.answer = w.HTML()
        self.place = FigureSlot()
        self.table = Rows(height="260px")
        self.router = RouterPanel(session)
        self._usual: str | None = None  # the cost that was offered last
        self.runs.observe(guard(lambda _: self._choose()), names="value")
        self.go.on_click(guard(lambda _: self._show()))
        session.prices.listen(guard(self._offer_costs))
        buttons = w.HBox([self.go, self._question.stop])
        buttons.add_class("wb-buttons")
        left = w.VBox(
            [
                w.HTML("<h3>Small first, larger for the hard cases</h3>"),
                w.HTML(f'<div class="wb-about">{LACKS} Ctrl or Shift selects several.</div>'),
                self.runs,
                self.order,
                self.signal,
                self.accuracy,
                self.cost,
                buttons,
                self._question.status,
            ]
        )
        self._right = w.VBox([self.answer, self.place.widget, self.table])
        for part in (left, self._right):
            part.add_class("wb-card")
        right = w.VBox([self._right, self.router.widget])
        right.add_class("wb-column")
        self.widget = w.HBox([left, right])
        self.widget.add_class("wb-form-side")
        self.refresh()
        self._say("" if self._is_possible else OTHER_TASK.format(kind=kind))

    def code(self) -> str:
        """Return the Python of the cascade that is shown, ``""`` if none is."""
        return "" if self._session.cascade is None else cascade_code(self._session.cascade)

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def refresh(self) -> None:
        """Offer the finished runs; what is shown stays."""
        metric = self._session.study.metric.name
        shown = offered(self._session, self._done(), self.runs.value)
        options = [(_option(record, metric), record.id) for record in shown]
        if list(self.runs.options) != options:
            kept = [run for run in self.runs.value if run in [id for _, id in options]]
            self.runs.options = options
            self.runs.value = kept
        self._offer_costs()
        self._switch()

    def _done(self) -> list[RunRecord]:
        done = [r for r in self._session.study.records if r.state is RunState.DONE]
        return sorted(done, key=lambda record: record.size_bytes or 0)

    def _choose(self) -> None:
        names = [shortened(r.label, 30) for r in self._done() if r.id in self.runs.value]
        words = " → ".join(names) if len(names) > 1 else ""
        self.order.value = f'<div class="wb-about">{html.escape(words)}</div>'
        self._switch()

    def _switch(self) -> None:
        enough = len(self.runs.value) > 1
        self.go.disabled = self._question.is_busy or not enough or not self._is_possible

    def _offer_costs(self) -> None:
        options: list[tuple[str, str]] = [("size: MB that are read", "size")]
        if self._is_timed:
            options.append(("measured latency", "latency"))
        if self._session.prices.model is not None:
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
            assert self._session.prices.model is not None
            cost = dataclasses.asdict(self._session.prices.model)
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
        self._session.cascade = asked
        self._session.history.keep("cascade", f"cascade = {self.code()}\nprint(cascade)")
        self._say(told["words"], _threshold(found, asked["signal"]), found.winner)
        self.place.draw(lambda: cascade_figure(found, unit))
        self._tabulate(found, unit)
        self.router.offer(asked)
        self._on_found()

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


def _option(record: RunRecord, metric: str) -> str:
    label = record.label if record.recipe.steps else f"{record.model} (dense)"
    found = record.measurement(metric)
    size = "" if record.size_bytes is None else f" · {record.size_bytes / 1e6:.2f} MB"
    return shortened(label, 34) + size + ("" if found is None else f" · {found.value:.4g}")


def _number(value: Any, form: str, lacking: str = "–") -> str:
    return lacking if value is None else format(value, form)
