"""Write a text and see what several runs make of it."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import (
    SEVERAL,
    about,
    button,
    card,
    columns,
    looks,
    row,
    several_of,
    show,
    text_area,
)
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows
from workbench.app.parts.run_picker import RunPicker
from workbench.app.session import Session
from workbench.errors import ConfigError
from workbench.tasks.output import Output

_TOLD = "Time is of the unpacked weights, here; Measure speed on Frontier measures the packed ones."


class TryPanel(StudyPanel):
    """Label and confidence, or the continuation, of several runs side by side.

    Attributes
    ----------
    runs : ipywidgets.SelectMultiple
    text : ipywidgets.Textarea
    tokens : ipywidgets.IntSlider
    go : ipywidgets.Button
    table : Rows
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard = self._guard
        self._labels = session.study.output is Output.LABELS
        self.runs = several_of("runs", 14)
        self._picker = RunPicker(session, self.runs, guard(self._picked), facts=True)
        self.text = text_area(
            "text", "" if self._labels else "def main():", rows=5, label="auto", width="100%",
            placeholder="Write or paste a text",
        )  # fmt: skip
        self.tokens = w.IntSlider(
            value=40, min=5, max=200, description="new tokens", **looks(label="auto", most="460px")
        )
        show(self.tokens, is_shown=not self._labels)
        self._question = InspectorQuestion(session, "Try it", self._allow)
        self.go = button(
            "Try it", "play", "Loads the models in a process of their own",
            guard(lambda _: self._ask()), primary=True,
        )  # fmt: skip
        self.table = Rows(height="420px")
        self._texts = w.HTML()
        right = card(
            "Try it", self.text, row(self.tokens, self.go, self._question.stop, kind="wb-toolbar"),
            self.notice.widget, self._question.status, self._texts, self.table, about(_TOLD),
        )  # fmt: skip
        left = card("Runs", self.runs, about(f"{SEVERAL}."))
        self.widget = columns("wb-split", left, right)
        session.selection.listen(self.notice.watch(self._follow))
        self.refresh()

    def code(self) -> str:
        """Return the Python that asks the same."""
        chosen = list(self._session.selection.runs)
        more = "" if self._labels else f", max_new_tokens={self.tokens.value}"
        return f"study.try_out({self.text.value!r}, {chosen!r}{more})"

    def _refresh(self) -> None:
        self._picker.offer(self._session.done)
        self._follow()

    def _picked(self) -> None:
        kept = [run for run in self._session.selection.runs if run in self.runs.value]
        self._session.selection.set([*kept, *self.runs.value])

    def _follow(self) -> None:
        self._picker.take(self._session.selection.runs)

    def _allow(self) -> None:
        self.go.disabled = self._question.is_busy

    def _ask(self) -> None:
        done = {record.id for record in self._session.done}
        chosen = [run for run in self._session.selection.runs if run in done]
        if not chosen:
            raise ConfigError("No run is selected; choose one or several in the list.")
        if not self.text.value.strip():
            raise ConfigError("Nothing is written; write or paste a text.")
        told = "Loading the models in a process of their own …"
        self._question.ask(
            "answers", self._show, told,
            text=self.text.value, runs=chosen, tokens=self.tokens.value,
        )  # fmt: skip

    def _show(self, found: list[dict[str, Any]]) -> None:
        heads = [("run", "text"), ("seconds", ""), ("MB", ""), ("ms, measured", "")]
        heads += [("MB of memory, measured", "")]
        if self._labels:
            heads[1:1] = [("label", "text"), ("sure", ""), ("next", "wrap")]
        rows = []
        for row_of in found:
            cells = [row_of["name"], f"{row_of['seconds']:.3f}", f"{row_of['size_mb']:.2f}"]
            cells += [_number(row_of["latency_ms"]), _number(row_of["memory_mb"])]
            if self._labels:
                cells[1:1] = [row_of["answer"], f"{row_of['confidence']:.1%}", row_of["others"]]
            rows.append((row_of["run"], cells))
        self.table.fill(heads, rows)
        parts = [
            f"<figure><figcaption>{html.escape(one['name'])}</figcaption>"
            f"<pre>{html.escape(one['answer'])}</pre></figure>"
            for one in found
            if not self._labels
        ]
        self._texts.value = f'<div class="wb-texts">{"".join(parts)}</div>' if parts else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
