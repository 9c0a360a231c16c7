"""Write the page for the person who decides."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.choose import requirements_code
from workbench.app.parts.controls import LONG_LABEL, answer_html, card, check, row, text
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.prices_form import prices_code
from workbench.app.parts.write_button import WriteButton
from workbench.app.session import Session


class ReportPanel(StudyPanel):
    """The question, the file, and what of the other panels goes in.

    Attributes
    ----------
    question, path : ipywidgets.Text
    with_costs, with_cascade : ipywidgets.Checkbox
    write : ipywidgets.Button
    written : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        look = {"label": LONG_LABEL, "most": "520px"}
        self.question = text(
            "question", placeholder="Which model answers our tickets?",
            tooltip="What is to be decided, in your words; may stay empty", **look,
        )  # fmt: skip
        self.path = text("report", "report.html", tooltip="The file", **look)
        self.with_costs = check(
            "with what it costs", "Needs your prices, under Cost", label=LONG_LABEL, disabled=True
        )
        self.with_cascade = check(
            "with the cascade", "Needs one that was shown under Routing", label=LONG_LABEL,
            disabled=True,
        )  # fmt: skip
        self._question = InspectorQuestion(session, "Report", self.refresh)
        self._writing = WriteButton(
            "Write report", "file-text-o", "One page for the person who decides; no script in it",
            self.path, self._write, self.notice,
        )  # fmt: skip
        self.write = self._writing.button
        self.written = w.HTML()
        session.prices.listen(self.refresh)
        session.cascade.listen(self.refresh)
        self.widget = card(
            "Report it", self.question, self.path, self.with_costs, self.with_cascade,
            row(self.write, self._question.stop), self.notice.widget, self._question.status,
            self.written,
        )  # fmt: skip
        self.refresh()

    def code(self) -> str:
        """Return the Python that writes the same report."""
        prices, cascade = self._session.prices.value, self._session.cascade.value
        given = [repr(self.path.value.strip()), requirements_code(self._session.requirements.value)]
        if self.question.value.strip():
            given.append(f"question={self.question.value.strip()!r}")
        if self.with_costs.value and prices is not None:
            given.append(f"cost={prices_code(prices)}")
        if self.with_cascade.value and cascade is not None:
            given.append(f"cascade={cascade_code(cascade)}")
        return f"study.report({', '.join(given)})"

    def _refresh(self) -> None:
        """Offer what the other panels have by now."""
        for box, is_there in (
            (self.with_costs, self._session.prices.value is not None),
            (self.with_cascade, self._session.cascade.value is not None),
        ):
            if box.disabled and is_there:
                box.value = True
            box.disabled = not is_there
            box.value = box.value and is_there
        self.write.disabled = self._question.is_busy

    def _write(self, path: Path, overwrite: bool) -> None:
        session, line = self._session, self.code()
        self.written.value = ""
        further: dict[str, Any] = {}
        if self.question.value.strip():
            further["question"] = self.question.value.strip()
        if self.with_costs.value and session.prices.value is not None:
            further["cost"] = dataclasses.asdict(session.prices.value)
        if self.with_cascade.value and session.cascade.value is not None:
            further["cascade"] = session.cascade.value

        def done(written: str) -> None:
            session.history.note(line)
            self._writing.wrote(path)
            self.written.value = answer_html(f"Wrote {written}", "pass")

        self._question.ask(
            "report",
            done,
            "Writing the report …",
            path=str(path),
            requirements=_plain(session.requirements.value),
            **further,
        )


def cascade_code(asked: dict[str, Any]) -> str:
    """Return the Python of a cascade that was asked so; see ``Session.cascade``."""
    given = [repr(asked["runs"])]
    if asked["signal"] != "confidence":
        given.append(f"signal={asked['signal']!r}")
    if asked["accuracy"] != 1.0:
        given.append(f"accuracy={asked['accuracy']!r}")
    cost = asked["cost"]
    if isinstance(cost, str):
        given.append(f"cost={cost!r}")
    else:
        from workbench.selection.cost import CostModel

        given.append(f"cost={prices_code(CostModel(**cost))}")
    return f"study.cascade({', '.join(given)})"


def _plain(requirements: dict[str, Any]) -> dict[str, Any]:
    """Return requirements as they cross to the other process."""
    return {
        name: dataclasses.asdict(value) if name == "cost" else value
        for name, value in requirements.items()
    }
