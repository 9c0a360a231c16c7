"""Write the chosen run in a format that other tools load."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.parts.run_options import offered
from workbench.app.session import Session
from workbench.recipes.recipe import shortened
from workbench.records import RunState

_WIDE = {"description_width": "150px"}


class ExportPanel:
    """Which run, which format, where to; what each format costs or why it is not offered.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    run, format : ipywidgets.Dropdown
    path : ipywidgets.Text
    export : ipywidgets.Button
    answer, refused : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.run = w.Dropdown(
            description="run", style=_WIDE, layout=w.Layout(width="auto", max_width="520px")
        )
        self.look = w.Button(
            description="Which formats?",
            icon="search",
            tooltip="Loads the run's model and asks every format whether it can hold it",
            layout=w.Layout(width="auto"),
        )
        self.format = w.Dropdown(
            description="format",
            disabled=True,
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.path = w.Text(
            description="folder",
            value="out/my-model",
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.export = w.Button(
            description="Export",
            icon="download",
            button_style="primary",
            disabled=True,
            tooltip="Write the files, and check that they load as they were",
            layout=w.Layout(width="auto"),
        )
        self.answer, self.refused = w.HTML(), w.HTML()
        self._is_loading = False
        self.run.observe(lambda _: self._forget(), names="value")
        self.look.on_click(session.banner.guard(self._look))
        self.export.on_click(session.banner.guard(self._export))
        session.selection.listen(self._follow)
        buttons = w.HBox([self.look, self.export])
        buttons.add_class("wb-buttons")
        self.widget = w.VBox(
            [
                w.HTML("<h3>Keep it</h3>"),
                self.run,
                self.format,
                self.path,
                buttons,
                self.answer,
                self.refused,
            ]
        )
        self.widget.add_class("wb-card")
        self.refresh()

    def code(self) -> str:
        """Return the Python that exports the same run."""
        study, run = self._session.study, self.run.value or ""
        record = next((r for r in study.records if r.id == run), None)
        recipe = "[]" if record is None else record.recipe.code()
        other = record is not None and record.model != study.models[0]
        given = f"{recipe}, model={record.model!r}" if record is not None and other else recipe
        format = self.format.value or "hf"
        return f"study.run({given}).export({self.path.value!r}, format={format!r})"

    def refresh(self) -> None:
        """Offer the finished runs."""
        done = [r for r in self._session.study.records if r.state is RunState.DONE]
        options = [
            (shortened(record.label, 60), record.id)
            for record in offered(self._session, done, [self.run.value])
        ]
        if list(self.run.options) != options:
            kept, ids = self.run.value, [id for _, id in options]
            self._is_loading = kept in ids  # the formats that it was offered are still true
            self.run.options = options
            self.run.value = kept if kept in ids else (ids[-1] if ids else None)
            self._is_loading = False
        self.look.disabled = not options

    def _follow(self) -> None:
        chosen = self._session.selection.runs
        self.refresh()
        if chosen and chosen[-1] in [id for _, id in self.run.options]:
            self.run.value = chosen[-1]

    def _forget(self) -> None:
        if self._is_loading:
            return
        self.format.options, self.format.disabled = [], True
        self.export.disabled = True
        self.answer.value = self.refused.value = ""

    def _look(self, _: Any) -> None:
        self.look.disabled = True
        self._say("Looking at the model …")
        run = self.run.value
        self._session.inspector.ask(
            "offers", lambda offers: self._offer(run, offers), self._fail, run=run
        )

    def _offer(self, run: str, offers: list[dict[str, Any]]) -> None:
        self.look.disabled = False
        if run != self.run.value:  # another one was chosen meanwhile
            return
        good = [offer for offer in offers if not offer["refusal"]]
        self.format.options = [(_title(offer), offer["format"]) for offer in good]
        self.format.value = good[0]["format"] if good else None
        self.format.disabled = self.export.disabled = not good
        self._say("" if good else "No format can hold this run.")
        refused = "".join(
            f"<li><b>{html.escape(offer['title'])}</b>: {html.escape(offer['refusal'])}</li>"
            for offer in offers
            if offer["refusal"]
        )
        self.refused.value = (
            f'<details class="wb-hints"><summary>Formats that cannot hold it</summary>'
            f"<ul>{refused}</ul></details>"
            if refused
            else ""
        )

    def _export(self, _: Any) -> None:
        self.export.disabled = True
        self._say("Exporting …")
        path = str(Path(self.path.value).expanduser().absolute())
        line = self.code()
        self._session.inspector.ask(
            "export",
            lambda found: self._done(line, found),
            self._fail,
            lambda p: self._say(f"{p['stage']} {p['done']}/{p['total']} {p['detail']}"),
            run=self.run.value,
            path=path,
            format=self.format.value,
        )

    def _done(self, line: str, found: dict[str, Any]) -> None:
        self._session.history.note(line)
        self.export.disabled = self.format.disabled
        text = f"Wrote {found['path']} ({found['bytes_on_disk'] / 1e6:.2f} MB)."
        if found["largest_difference"] is not None:
            text += (
                f" Largest difference after loading it again: {found['largest_difference']:.3g}."
            )
        self._say(text, "pass")

    def _fail(self, text: str) -> None:
        self.look.disabled = False
        self.export.disabled = self.format.disabled
        self._say("")
        self._session.banner.note(text)

    def _say(self, text: str, kind: str = "none") -> None:
        shown = f'<span role="status">{html.escape(text)}</span>'
        self.answer.value = f'<div class="wb-answer wb-answer-{kind}">{shown}</div>' if text else ""


def _title(offer: dict[str, Any]) -> str:
    size = offer["size_bytes"]
    return offer["title"] if size is None else f"{offer['title']} · {size / 1e6:.2f} MB"
