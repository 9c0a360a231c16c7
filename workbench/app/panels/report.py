"""Write the page for the person who decides."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.panels.choose import ChoosePanel
from workbench.app.parts.inspector_question import InspectorQuestion
from workbench.app.parts.prices_form import prices_code
from workbench.app.session import Session

_WIDE = {"description_width": "150px"}


class ReportPanel:
    """The question, the file, and what of the other panels goes in.

    Parameters
    ----------
    session : Session
    bar : ChoosePanel
        Where the bar is from.

    Attributes
    ----------
    widget : ipywidgets.Widget
    question, path : ipywidgets.Text
    with_costs, with_cascade : ipywidgets.Checkbox
    write : ipywidgets.Button
    written : ipywidgets.HTML
    """

    def __init__(self, session: Session, bar: ChoosePanel) -> None:
        self._session = session
        self._bar = bar
        self.question = w.Text(
            description="question",
            placeholder="Which model answers our tickets?",
            tooltip="What is to be decided, in your words; may stay empty",
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.path = w.Text(
            description="report",
            value="report.html",
            tooltip="The file; one that is there is replaced",
            style=_WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.with_costs = _check("with what it costs", "Needs your prices, under Cost")
        self.with_cascade = _check("with the cascade", "Needs one that was shown under Routing")
        self._question = InspectorQuestion(session, "Report", self.refresh)
        self.write = w.Button(
            description="Write report",
            icon="file-text-o",
            tooltip="One page for the person who decides; no script in it",
            layout=w.Layout(width="auto"),
        )
        self.write.on_click(session.banner.guard(self._write))
        self.written = w.HTML()
        session.prices.listen(self.refresh)
        buttons = w.HBox([self.write, self._question.stop])
        buttons.add_class("wb-buttons")
        self.widget = w.VBox(
            [
                w.HTML("<h3>Report it</h3>"),
                self.question,
                self.path,
                self.with_costs,
                self.with_cascade,
                buttons,
                self._question.status,
                self.written,
            ]
        )
        self.widget.add_class("wb-card")
        self.refresh()

    def code(self) -> str:
        """Return the Python that writes the same report."""
        session = self._session
        given = [repr(self._file()), self._bar.requirements_code()]
        if self.question.value.strip():
            given.append(f"question={self.question.value.strip()!r}")
        if self.with_costs.value and session.prices.model is not None:
            given.append(f"cost={prices_code(session.prices.model)}")
        if self.with_cascade.value and session.cascade is not None:
            given.append(f"cascade={cascade_code(session.cascade)}")
        return f"study.report({', '.join(given)})"

    def refresh(self) -> None:
        """Offer what the other panels have by now."""
        for box, is_there in (
            (self.with_costs, self._session.prices.model is not None),
            (self.with_cascade, self._session.cascade is not None),
        ):
            if box.disabled and is_there:
                box.value = True
            box.disabled = not is_there
            box.value = box.value and is_there
        self.write.disabled = self._question.is_busy

    def _file(self) -> str:
        return self.path.value.strip() or "report.html"

    def _write(self, _: Any) -> None:
        session, line = self._session, self.code()
        self.written.value = ""
        further: dict[str, Any] = {}
        if self.question.value.strip():
            further["question"] = self.question.value.strip()
        if self.with_costs.value and session.prices.model is not None:
            further["cost"] = dataclasses.asdict(session.prices.model)
        if self.with_cascade.value and session.cascade is not None:
            further["cascade"] = session.cascade

        def done(path: str) -> None:
            session.history.note(line)
            self.written.value = (
                '<div class="wb-answer wb-answer-pass"><span role="status">'
                f"Wrote {html.escape(path)}</span></div>"
            )

        self._question.ask(
            "report",
            done,
            "Writing the report …",
            session.banner.note,
            path=str(Path(self._file()).expanduser().absolute()),
            requirements=_plain(self._bar.requirements()),
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


def _check(text: str, tooltip: str) -> w.Checkbox:
    return w.Checkbox(
        description=text,
        tooltip=tooltip,
        disabled=True,
        indent=True,
        style=_WIDE,
        layout=w.Layout(width="auto"),
    )
