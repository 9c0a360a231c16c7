"""The session as Python: to read, to copy, to save."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w

from workbench.app.session import Session
from workbench.atomic_files import write_file
from workbench.errors import ConfigError
from workbench.stored_paths import writable_file


class CodePanel:
    """The script that reproduces the session's runs.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    text : ipywidgets.Textarea
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._saved = ""
        self.text = w.Textarea(
            disabled=False,
            description="script",
            tooltip="Select all and copy into a cell",
            layout=w.Layout(width="100%", height="340px"),
        )
        self.text.add_class("wb-code")
        self.folder = w.Text(
            description="its study",
            value="",
            placeholder="the same folder; give another one to compute everything again",
            style={"description_width": "90px"},
            layout=w.Layout(width="auto", max_width="640px"),
        )
        self.path = w.Text(
            description="save as",
            value="workbench_session.py",
            style={"description_width": "90px"},
            layout=w.Layout(width="auto", max_width="420px"),
        )
        self.save = w.Button(description="Save .py", icon="save", layout=w.Layout(width="auto"))
        self.answer = w.HTML()
        self.folder.observe(session.banner.guard(lambda _: self.refresh()), names="value")
        self.save.on_click(session.banner.guard(self._save))
        row = w.HBox([self.path, self.save])
        row.add_class("wb-buttons")
        self.widget = w.VBox(
            [w.HTML("<h3>The same in Python</h3>"), self.text, self.folder, row, self.answer]
        )
        self.widget.add_class("wb-card")

    def code(self) -> str:
        """Return the script."""
        return self._session.history.code(self._session.study, self.folder.value.strip() or None)

    def refresh(self) -> None:
        """Show the script as it is now."""
        self.text.value = self.code()

    def _save(self, _: Any) -> None:
        path = writable_file(self.path.value).absolute()
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != self._saved:
            raise ConfigError(
                f"{path} is there already, and not as it was saved here; give another name."
            )
        self._saved = self.code()
        write_file(path, self._saved)
        self.answer.value = f'<span role="status">Saved {html.escape(str(path))}</span>'
