"""The user's prices: one box per field of the cost model, with its help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from workbench.app.parts.controls import LONG_LABEL, NumberField, classed, explained, share, text
from workbench.recipes import FieldInfo, fields_of
from workbench.selection.cost import CostModel

_MOST = 1e12


class PricesForm:
    """Every number is the user's; nothing is known until the price of an hour is entered.

    Parameters
    ----------
    on_change : callable
    writes_tokens : bool
        Whether the model writes tokens, so that their number is asked.

    Attributes
    ----------
    widget : ipywidgets.Widget
    controls : dict of str to NumberField, ipywidgets.Text or ipywidgets.FloatSlider
        By the name of the field of :class:`workbench.CostModel`.
    """

    def __init__(self, on_change: Callable[[], None], *, writes_tokens: bool) -> None:
        self.controls: dict[str, Any] = {}
        rows = []
        for info in fields_of(CostModel):
            if info.name == "new_tokens" and not writes_tokens:
                continue
            control = _control(info)
            control.observe(lambda _: on_change(), names="value")
            self.controls[info.name] = control
            help = explained(_title(info), _explained(info))
            rows.append(classed(w.VBox([control, help]), "wb-field"))
        self.widget = w.VBox(rows)

    @property
    def model(self) -> CostModel | None:
        """The prices; None while there is no price of an hour.

        Raises
        ------
        ConfigError
            If a number has no meaning.
        """
        values = {
            name: control.checked() if isinstance(control, NumberField) else control.value
            for name, control in self.controls.items()
        }
        return None if values["price_per_hour_usd"] is None else CostModel(**values)


def prices_code(model: CostModel) -> str:
    """Return the Python that makes the prices; what is at its default is left out."""
    given = [
        f"{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if getattr(model, field.name) != field.default
    ]
    return f"wb.CostModel({', '.join(given)})"


def _control(info: FieldInfo) -> Any:
    look = {"tooltip": _explained(info), "label": LONG_LABEL}
    if info.type is str:
        return text(_title(info), placeholder="list, June", **look)
    low = float(info.minimum or 0)
    if info.maximum is not None:
        return share(_title(info), info.default, low, float(info.maximum), 0.01, **look)
    start = info.default if isinstance(info.default, (int, float)) else None
    is_price = info.name == "price_per_hour_usd"
    empty = "enter it first" if is_price else info.none_means if info.optional else ""
    return NumberField(_title(info), start, low, _MOST, whole=info.type is int, empty=empty, **look)


def _title(info: FieldInfo) -> str:
    """Return the field's name as people say it, with its unit."""
    words = info.name.removesuffix("_usd").replace("_", " ").replace("1k", "1,000")
    words = words.replace("kwh", "kWh").replace("api", "API")
    return f"{words}, $" if info.name.endswith("_usd") else words


def _explained(info: FieldInfo) -> str:
    return f"{info.help} Empty: {info.none_means}." if info.optional else info.help
