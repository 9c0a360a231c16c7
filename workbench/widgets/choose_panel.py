"""Say what is needed, see which runs have it for sure, keep the smallest, and write the report."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.deciding.requirements import Requirements
from workbench.errors import WorkbenchError
from workbench.widgets.desk import Desk
from workbench.widgets.rows import Rows, rows_html
from workbench.widgets.throttle import Throttle

if TYPE_CHECKING:
    from workbench.deciding.decision import Verdict

_WIDE = {"description_width": "150px"}
_USUAL = 0.95
_HEADS = [
    ("run", "text"), ("MB", ""), ("answer", "wrap"), ("quality", ""), ("95 % interval", ""),
]  # fmt: skip


class ChoosePanel:
    """The bar for quality, limits, the verdict on every run, and the report on all of it.

    Parameters
    ----------
    desk : Desk
    on_bar : callable
        Called with the limits by axis (MB, ms) and the worst accepted value of the metric.

    Attributes
    ----------
    widget : ipywidgets.Widget
    bar : ipywidgets.FloatSlider
    size_mb, latency_ms, memory_mb : ipywidgets.BoundedFloatText
        Zero is no limit.
    confidence : ipywidgets.Dropdown
    answer : ipywidgets.HTML
    verdicts : Rows
        One row per candidate, smallest first; rows can be selected.
    report : ipywidgets.Button
    """

    def __init__(
        self,
        desk: Desk,
        on_bar: Callable[[dict[str, float], float | None], None] = lambda most, bar: None,
    ) -> None:
        self._desk = desk
        self._on_bar = on_bar
        metric = desk.study.metric.name.replace("_", " ")
        self.bar = w.FloatSlider(
            value=0.97,
            min=0.5,
            max=1.0,
            step=0.005,
            readout_format=".1%",
            description="keep at least",
            tooltip=f"Share of the base model's quality ({metric})",
            continuous_update=False,
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.size_mb = _limit("at most, MB", "Of the stored model; 0 is no limit")
        self.latency_ms = _limit("at most, ms", "Measured latency; 0 is no limit")
        self.memory_mb = _limit("at most, MB of memory", "Measured while it runs; 0 is no limit")
        self.confidence = w.Dropdown(
            options=[(f"{share:.0%}", share) for share in (0.8, 0.9, _USUAL, 0.99)],
            value=_USUAL,
            description="with confidence",
            tooltip="1 minus the chance of choosing a run that truly fails, however many there are",
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="300px"),
        )
        self.answer = w.HTML()
        self.verdicts = Rows(height="300px")
        self.verdicts.add_class("wb-verdicts")
        self.pick = _button("Select this run", "check", "Select it in the plot and everywhere")
        self.pick.disabled = True
        self.path = w.Text(
            description="report",
            value="report.html",
            tooltip="The file; one that is there is replaced",
            style={"description_width": "auto"},
            layout=w.Layout(width="auto"),
        )
        self.report = _button(
            "Write report", "file-text-o", "One page for the person who decides; no script in it"
        )
        self.written = w.HTML()
        self._found: str | None = None
        guard = desk.banner.guard
        for control in (
            self.bar, self.size_mb, self.latency_ms, self.memory_mb, self.confidence
        ):  # fmt: skip
            control.observe(guard(lambda _: self._refresh()), names="value")
        self.pick.on_click(guard(self._pick))
        self.report.on_click(guard(self._write))
        self.verdicts.observe(
            guard(lambda _: desk.selection.set(self.verdicts.selected)), names="selected"
        )
        desk.selection.listen(self._mark)
        picking, page = w.HBox([self.pick]), w.HBox([self.path, self.report])
        for row in (picking, page):
            row.add_class("wb-buttons")
        self.widget = w.VBox(
            [
                w.HTML("<h3>What is good enough?</h3>"),
                self.bar,
                self.confidence,
                self.size_mb,
                self.latency_ms,
                self.memory_mb,
                self.answer,
                picking,
                self.verdicts,
                page,
                self.written,
            ]
        )
        self.widget.add_class("wb-card")
        self.refresh = Throttle(guard(self._refresh), interval=1.0)
        guard(self._refresh)()

    @property
    def chosen(self) -> str | None:
        """The id of the smallest run that passes with confidence, None if none does."""
        return self._found

    def code(self) -> str:
        """Return the Python that chooses the same run."""
        return f"study.choose({self._requirements_code()})"

    def _asked(self) -> dict[str, Any]:
        """Return what is asked for, as :class:`workbench.Requirements` takes it."""
        asked: dict[str, Any] = {"accuracy": round(self.bar.value, 6)}
        if self.size_mb.value > 0:
            asked["size_bytes"] = round(self.size_mb.value * 1e6)
        if self.latency_ms.value > 0:
            asked["latency_ms"] = self.latency_ms.value
        if self.memory_mb.value > 0:
            asked["memory_bytes"] = round(self.memory_mb.value * 1e6)
        if self.confidence.value != _USUAL:
            asked["confidence"] = self.confidence.value
        return asked

    def _requirements_code(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._asked().items())
        return f"wb.Requirements({given})"

    # What is clicked

    def _pick(self, _: Any) -> None:
        if self._found is not None:
            self._desk.selection.set([self._found])

    def _mark(self) -> None:
        self.verdicts.selected = list(self._desk.selection.runs)

    def _write(self, _: Any) -> None:
        given = self.path.value.strip() or "report.html"
        line = f"study.report({given!r}, {self._requirements_code()})"
        self.report.disabled = True
        self._say("Writing the report …")

        def done(path: str) -> None:
            self.report.disabled = False
            self._desk.history.note(line)
            self._say(f"Wrote {path}", "pass")

        def failed(text: str) -> None:
            self.report.disabled = False
            self._say("")
            self._desk.banner.note(text)

        self._desk.inspector.ask(
            "report",
            done,
            failed,
            lambda p: self._say(f"Writing the report: {p['stage']} {p['done']}/{p['total']}"),
            path=str(Path(given).expanduser().absolute()),
            requirements=self._asked(),
        )

    def _say(self, text: str, kind: str = "none") -> None:
        shown = f'<span role="status">{html.escape(text)}</span>'
        self.written.value = (
            f'<div class="wb-answer wb-answer-{kind}">{shown}</div>' if text else ""
        )

    # What is shown

    def _refresh(self) -> None:
        kind = "none"
        verdicts: tuple[Verdict, ...] = ()
        self._found = None
        try:
            decision = self._desk.study.choose(Requirements(**self._asked()))
            text, verdicts = decision.nearest, decision.verdicts
            if decision.run is not None:
                self._found, kind = decision.run.id, "pass"
            elif decision.answer == "unclear":
                kind = "maybe"
        except WorkbenchError as error:  # such as no baseline yet: an answer, not an accident
            text = str(error)
        self.pick.disabled = self._found is None
        self.answer.value = (
            f'<div class="wb-answer wb-answer-{kind}">'
            f'<span role="status">{html.escape(text)}</span></div>'
        )
        first = self._desk.study.models[0]
        rows = [(verdict.run.id, _cells(verdict, first)) for verdict in verdicts]
        self.verdicts.html = rows_html(_HEADS, rows) if rows else ""
        most = {
            "size": self.size_mb.value,
            "latency": self.latency_ms.value,
            "memory": self.memory_mb.value,
        }
        self._on_bar({axis: value for axis, value in most.items() if value > 0}, self._worst())

    def _worst(self) -> float | None:
        study = self._desk.study
        metric = study.metric
        for record in study.records:
            found = record.measurement(metric.name)
            if not record.recipe.steps and found is not None and found.value > 0:
                share = self.bar.value
                return found.value * share if metric.higher_is_better else found.value / share
        return None


def _cells(verdict: Verdict, first: str) -> list[str]:
    run, between = verdict.run, verdict.interval
    return [
        run.label if run.model == first else f"{run.model}, {run.label}",
        f"{(run.size_bytes or 0) / 1e6:.2f}",
        _answer(verdict),
        "–" if verdict.quality is None else f"{verdict.quality:.1%}",
        "–" if between is None else f"{between.low:.1%} to {between.high:.1%}",
    ]


def _answer(verdict: Verdict) -> str:
    """Return the answer, and why where the column of the quality does not say it."""
    if verdict.answer == "passes":
        return "✓ passes"
    why = "" if verdict.p_value is not None else f": {'; '.join(verdict.lacks)}"
    if verdict.answer == "fails":
        return f"✕ fails{why}"
    if not why and not verdict.method:
        why = ": its value has no standard error"
    if why:
        return f"? unclear{why}"
    enough = verdict.enough_examples
    more = "no number would do, so near is it" if enough is None else f"about {enough:,} would do"
    return f"? {verdict.n_examples:,} examples are too few; {more}"


def _button(text: str, icon: str, tooltip: str) -> w.Button:
    return w.Button(description=text, icon=icon, tooltip=tooltip, layout=w.Layout(width="auto"))


def _limit(text: str, tooltip: str) -> w.BoundedFloatText:
    return w.BoundedFloatText(
        value=0,
        min=0,
        max=1e9,
        description=text,
        tooltip=tooltip,
        style=_WIDE,
        layout=w.Layout(width="auto", max_width="300px"),
    )
