"""Say what is needed, and see which runs have it for sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import (
    LONG_LABEL,
    answer_html,
    button,
    card,
    classed,
    dropdown,
    row,
    share,
)
from workbench.app.parts.limits import Limits
from workbench.app.parts.prices_form import prices_code
from workbench.app.parts.rows import Rows
from workbench.app.parts.run_picker import RunPicker
from workbench.app.parts.verdict_rows import HEADS, verdict_rows
from workbench.app.session import Session
from workbench.errors import WorkbenchError
from workbench.selection.requirements import Requirements

if TYPE_CHECKING:
    from workbench.selection.decision import Verdict

_USUAL = 0.95


class ChoosePanel(StudyPanel):
    """The bar for quality, limits, and the verdict on every run.

    Attributes
    ----------
    bar : ipywidgets.FloatSlider
    reference : ipywidgets.Dropdown
        What the bar is a share of: "" for the base model, or the id of a run.
    limits : Limits
    confidence : ipywidgets.Dropdown
    answer : ipywidgets.HTML
    verdicts : Rows
        One row per candidate, smallest first; rows can be selected.
    """

    interval = 1.0

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard = self._guard
        metric = session.study.metric.name.replace("_", " ")
        look = {"label": LONG_LABEL, "most": "520px"}
        self.bar = share(
            "keep at least", 0.97, 0.5, 1.0, 0.005,
            tooltip=f"Share of the base model's quality ({metric})", **look,
        )  # fmt: skip
        self.reference = dropdown(
            "of", tooltip="The run that quality is compared with: the base model, a fine-tuned"
            " teacher, a larger model", **look,
        )  # fmt: skip
        self._references = RunPicker(session, self.reference, guard(self._refresh), most=60)
        self.limits = Limits(session)
        self.confidence = dropdown(
            "with confidence",
            [(f"{share:.0%}", share) for share in (0.8, 0.9, _USUAL, 0.99)],
            tooltip="1 minus the chance of choosing a run that truly fails, however many there are",
            label=LONG_LABEL,
            most="340px",
        )
        self.confidence.value = _USUAL
        self.answer = w.HTML()
        self.verdicts = classed(Rows(height="300px"), "wb-verdicts")
        self.pick = button(
            "Select this run", "check", "Select it in the plot and everywhere", guard(self._pick),
            disabled=True,
        )  # fmt: skip
        self._found: str | None = None
        for control in (self.bar, self.confidence, *self.limits.controls):
            control.observe(guard(lambda _: self._refresh()), names="value")
        session.prices.listen(self.notice.watch(self._refresh))
        self.verdicts.observe(
            guard(lambda _: session.selection.set(self.verdicts.selected)), names="selected"
        )
        session.selection.listen(self._mark)
        self.widget = card(
            "What is good enough?", self.bar, self.reference, self.confidence,
            *self.limits.controls, self.answer, row(self.pick), self.notice.widget, self.verdicts,
        )  # fmt: skip
        self.refresh()

    @property
    def chosen(self) -> str | None:
        """The id of the smallest run that passes with confidence, None if none does."""
        return self._found

    def code(self) -> str:
        """Return the Python that chooses the same run."""
        return f"study.choose({requirements_code(self.requirements())})"

    def requirements(self) -> dict[str, Any]:
        """Return what is asked for, as :class:`workbench.Requirements` takes it."""
        asked: dict[str, Any] = {"accuracy": round(self.bar.value, 6), **self.limits.asked()}
        if self.reference.value:
            asked["reference"] = self.reference.value
        if self.confidence.value != _USUAL:
            asked["confidence"] = self.confidence.value
        return asked

    def _pick(self, _: Any) -> None:
        if self._found is not None:
            self._session.selection.set([self._found])

    def _mark(self) -> None:
        self.verdicts.selected = list(self._session.selection.runs)

    def _refresh(self) -> None:
        study, kind = self._session.study, "none"
        base = (f"the base model ({study.models[0]})", "")
        runs = [r for r in self._session.done if r.recipe.steps or r.model != study.models[0]]
        self._references.offer(runs, [base])
        verdicts: tuple[Verdict, ...] = ()
        self._found = None
        try:
            asked = self.requirements()
            self._session.requirements.set(asked)
            decision = study.choose(Requirements(**asked))
            text, verdicts = decision.nearest, decision.verdicts
            if decision.run is not None:
                self._found, kind = decision.run.id, "pass"
            elif decision.answer == "unclear":
                kind = "maybe"
        except WorkbenchError as error:  # such as no baseline yet: an answer, not an accident
            text = str(error)
        self._session.choice.set(self._found)
        self.pick.disabled = self._found is None
        self.answer.value = answer_html(text, kind)
        if verdicts:
            self.verdicts.fill(HEADS, verdict_rows(verdicts, study.models[0]))
        else:
            self.verdicts.clear()
        self._session.accepted.set((self.limits.by_axis(), self._worst()))

    def _worst(self) -> float | None:
        metric, reference = self._session.study.metric, self.reference.value
        for record in self._session.records:
            found = record.measurement(metric.name)
            wanted = record.id == reference if reference else not record.recipe.steps
            if wanted and found is not None and found.value > 0:
                share = self.bar.value
                return found.value * share if metric.higher_is_better else found.value / share
        return None


def requirements_code(asked: dict[str, Any]) -> str:
    """Return the Python of what is asked; see ``Session.requirements``."""
    given = ", ".join(
        f"{name}={prices_code(value) if name == 'cost' else repr(value)}"
        for name, value in asked.items()
    )
    return f"wb.Requirements({given})"
