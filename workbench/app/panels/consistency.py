"""Change the texts a little, and see whether the answers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.session import Session
from workbench.errors import ConfigError

ABOUT = (
    "Case, typos, punctuation and wording should not change an answer. The model is run once for"
    " each change, so this takes as long as several evaluations."
)


class ConsistencyPanel:
    """The changes of the package and the user's own templates, and what came of each.

    Parameters
    ----------
    session : Session
    run : callable
        Returns the id of the chosen run, None without one.

    Attributes
    ----------
    widget : ipywidgets.Widget
    templates : ipywidgets.Textarea
        One per line, with ``{text}`` in it.
    go : ipywidgets.Button
    table : Rows
    """

    def __init__(self, session: Session, run: Callable[[], str | None]) -> None:
        self._session = session
        self._run = run
        self._known: dict[str, list[dict[str, Any]]] = {}
        self.templates = w.Textarea(
            description="your own",
            placeholder="Dear team, {text}\nClassify this message: {text}",
            tooltip="Further wordings, one per line, with {text} where the text stands",
            rows=2,
            style={"description_width": "70px"},
            layout=w.Layout(width="100%"),
        )
        self._question = InspectorQuestion(session, "Consistency", self._switch)
        self.go = w.Button(
            description="Change the texts",
            icon="play",
            button_style="primary",
            layout=w.Layout(width="auto"),
        )
        self.go.on_click(session.banner.guard(lambda _: self._ask()))
        self.table = Rows(height="420px")
        buttons = w.HBox([self.go, self._question.stop])
        buttons.add_class("wb-buttons")
        about = w.HTML(f'<div class="wb-about">{ABOUT}</div>')
        self.widget = w.VBox([about, self.templates, buttons, self._question.status, self.table])

    def code(self, run: str, templates: list[str]) -> str:
        """Return the Python that does the same."""
        if not templates:
            return f"study.consistency({run!r})"
        own = "".join(f", {template!r}: {template!r}" for template in templates)
        return (
            "from workbench.selection.trust import PERTURBATIONS\n"
            f"study.consistency({run!r}, {{**PERTURBATIONS{own}}})"
        )

    def refresh(self) -> None:
        """Show what is known of the chosen run."""
        self._switch()
        found = self._known.get(self._run() or "")
        self.table.html = "" if found is None else _rows(found)

    def _switch(self) -> None:
        self.go.disabled = self._question.is_busy or self._run() is None

    def _ask(self) -> None:
        run = self._run()
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
            self._session.history.note(self.code(run, templates))
            self.refresh()

        self._question.ask(
            "consistency",
            answered,
            "Loading the model in a process of its own …",
            run=run,
            templates=templates,
        )


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
