"""The session as Python: to read, to copy, to save."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import about_html, button, card, classed, row, text
from workbench.app.session import Session
from workbench.atomic_files import write_file
from workbench.errors import ConfigError
from workbench.stored_paths import writable_file


class CodePanel(StudyPanel):
    """The script that reproduces the session's runs.

    Attributes
    ----------
    text : ipywidgets.Textarea
    folder, path : ipywidgets.Text
    save : ipywidgets.Button
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._saved = ""
        layout = w.Layout(width="100%", height="340px")
        self.text = classed(
            w.Textarea(
                description="script", tooltip="Select all and copy into a cell", layout=layout
            ),
            "wb-code",
        )
        self.folder = text(
            "its study",
            placeholder="the same folder; give another one to compute everything again",
            most="640px",
        )
        self.path = text("save as", "workbench_session.py", most="420px")
        self.save = button("Save .py", "save", on_click=self._guard(self._save))
        self.answer = w.HTML()
        self.folder.observe(self._guard(lambda _: self._refresh()), names="value")
        self.widget = card(
            "The same in Python", self.text, self.folder, row(self.path, self.save),
            self.notice.widget, self.answer,
        )  # fmt: skip

    def code(self) -> str:
        """Return the script."""
        return self._session.history.code(self._session.study, self.folder.value.strip() or None)

    def show(self, is_seen: bool) -> None:
        """Make the script when it is seen."""
        if is_seen:
            self.refresh()

    def _refresh(self) -> None:
        self.text.value = self.code()

    def _save(self, _: Any) -> None:
        path = writable_file(self.path.value).absolute()
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != self._saved:
            raise ConfigError(
                f"{path} is there already, and not as it was saved here; give another name."
            )
        self._saved = self.code()
        write_file(path, self._saved)
        self.answer.value = about_html(f"Saved {path}", is_told=True)
