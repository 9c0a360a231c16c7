"""Write the chosen run in a format that other tools load."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import LONG_LABEL, answer_html, button, card, dropdown, row, text
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.run_picker import RunPicker
from workbench.app.parts.write_button import WriteButton
from workbench.app.session import Session


class ExportPanel(StudyPanel):
    """Which run, which format, where to; what each format costs or why it is not offered.

    Attributes
    ----------
    run, format : ipywidgets.Dropdown
    path : ipywidgets.Text
    look, export : ipywidgets.Button
    answer, refused : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        look = {"label": LONG_LABEL, "most": "520px"}
        self.run = dropdown("run", **look)
        self._runs = RunPicker(session, self.run, self._forget, follows=True, most=60)
        session.choice.listen(self.notice.watch(self._take_choice))
        self.look = button(
            "Which formats?", "search", "Loads the run's model and asks every format whether it"
            " can hold it", self._guard(self._look),
        )  # fmt: skip
        self.format = dropdown("format", **look)
        self.path = text("folder", "out/my-model", **look)
        self._writing = WriteButton(
            "Export", "download", "Write the files, and check that they load as they were",
            self.path, self._export, self.notice, primary=True,
        )  # fmt: skip
        self.export = self._writing.button
        self._question = InspectorQuestion(session, "Keep it", self._switch)
        self.answer, self.refused = w.HTML(), w.HTML()
        self.widget = card(
            "Keep it", self.run, self.format, self.path,
            row(self.look, self.export, self._question.stop), self.notice.widget,
            self._question.status, self.answer, self.refused,
        )  # fmt: skip
        self.refresh()
        self._take_choice()

    def code(self) -> str:
        """Return the Python that exports the same run."""
        study, record = self._session.study, self._session.record(self.run.value)
        recipe = "[]" if record is None else record.recipe.code()
        other = record is not None and record.model != study.models[0]
        given = f"{recipe}, model={record.model!r}" if record is not None and other else recipe
        format = self.format.value or "hf"
        path = self.path.value.strip()
        return f"study.run({given}).export({path!r}, format={format!r}, overwrite=True)"

    def _refresh(self) -> None:
        self._runs.offer(self._session.done)
        self._switch()

    def _take_choice(self) -> None:
        if self._session.choice.value in self._runs.ids:
            self.run.value = self._session.choice.value

    def _switch(self) -> None:
        busy = self._question.is_busy
        self.look.disabled = busy or self.run.value is None
        self.format.disabled = not self.format.options
        self.export.disabled = busy or self.format.value is None

    def _forget(self) -> None:
        """Take away what was said of another run."""
        self._question.forget()
        self.format.options = []
        self.answer.value = self.refused.value = ""
        self._switch()

    def _look(self, _: Any) -> None:
        self.answer.value = ""
        self._question.ask("offers", self._offer, "Looking at the model …", run=self.run.value)

    def _offer(self, offers: list[dict[str, Any]]) -> None:
        good = [offer for offer in offers if not offer["refusal"]]
        if any(offer["is_uncompressed"] for offer in good):  # there are codes: keep them
            good.sort(key=lambda offer: (offer["is_uncompressed"], offer["size_bytes"]))
        self.format.options = [(_title(offer), offer["format"]) for offer in good]
        self.format.value = good[0]["format"] if good else None
        self._switch()
        notes = {offer["note"]: None for offer in good if offer["note"]}
        words = " ".join(notes) if good else "No format can hold this run."
        self.answer.value = answer_html(words) if words else ""
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

    def _export(self, path: Path, overwrite: bool) -> None:
        line = self.code()
        self.answer.value = ""

        def done(found: dict[str, Any]) -> None:
            self._session.history.note(line)
            self._writing.wrote(path)
            words = f"Wrote {found['path']} ({found['bytes_on_disk'] / 1e6:.2f} MB)."
            if found["largest_difference"] is not None:
                words += (
                    " Largest difference after loading it again:"
                    f" {found['largest_difference']:.3g}."
                )
            self.answer.value = answer_html(words, "pass")

        self._question.ask(
            "export",
            done,
            "Exporting …",
            run=self.run.value,
            path=str(path),
            format=self.format.value,
            overwrite=overwrite,
        )


def _title(offer: dict[str, Any]) -> str:
    undone = ", stores it uncompressed" if offer["is_uncompressed"] else ""
    size = offer["size_bytes"]
    return offer["title"] + undone + ("" if size is None else f" · {size / 1e6:.2f} MB")
