"""Write the cascade that is shown as a folder that runs without the study."""

from __future__ import annotations

import html
from pathlib import Path

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.report import cascade_code
from workbench.app.parts.controls import answer_html, card, row, text
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.write_button import WriteButton
from workbench.app.session import Session


class RouterPanel(StudyPanel):
    """Where to, the button, and the three lines that load what was written.

    Attributes
    ----------
    path : ipywidgets.Text
    write : ipywidgets.Button
    answer : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.path = text(
            "folder", "out/router", most="520px",
            tooltip="Written beside it first; it appears when it is complete",
        )  # fmt: skip
        self._question = InspectorQuestion(session, "Keep the cascade", self.refresh)
        self._writing = WriteButton(
            "Write router", "download",
            "The models of the cascade and its thresholds, ready to classify texts",
            self.path, self._write, self.notice,
        )  # fmt: skip
        self.write = self._writing.button
        session.cascade.listen(self._guard(self._forget))
        self.answer = w.HTML()
        self.widget = card(
            "Keep the cascade", self.path, row(self.write, self._question.stop),
            self.notice.widget, self._question.status, self.answer,
        )  # fmt: skip
        self.refresh()

    def code(self) -> str:
        """Return the Python that writes the router, ``""`` without a cascade."""
        asked = self._session.cascade.value
        if asked is None:
            return ""
        folder = self.path.value.strip()
        return f"{cascade_code(asked)}.router().save({folder!r}, overwrite=True)"

    def loading(self, folder: str) -> str:
        """Return the three lines that load a router and use it."""
        return f'import workbench as wb\nrouter = wb.Router.load({folder!r})\nrouter(["a text"])'

    def _forget(self) -> None:
        """Take away what was said of another cascade."""
        self.answer.value = ""
        self._writing.reset()
        self.refresh()

    def _refresh(self) -> None:
        self.write.disabled = self._question.is_busy or self._session.cascade.value is None

    def _write(self, path: Path, overwrite: bool) -> None:
        asked = self._session.cascade.value
        assert asked is not None
        line = self.code()

        given = self.path.value.strip()

        def done(written: str) -> None:
            self._session.history.note(line)
            lines = f'<pre class="wb-lines">{html.escape(self.loading(given))}</pre>'
            self.answer.value = answer_html(f"Wrote {written}", "pass", lines)

        self.answer.value = ""
        self._question.ask(
            "router", done, "Writing the router …", path=str(path), overwrite=overwrite, **asked
        )
