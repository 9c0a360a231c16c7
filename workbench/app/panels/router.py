"""Write the cascade that is shown as a folder that runs without the study."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.panels.report import cascade_code
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.session import Session
from workbench.errors import ConfigError


class RouterPanel:
    """Where to, the button, and the three lines that load what was written.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    path : ipywidgets.Text
    write : ipywidgets.Button
    answer : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: dict[str, Any] | None = None
        self._confirmed: Path | None = None
        self.path = w.Text(
            description="folder",
            value="out/router",
            tooltip="Written beside it first; it appears when it is complete",
            style={"description_width": "104px"},
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self._question = InspectorQuestion(session, "Keep the cascade", self._switch)
        self.write = w.Button(
            description="Write router",
            icon="download",
            tooltip="The models of the cascade and its thresholds, ready to classify texts",
            layout=w.Layout(width="auto"),
        )
        self.write.on_click(session.banner.guard(lambda _: self._write()))
        self.path.observe(lambda _: self._forget(), names="value")
        self.answer = w.HTML()
        buttons = w.HBox([self.write, self._question.stop])
        buttons.add_class("wb-buttons")
        self.widget = w.VBox(
            [
                w.HTML("<h3>Keep the cascade</h3>"),
                self.path,
                buttons,
                self._question.status,
                self.answer,
            ]
        )
        self.widget.add_class("wb-card")
        self._switch()

    def offer(self, asked: dict[str, Any]) -> None:
        """Take the cascade that is shown from now on; see ``Session.cascade``."""
        self._asked = asked
        self.answer.value = ""
        self._forget()

    def code(self) -> str:
        """Return the Python that writes the router, ``""`` without a cascade."""
        if self._asked is None:
            return ""
        folder = self.path.value.strip()
        return f"{cascade_code(self._asked)}.router().save({folder!r}, overwrite=True)"

    def loading(self, folder: str) -> str:
        """Return the three lines that load a router and use it."""
        return f'import workbench as wb\nrouter = wb.Router.load({folder!r})\nrouter(["a text"])'

    def _forget(self) -> None:
        self._confirmed = None
        self.write.description = "Write router"
        self._switch()

    def _switch(self) -> None:
        self.write.disabled = self._question.is_busy or self._asked is None

    def _write(self) -> None:
        assert self._asked is not None
        given = self.path.value.strip()
        if not given:
            raise ConfigError("No folder was given; give one such as out/router.")
        folder = Path(given).expanduser().absolute()
        is_there = folder.is_dir() and any(folder.iterdir())
        if is_there and self._confirmed != folder:
            self._confirmed = folder
            self.write.description = "Replace it"
            self._question.say(
                f"{folder} is there already. Press Replace it to put this router in its place, or"
                " give another folder."
            )
            return
        line = self.code()

        def done(path: str) -> None:
            self._forget()
            self._session.history.note(line)
            self.answer.value = (
                '<div class="wb-answer wb-answer-pass"><span role="status">'
                f"Wrote {html.escape(path)}</span></div>"
                f'<pre class="wb-lines">{html.escape(self.loading(given))}</pre>'
            )

        def failed(text: str) -> None:
            self._forget()
            self._question.say(text, is_problem=True)

        self.answer.value = ""
        self._question.ask(
            "router",
            done,
            "Writing the router …",
            failed,
            path=str(folder),
            overwrite=is_there,
            **self._asked,
        )
