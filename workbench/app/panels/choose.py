"""Say what is needed, and see which runs have it for sure."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.parts.limits import WIDE, Limits
from workbench.app.parts.prices_form import prices_code
from workbench.app.parts.rows import Rows
from workbench.app.parts.throttle import Throttle
from workbench.app.parts.verdict_rows import HEADS, verdict_rows
from workbench.app.session import Session
from workbench.errors import WorkbenchError
from workbench.selection.requirements import Requirements

if TYPE_CHECKING:
    from workbench.selection.decision import Verdict

_USUAL = 0.95


class ChoosePanel:
    """The bar for quality, limits, and the verdict on every run.

    Parameters
    ----------
    session : Session
    on_bar : callable
        Called with the limits by axis (MB, ms) and the worst accepted value of the metric.

    Attributes
    ----------
    widget : ipywidgets.Widget
    bar : ipywidgets.FloatSlider
    limits : Limits
    confidence : ipywidgets.Dropdown
    answer : ipywidgets.HTML
    verdicts : Rows
        One row per candidate, smallest first; rows can be selected.
    """

    def __init__(
        self,
        session: Session,
        on_bar: Callable[[dict[str, float], float | None], None] = lambda most, bar: None,
    ) -> None:
        self._session = session
        self._on_bar = on_bar
        metric = session.study.metric.name.replace("_", " ")
        self.bar = w.FloatSlider(
            value=0.97,
            min=0.5,
            max=1.0,
            step=0.005,
            readout_format=".1%",
            description="keep at least",
            tooltip=f"Share of the base model's quality ({metric})",
            continuous_update=False,
            style=WIDE,
            layout=w.Layout(width="auto", max_width="520px"),
        )
        self.limits = Limits(session)
        self.confidence = w.Dropdown(
            options=[(f"{share:.0%}", share) for share in (0.8, 0.9, _USUAL, 0.99)],
            value=_USUAL,
            description="with confidence",
            tooltip="1 minus the chance of choosing a run that truly fails, however many there are",
            style=WIDE,
            layout=w.Layout(width="auto", max_width="300px"),
        )
        self.answer = w.HTML()
        self.verdicts = Rows(height="300px")
        self.verdicts.add_class("wb-verdicts")
        self.pick = w.Button(
            description="Select this run",
            icon="check",
            tooltip="Select it in the plot and everywhere",
            disabled=True,
            layout=w.Layout(width="auto"),
        )
        self._found: str | None = None
        guard = session.banner.guard
        for control in (self.bar, self.confidence, *self.limits.controls):
            control.observe(guard(lambda _: self._refresh()), names="value")
        session.prices.listen(guard(self._refresh))
        self.pick.on_click(guard(self._pick))
        self.verdicts.observe(
            guard(lambda _: session.selection.set(self.verdicts.selected)), names="selected"
        )
        session.selection.listen(self._mark)
        picking = w.HBox([self.pick])
        picking.add_class("wb-buttons")
        self.widget = w.VBox(
            [
                w.HTML("<h3>What is good enough?</h3>"),
                self.bar,
                self.confidence,
                *self.limits.controls,
                self.answer,
                picking,
                self.verdicts,
            ]
        )
        self.widget.add_class("wb-card")
        self.refresh = Throttle(guard(self._refresh), interval=1.0)
        guard(self._refresh)()

    @property
    def chosen(self) -> str | None:
        """The id of the smallest run that passes with confidence, None if none does."""
        return self._found

    def code(self) -> str:
        """Return the Python that chooses the same run."""
        return f"study.choose({self.requirements_code()})"

    def requirements(self) -> dict[str, Any]:
        """Return what is asked for, as :class:`workbench.Requirements` takes it."""
        asked: dict[str, Any] = {"accuracy": round(self.bar.value, 6), **self.limits.asked()}
        if self.confidence.value != _USUAL:
            asked["confidence"] = self.confidence.value
        return asked

    def requirements_code(self) -> str:
        """Return the Python of :meth:`requirements`."""
        given = ", ".join(
            f"{name}={prices_code(value) if name == 'cost' else repr(value)}"
            for name, value in self.requirements().items()
        )
        return f"wb.Requirements({given})"

    # What is clicked

    def _pick(self, _: Any) -> None:
        if self._found is not None:
            self._session.selection.set([self._found])

    def _mark(self) -> None:
        self.verdicts.selected = list(self._session.selection.runs)

    # What is shown

    def _refresh(self) -> None:
        kind = "none"
        verdicts: tuple[Verdict, ...] = ()
        self._found = None
        try:
            decision = self._session.study.choose(Requirements(**self.requirements()))
            text, verdicts = decision.nearest, decision.verdicts
            if decision.run is not None:
                self._found, kind = decision.run.id, "pass"
            elif decision.answer == "unclear":
                kind = "maybe"
        except WorkbenchError as error:  # such as no baseline yet: an answer, not an accident
            text = str(error)
        self.pick.disabled = self._found is None
        self.answer.value = (
            f'<div class="wb-answer wb-answer-{kind}">'
            f'<span role="status">{html.escape(text)}</span></div>'
        )
        if verdicts:
            self.verdicts.fill(HEADS, verdict_rows(verdicts, self._session.study.models[0]))
        else:
            self.verdicts.clear()
        self._on_bar(self.limits.by_axis(), self._worst())

    def _worst(self) -> float | None:
        study = self._session.study
        metric = study.metric
        for record in study.records:
            found = record.measurement(metric.name)
            if not record.recipe.steps and found is not None and found.value > 0:
                share = self.bar.value
                return found.value * share if metric.higher_is_better else found.value / share
        return None
