"""Change the texts a little, and see whether the answers stay."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import about, button, row, text_area
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.session import Session
from workbench.errors import ConfigError

ABOUT = (
    "Case, typos, punctuation and wording should not change an answer. The model is run once for"
    " each change, so this takes as long as several evaluations."
)


class ConsistencyPanel(StudyPanel):
    """The changes of the package and the user's own templates, and what came of each.

    Attributes
    ----------
    run : str or None
        Id of the run that is looked at.
    templates : ipywidgets.Textarea
        One per line, with ``{text}`` in it.
    go : ipywidgets.Button
    table : Rows
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.run: str | None = None
        self._known: dict[str, list[dict[str, Any]]] = {}
        self.templates = text_area(
            "your own",
            placeholder="Dear team, {text}\nClassify this message: {text}",
            tooltip="Further wordings, one per line, with {text} where the text stands",
            label="70px",
            width="100%",
        )
        self._question = InspectorQuestion(session, "Consistency", self._switch)
        self.go = button(
            "Change the texts", "play", on_click=self._guard(lambda _: self._ask()), primary=True
        )
        self.table = Rows(height="420px")
        self.widget = w.VBox(
            [
                about(ABOUT), self.templates, row(self.go, self._question.stop),
                self.notice.widget, self._question.status, self.table,
            ]
        )  # fmt: skip

    def code_of(self, run: str, templates: list[str]) -> str:
        """Return the Python that does the same."""
        if not templates:
            return f"study.consistency({run!r})"
        own = "".join(f", {template!r}: {template!r}" for template in templates)
        return (
            "from workbench.selection.trust import PERTURBATIONS\n"
            f"study.consistency({run!r}, {{**PERTURBATIONS{own}}})"
        )

    def _refresh(self) -> None:
        self._switch()
        found = self._known.get(self.run or "")
        self.table.html = "" if found is None else _rows(found)

    def _switch(self) -> None:
        self.go.disabled = self._question.is_busy or self.run is None

    def _ask(self) -> None:
        run = self.run
        assert run is not None
        lines = [line.strip() for line in self.templates.value.splitlines()]
        templates = [line for line in lines if line]
        for template in templates:
            if "{text}" not in template:
                raise ConfigError(
                    f"The wording {template!r} has no {{text}}; write it where the text stands,"
                    " such as Dear team, {text}"
                )

        def answered(found: list[dict[str, Any]]) -> None:
            self._known[run] = found
            self._session.history.note(self.code_of(run, templates))
            self.refresh()

        told = "Loading the model in a process of its own …"
        self._question.ask("consistency", answered, told, run=run, templates=templates)


def _rows(found: list[dict[str, Any]]) -> str:
    heads = [
        ("change of the texts", "text"), ("same answer", ""), ("95 % interval", ""),
        ("accuracy", ""), ("change", ""), ("95 % interval", ""),
    ]  # fmt: skip
    rows: list[tuple[str, list[object]]] = [
        (
            "",
            [
                row["perturbation"], f"{row['same']:.1%}",
                f"{row['same_low']:.1%} to {row['same_high']:.1%}", f"{row['accuracy']:.1%}",
                f"{row['change']:+.1%}", f"{row['change_low']:+.1%} to {row['change_high']:+.1%}",
            ],
        )
        for row in found
    ]  # fmt: skip
    return rows_html(heads, rows)
