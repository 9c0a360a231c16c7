"""What every measured run costs at the user's own prices, beside the base model and a service."""

from __future__ import annotations

import math
import warnings
from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import about_html, card, columns, heading, row
from workbench.app.parts.measure_button import MeasureButton
from workbench.app.parts.prices_form import PricesForm, prices_code
from workbench.app.parts.rows import Row, Rows
from workbench.app.session import Session
from workbench.errors import WorkbenchError
from workbench.views.run_names import run_names

UNPRICED = "Enter what an hour of your machine costs. No price is built in."
UNTIMED = "No run has measured times yet, from which its cost follows. Measure them first."


class CostPanel(StudyPanel):
    """Prices on the left, costs on the right.

    Attributes
    ----------
    form : PricesForm
    measure : ipywidgets.Button
        Measures the finished runs that have no times yet.
    about : ipywidgets.HTML
    table : Rows
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        guard = self._guard
        writes = not session.study.output.is_pooled
        self.form = PricesForm(guard(self._priced), writes_tokens=writes)
        self._measuring = MeasureButton(
            session,
            self.notice,
            self._untimed,
            text="Measure what is missing",
            tooltip="Time and memory of the finished runs that have none, on this machine",
            lacks="Every finished run was measured already; a selected one is measured again under"
            " Frontier.",
        )
        self.measure = self._measuring.button
        self.missing, self.about = w.HTML(), w.HTML()
        self.table = Rows(height="460px")
        self.table.observe(
            guard(lambda _: session.selection.set(self.table.selected)), names="selected"
        )
        session.selection.listen(self._mark)
        left = card(
            "Your prices", self.form.widget, heading("Times"), self.missing,
            row(self.measure, self._measuring.stop), self.notice.widget, self._measuring.status,
        )  # fmt: skip
        right = card("What it costs", self.about, self.table)
        self.widget = columns("wb-form-side", left, right)
        self.refresh()

    def code(self) -> str:
        """Return the Python that makes the table, ``""`` without prices."""
        prices = self._session.prices.value
        return "" if prices is None else f"study.costs({prices_code(prices)})"

    def _refresh(self) -> None:
        left = self._untimed()
        runs = "1 finished run has" if len(left) == 1 else f"{len(left)} finished runs have"
        told = f"{runs} no measured times." if left else "Every finished run was measured."
        self.missing.value = about_html(told)
        self._show()
        self._mark()

    def _untimed(self) -> list[str]:
        return [r.id for r in self._session.done if r.measurement("latency_ms") is None]

    def _priced(self) -> None:
        self._session.prices.set(self.form.model)
        self._session.history.keep("costs", self.code())
        self._show()

    def _mark(self) -> None:
        self.table.selected = list(self._session.selection.runs)

    def _show(self) -> None:
        prices = self._session.prices.value
        self.table.clear()
        if prices is None:
            self._say(UNPRICED)
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that nothing was measured is said below
                frame = self._session.study.costs(prices)
        except WorkbenchError as error:  # such as runs of two machines: an answer, not an accident
            self._say(str(error))
            return
        if frame.empty:
            self._say(UNTIMED)
            return
        words = (
            f"At {prices.price_per_hour_usd:g} dollars an hour, at work {prices.utilisation:.0%} of"
            " the time, from measured times."
        )
        self._say(f"{words} {prices.dated}".strip())
        self._tabulate(frame.to_dict("records"), prices.api_per_1k_usd)

    def _tabulate(self, rows: list[dict[Any, Any]], api: float | None) -> None:
        prices = self._session.prices.value
        assert prices is not None
        month = prices.queries_per_month
        energy = any(_is_known(row["energy_per_1k_kwh"]) for row in rows)
        heads = [("run", "text"), ("ms a query", ""), ("$ per 1,000", "")]
        heads += [("$ a month", "")] * (month is not None)
        heads += [("of the base model", "")]
        heads += [("of the API", "")] * (api is not None)
        heads += [("kWh per 1,000", "")] * energy
        names = run_names(self._session.done)
        shown: list[Row] = []
        for priced in rows:
            cells: list[object] = [
                names[priced["run"]], f"{1e3 * priced['seconds_per_query']:.3g}",
                _number(priced["per_1k_usd"], ".3g"),
            ]  # fmt: skip
            cells += [_number(priced["per_month_usd"], ",.2f")] * (month is not None)
            cells += [_number(priced["of_baseline"], ".0%")]
            cells += [_number(priced["of_api"], ".1%")] * (api is not None)
            cells += [_number(priced["energy_per_1k_kwh"], ".3g")] * energy
            shown.append((priced["run"], cells))
        if api is not None:
            cells = ["the service", "–", f"{api:.3g}"]
            cells += [f"{api * month / 1000:,.2f}"] if month is not None else []
            shown.append(("", [*cells, "–", "100.0%", *["–"] * energy]))
        self.table.fill(heads, shown)

    def _say(self, text: str) -> None:
        self.about.value = about_html(text, is_told=True)


def _is_known(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _number(value: Any, form: str) -> str:
    return format(value, form) if _is_known(value) else "–"
