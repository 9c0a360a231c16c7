"""Two or more runs side by side: facts, layers, weights, examples, labels and generated text."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import (
    SEVERAL,
    about,
    button,
    buttons,
    card,
    columns,
    dropdown,
    looks,
    row,
    several_of,
    show,
    text_area,
)
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.parts.run_picker import RunPicker
from workbench.app.session import Session
from workbench.records import RunRecord
from workbench.views import Confusion, FlipsView, LayerErrors, WeightHistogram
from workbench.views.run_names import distinct, run_names

VIEWS = (
    ("Differences", "differences"),
    ("Layers", "layers"),
    ("Weights", "histogram"),
    ("Flips", "flips"),
    ("Confusion", "confusion"),
    ("Generate", "generate"),
)
_ABOUT = {
    "differences": "Rows in bold differ.",
    "layers": "How far each layer's weights are from the base model's: the squared difference,"
    " relative to the squared weights, without any data. Bright layers changed most. Training"
    " moves weights on purpose, so a better model can be further away.",
    "histogram": "One layer's weights before and after: quantized ones sit on few values.",
    "flips": "Examples that the last selected run answers differently from the first one.",
    "confusion": "Which labels the last selected run mistakes for which.",
    "generate": "The same prompt, continued by every selected model; no sampling.",
}
EMPTY = "Select runs in this list, the plot, the table or the lineage."


class ComparePanel(StudyPanel):
    """Views of the selected runs.

    Whatever needs a model is asked of a process of its own, and can be stopped.

    Attributes
    ----------
    runs : ipywidgets.SelectMultiple
        The selection, for the keyboard.
    view : ipywidgets.ToggleButtons
    table : Rows
        The table twin of whatever is shown.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard = self._guard
        self.runs = several_of("runs", 14)
        self._picker = RunPicker(session, self.runs, guard(self._picked), facts=True)
        views = [v for v in VIEWS if v[1] != "confusion" or session.study.output.classifies]
        self.view = buttons(views, kind="wb-subnav", tooltips=[_ABOUT[name] for _, name in views])
        self.about = w.HTML()
        look = {"label": "auto", "most": "460px"}
        self.layer = dropdown("layer", **look)
        self.prompt = text_area("prompt", "def main():", label="auto", width="100%")
        self.tokens = w.IntSlider(
            value=40, min=5, max=200, description="new tokens", **looks(**look)
        )
        self._question = InspectorQuestion(session, "Compare", self._allow)
        self.go = button("Show", "play", on_click=guard(lambda _: self._show()), primary=True)
        self.stop, self.status = self._question.stop, self._question.status
        self.table = Rows(searchable=True, label="Search", height="420px")
        self.place = FigureSlot()
        self._texts = w.HTML()
        self._shown: tuple[str, ...] | None = None
        self.view.observe(guard(lambda _: self._switch()), names="value")
        session.selection.listen(self.notice.watch(self._follow))
        right = card(
            "", self.view, self.about, self.prompt,
            row(self.layer, self.tokens, self.go, self.stop, kind="wb-toolbar"),
            self.notice.widget, self.status, self._texts, self.place.widget, self.table,
        )  # fmt: skip
        left = card("Runs", self.runs, about(f"{SEVERAL}."))
        self.widget = columns("wb-split", left, right)
        self.refresh()
        self._switch()

    def code(self) -> str:
        """Return the Python that makes what is shown."""
        chosen = list(self._session.selection.runs)
        last, first = (repr(chosen[-1]), repr(chosen[0])) if chosen else ("...", "...")
        return {
            "differences": f"study.differences({chosen!r})",
            "layers": f"study.layer_errors({chosen!r}).plot()",
            "histogram": f"study.weight_histogram({last}, {self.layer.value!r}).plot()",
            "flips": f"study.flips({first}, {last}).table",
            "confusion": f"study.confusion({last}).plot()",
            "generate": f"study.side_by_side({self.prompt.value!r}, {chosen!r},"
            f" max_new_tokens={self.tokens.value})",
        }[self.view.value]

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def _refresh(self) -> None:
        """Offer the finished runs; what is shown of the selected ones stays."""
        self._picker.offer(self._session.done)
        self._follow()

    def _picked(self) -> None:
        kept = [run for run in self._session.selection.runs if run in self.runs.value]
        self._session.selection.set([*kept, *self.runs.value])

    def _follow(self) -> None:
        self._picker.take(self._session.selection.runs)
        if self._shown != tuple(self.runs.value):
            self._shown = tuple(self.runs.value)
            self._switch()

    def _selected(self) -> list[RunRecord]:
        known = {record.id: record for record in self._session.done}
        return [known[run] for run in self._session.selection.runs if run in known]

    # What is shown

    def _switch(self) -> None:
        """Show the controls of the chosen view, and what needs no model at once."""
        name, chosen = self.view.value, self._selected()
        self._question.forget()  # an answer on its way is not of what is shown from now on
        self.about.value = f'<div class="wb-help">{html.escape(_ABOUT[name])}</div>'
        show(self.prompt, self.tokens, is_shown=name == "generate")
        show(self.layer, is_shown=name == "histogram" and bool(self.layer.options))
        show(self.go, self.stop, is_shown=name != "differences")
        self._clear()
        lacks = _lacks(name, chosen)
        self._question.say(lacks)
        self._allow()
        if name == "differences" and not lacks:
            self._show_differences(chosen)

    def _allow(self) -> None:
        lacks = _lacks(self.view.value, self._selected())
        self.go.disabled = self._question.is_busy or bool(lacks)

    def _show_differences(self, chosen: list[RunRecord]) -> None:
        table = self._session.study.differences([record.id for record in chosen])
        heads = [("", "text"), *((name, "text") for name in run_names(chosen, 34).values())]
        rows = [
            ("", [fact, *(row[place] for place in range(len(chosen)))])
            for fact, row in table.iterrows()
        ]
        differs = list(table["differs"])
        markup = rows_html(heads, rows)
        for different in differs:
            kind = "wb-differs" if different else "wb-same"
            markup = markup.replace("<tr><td", f'<tr class="{kind}"><td', 1)
        self.table.html = markup
        show(self.table, is_shown=True)

    def _show(self) -> None:
        name, chosen = self.view.value, [record.id for record in self._selected()]
        last = chosen[-1]
        asks: dict[str, tuple[Callable[[Any], None], dict[str, Any]]] = {
            "layers": (self._layers, {"runs": chosen}),
            "histogram": (self._histogram, {"run": last, "layer": self.layer.value}),
            "flips": (self._flips, {"before": chosen[0], "after": last}),
            "confusion": (self._confusion, {"run": last}),
            "generate": (
                self._generated,
                {"prompt": self.prompt.value, "runs": chosen, "tokens": self.tokens.value},
            ),
        }
        answer, arguments = asks[name]
        what = name
        if name == "histogram" and not self.layer.value:  # the names of the layers come first
            what, answer, arguments = "layers", self._layer_names, {"runs": [last]}
        told = "Loading the models in a process of their own …"
        self._question.ask(what, answer, told, **arguments)

    def _layers(self, found: Any) -> None:
        view = LayerErrors.from_dict(found)
        self._offer_layers(view)
        self.place.draw(view.plot)
        heads = [("layer", "text"), *((name, "") for name in distinct(view.runs, 34))]
        rows = [
            ("", [layer, *("–" if e is None else f"{e:.3g}" for e in errors)])
            for layer, errors in zip(view.layers, view.errors, strict=True)
        ]
        self._tabulate(heads, rows)

    def _layer_names(self, found: Any) -> None:
        self._offer_layers(LayerErrors.from_dict(found))
        show(self.layer, is_shown=True)
        self._show()

    def _offer_layers(self, view: LayerErrors) -> None:
        if tuple(self.layer.options) != view.layers:
            self.layer.options = view.layers
            self.layer.value = view.layers[0]

    def _histogram(self, found: Any) -> None:
        view = WeightHistogram.from_dict(found)
        self.place.draw(view.plot)
        heads = [("from", ""), ("to", ""), ("before", ""), ("after", "")]
        self._tabulate(
            heads,
            [
                ("", [f"{low:.4g}", f"{high:.4g}", int(before), int(after)])
                for low, high, before, after in view.table.itertuples(index=False)
            ],
        )

    def _flips(self, found: Any) -> None:
        view = FlipsView.from_dict(found)
        counts = ", ".join(f"{n} {change}" for change, n in view.counts.items() if n)
        what = "answered differently" if view.is_classified else "with another loss"
        self._question.say(
            f"{len(view.rows)} of {view.n_examples} examples {what}: {counts or 'none'}."
            f" From {view.before} to {view.after}."
        )
        heads = [
            ("example", "wrap"), ("change", "text"), ("expected", "text"), ("before", "text"),
            ("after", "text"), ("loss before", ""), ("loss after", ""),
        ]  # fmt: skip
        signs = {"worse": "▼ worse", "better": "▲ better", "other": "◆ other"}
        rows: list[tuple[str, list[object]]] = [
            (
                "",
                [
                    flip.text or flip.example, signs[flip.change], flip.expected, flip.before,
                    flip.after, f"{flip.loss_before:.3f}", f"{flip.loss_after:.3f}",
                ],
            )
            for flip in view.rows[:500]
        ]  # fmt: skip
        self._tabulate(heads, rows)

    def _confusion(self, found: Any) -> None:
        counts = tuple(tuple(row) for row in found["counts"])
        view = Confusion(found["run"], tuple(found["labels"]), counts)
        self.place.draw(view.plot)
        rows = [
            ("", [label, other, count])
            for label, row in zip(view.labels, view.counts, strict=True)
            for other, count in zip(view.labels, row, strict=True)
            if count and label != other
        ]
        rows.sort(key=lambda row: -row[1][2])  # type: ignore[operator]
        self._tabulate([("label", "text"), ("predicted", "text"), ("examples", "")], rows)

    def _generated(self, found: Any) -> None:
        names = run_names(self._selected())
        parts = [
            f"<figure><figcaption>{html.escape(names[record.id])}</figcaption>"
            f"<pre>{html.escape(found[record.id])}</pre></figure>"
            for record in self._selected()
            if record.id in found
        ]
        self._texts.value = f'<div class="wb-texts">{"".join(parts)}</div>'

    def _tabulate(self, heads: list[tuple[str, str]], rows: Any) -> None:
        self.table.fill(heads, rows, caption="Nothing differs.")
        show(self.table, is_shown=True)

    def _clear(self) -> None:
        self.table.clear()
        self._texts.value = ""
        show(self.table, is_shown=False)
        self.place.clear()


def _lacks(view: str, chosen: list[RunRecord]) -> str:
    """Return what is missing before a view can be shown, ``""`` if nothing is."""
    if not chosen:
        return EMPTY
    if view == "flips" and len(chosen) < 2:
        return "Select two runs: flips are from the first to the last selected one."
    return ""
