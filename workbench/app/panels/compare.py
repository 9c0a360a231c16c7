"""Two or more runs side by side: facts, layers, weights, examples, labels and generated text."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from workbench.app.parts.live_figure import LiveFigure
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.parts.run_options import offered
from workbench.app.session import Session
from workbench.recipes.recipe import shortened
from workbench.records import RunRecord, RunState
from workbench.views import Confusion, FlipsView, LayerErrors, WeightHistogram

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
    "layers": "How far each layer's weights are from the base model's. Bright layers lost most.",
    "histogram": "One layer's weights before and after: quantized ones sit on few values.",
    "flips": "Examples that the last selected run answers differently from the first one.",
    "confusion": "Which labels the last selected run mistakes for which.",
    "generate": "The same prompt, continued by every selected model; no sampling.",
}
EMPTY = "Select runs in this list, the plot, the table or the lineage."


class ComparePanel:
    """Views of the selected runs.

    Whatever needs a model is asked of a process of its own, and can be stopped.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    runs : ipywidgets.SelectMultiple
        The selection, for the keyboard.
    view : ipywidgets.ToggleButtons
    table : Rows
        The table twin of whatever is shown.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        guard = session.banner.guard
        self.runs = w.SelectMultiple(
            rows=14,
            description="runs",
            tooltip="Ctrl or Shift selects several",
            style={"description_width": "0px"},
            layout=w.Layout(width="100%"),
        )
        self.view = w.ToggleButtons(
            options=list(VIEWS), tooltips=[_ABOUT[name] for _, name in VIEWS]
        )
        self.view.add_class("wb-subnav")
        self.about = w.HTML()
        self.layer = w.Dropdown(
            description="layer",
            style={"description_width": "auto"},
            layout=w.Layout(width="auto", max_width="460px"),
        )
        self.prompt = w.Textarea(
            description="prompt",
            value="def main():",
            rows=2,
            style={"description_width": "auto"},
            layout=w.Layout(width="100%"),
        )
        self.tokens = w.IntSlider(
            description="new tokens",
            value=40,
            min=5,
            max=200,
            style={"description_width": "auto"},
            layout=w.Layout(width="auto", max_width="420px"),
        )
        self.go = w.Button(
            description="Show", icon="play", button_style="primary", layout=w.Layout(width="auto")
        )
        self.stop = w.Button(
            description="Stop", icon="stop", disabled=True, layout=w.Layout(width="auto")
        )
        self.status = w.HTML()
        self.table = Rows(searchable=True, label="Search", height="420px")
        self._place = w.VBox()
        self._texts = w.HTML()
        self._figure: LiveFigure | None = None
        self._asked = 0
        self._is_loading = False
        self._shown: tuple[str, ...] | None = None
        self.runs.observe(guard(self._picked), names="value")
        self.view.observe(guard(lambda _: self._switch()), names="value")
        self.go.on_click(guard(lambda _: self._show()))
        self.stop.on_click(guard(lambda _: self._stop()))
        session.selection.listen(guard(self._follow))
        controls = w.HBox([self.layer, self.tokens, self.go, self.stop])
        controls.add_class("wb-toolbar")
        right = w.VBox(
            [
                self.view, self.about, self.prompt, controls, self.status, self._texts,
                self._place, self.table,
            ]
        )  # fmt: skip
        hint = w.HTML('<div class="wb-about">Ctrl or Shift selects several.</div>')
        left = w.VBox([w.HTML("<h3>Runs</h3>"), self.runs, hint])
        for part in (left, right):
            part.add_class("wb-card")
        self.widget = w.HBox([left, right])
        self.widget.add_class("wb-split")
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

    def refresh(self) -> None:
        """Offer the finished runs; what is shown of the selected ones stays."""
        self._follow()

    def _offer(self) -> None:
        metric = self._session.study.metric.name
        shown = offered(self._session, self._done())
        options = [(_option(record, metric), record.id) for record in shown]
        if list(self.runs.options) != options:
            self._is_loading = True
            self.runs.options = options
            self._is_loading = False

    def _done(self) -> list[RunRecord]:
        return [r for r in self._session.study.records if r.state is RunState.DONE]

    def _picked(self, _: Any) -> None:
        if not self._is_loading:
            kept = [run for run in self._session.selection.runs if run in self.runs.value]
            self._session.selection.set([*kept, *self.runs.value])

    def _follow(self) -> None:
        self._offer()
        known = [id for _, id in self.runs.options]
        self._is_loading = True
        self.runs.value = tuple(id for id in known if id in self._session.selection.runs)
        self._is_loading = False
        if self._shown != tuple(self.runs.value):
            self._shown = tuple(self.runs.value)
            self._switch()

    def _selected(self) -> list[RunRecord]:
        known = {record.id: record for record in self._done()}
        return [known[run] for run in self._session.selection.runs if run in known]

    # What is shown

    def _switch(self) -> None:
        """Show the controls of the chosen view, and what needs no model at once."""
        name = self.view.value
        self._asked += 1  # an answer that is on its way is not of what is shown from now on
        self.stop.disabled = True
        self.about.value = f'<div class="wb-help">{html.escape(_ABOUT[name])}</div>'
        self.prompt.layout.display = self.tokens.layout.display = _shown(name == "generate")
        self.layer.layout.display = _shown(name == "histogram" and bool(self.layer.options))
        self.go.layout.display = self.stop.layout.display = _shown(name != "differences")
        self._clear()
        chosen = self._selected()
        lacks = _lacks(name, chosen)
        self.go.disabled = bool(lacks)
        self._say(lacks)
        if name == "differences" and not lacks:
            self._show_differences(chosen)

    def _show_differences(self, chosen: list[RunRecord]) -> None:
        table = self._session.study.differences([record.id for record in chosen])
        heads = [("", "text"), *((shortened(record.label, 34), "text") for record in chosen)]
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
        self.table.layout.display = ""

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
        self._asked += 1
        number = self._asked
        self.stop.disabled, self.go.disabled = False, True
        self._say("Loading the models in a process of their own …")

        def answered(found: Any) -> None:
            if number == self._asked:
                self.stop.disabled, self.go.disabled = True, False
                self._say("")
                self._session.banner.guard(answer)(found)

        def failed(text: str) -> None:
            if number == self._asked:
                self.stop.disabled, self.go.disabled = True, False
                self._say(text)

        self._session.inspector.ask(what, answered, failed, **arguments)

    def _stop(self) -> None:
        self._asked += 1
        self._session.inspector.stop("Stopped, as Stop was pressed under Compare. Start it again.")
        self.stop.disabled, self.go.disabled = True, False
        self._say("Stopped.")

    def _layers(self, found: Any) -> None:
        view = LayerErrors.from_dict(found)
        self._offer_layers(view)
        self._draw(view.plot())
        heads = [("layer", "text"), *((shortened(run, 34), "") for run in view.runs)]
        rows = [
            ("", [layer, *("–" if e is None else f"{e:.3g}" for e in errors)])
            for layer, errors in zip(view.layers, view.errors, strict=True)
        ]
        self._tabulate(heads, rows)

    def _layer_names(self, found: Any) -> None:
        self._offer_layers(LayerErrors.from_dict(found))
        self.layer.layout.display = ""
        self._show()

    def _offer_layers(self, view: LayerErrors) -> None:
        if tuple(self.layer.options) != view.layers:
            self.layer.options = view.layers
            self.layer.value = view.layers[0]

    def _histogram(self, found: Any) -> None:
        view = WeightHistogram.from_dict(found)
        self._draw(view.plot())
        heads = [("from", ""), ("to", ""), ("before", ""), ("after", "")]
        self._tabulate(
            heads,
            [
                (
                    "",
                    [
                        f"{row.iloc[0]:.4g}",
                        f"{row.iloc[1]:.4g}",
                        int(row.iloc[2]),
                        int(row.iloc[3]),
                    ],
                )
                for _, row in view.table.iterrows()
            ],
        )

    def _flips(self, found: Any) -> None:
        view = FlipsView.from_dict(found)
        counts = ", ".join(f"{n} {change}" for change, n in view.counts.items() if n)
        what = "answered differently" if view.is_classified else "with another loss"
        self._say(
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
        self._draw(view.plot())
        rows = [
            ("", [label, other, count])
            for label, row in zip(view.labels, view.counts, strict=True)
            for other, count in zip(view.labels, row, strict=True)
            if count and label != other
        ]
        rows.sort(key=lambda row: -row[1][2])  # type: ignore[operator]
        self._tabulate([("label", "text"), ("predicted", "text"), ("examples", "")], rows)

    def _generated(self, found: Any) -> None:
        parts = [
            f"<figure><figcaption>{html.escape(record.label)}</figcaption>"
            f"<pre>{html.escape(found[record.id])}</pre></figure>"
            for record in self._selected()
            if record.id in found
        ]
        self._texts.value = f'<div class="wb-texts">{"".join(parts)}</div>'

    def _draw(self, figure: go.Figure) -> None:
        old, self._figure = self._figure, LiveFigure(figure)
        self._place.children = [self._figure]
        if old is not None:
            old.close()

    def _tabulate(self, heads: list[tuple[str, str]], rows: Any) -> None:
        self.table.fill(heads, rows, caption="Nothing differs.")
        self.table.layout.display = ""

    def _clear(self) -> None:
        self.table.clear()
        self._texts.value = ""
        self.table.layout.display = "none"
        self._place.children = []
        if self._figure is not None:
            self._figure.close()
            self._figure = None

    def _say(self, text: str) -> None:
        shown = f'<span role="status">{html.escape(text)}</span>'
        self.status.value = f'<div class="wb-note">{shown}</div>' if text else ""


def _shown(is_shown: bool) -> str:
    return "" if is_shown else "none"


def _lacks(view: str, chosen: list[RunRecord]) -> str:
    """Return what is missing before a view can be shown, ``""`` if nothing is."""
    if not chosen:
        return EMPTY
    if view == "flips" and len(chosen) < 2:
        return "Select two runs: flips are from the first to the last selected one."
    return ""


def _option(record: RunRecord, metric: str) -> str:
    label = record.label if record.recipe.steps else f"{record.model} (dense)"
    size = "" if record.size_bytes is None else f" · {record.size_bytes / 1e6:.2f} MB"
    found = record.measurement(metric)
    return shortened(label, 40) + size + ("" if found is None else f" · {found.value:.4g}")
