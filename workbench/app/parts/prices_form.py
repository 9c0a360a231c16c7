"""The user's prices: one box per field of the cost model, with its help."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable

import ipywidgets as w

from workbench.recipes import FieldInfo, fields_of
from workbench.selection.cost import CostModel

_WIDE = {"description_width": "150px"}
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
    controls : dict of str to ipywidgets.ValueWidget
        By the name of the field of :class:`workbench.CostModel`.
    """

    def __init__(self, on_change: Callable[[], None], *, writes_tokens: bool) -> None:
        self.controls: dict[str, w.ValueWidget] = {}
        rows = []
        for info in fields_of(CostModel):
            if info.name == "new_tokens" and not writes_tokens:
                continue
            control = _control(info)
            control.observe(lambda _: on_change(), names="value")
            self.controls[info.name] = control
            row = w.VBox([control, _help(info)])
            row.add_class("wb-field")
            rows.append(row)
        self.widget = w.VBox(rows)

    @property
    def model(self) -> CostModel | None:
        """The prices; None while there is no price of an hour.

        Raises
        ------
        ConfigError
            If a number has no meaning.
        """
        values = {name: control.value for name, control in self.controls.items()}
        if not values["price_per_hour_usd"]:
            return None
        for info in fields_of(CostModel):
            if info.optional and not values[info.name]:
                values[info.name] = None
        return CostModel(**values)


def prices_code(model: CostModel) -> str:
    """Return the Python that makes the prices; what is at its default is left out."""
    given = [
        f"{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if getattr(model, field.name) != field.default
    ]
    return f"wb.CostModel({', '.join(given)})"


def _control(info: FieldInfo) -> w.ValueWidget:
    texts = {
        "description": _title(info),
        "tooltip": _explained(info),
        "style": _WIDE,
        "layout": w.Layout(width="auto"),
    }
    if info.type is str:
        return w.Text(placeholder="list, June", **texts)
    if info.maximum is not None:
        low, high = float(info.minimum or 0), float(info.maximum)
        return w.FloatSlider(
            value=info.default, min=low, max=high, step=0.01, readout_format=".0%",
            continuous_update=False, **texts,
        )  # fmt: skip
    least = info.minimum if info.type is int else 0  # zero leaves an optional one out
    kind = w.BoundedIntText if info.type is int else w.BoundedFloatText
    start = info.default if isinstance(info.default, (int, float)) else 0
    return kind(value=start, min=least, max=int(_MOST), **texts)


def _title(info: FieldInfo) -> str:
    """Return the field's name as people say it, with its unit."""
    words = info.name.removesuffix("_usd").replace("_", " ").replace("1k", "1,000")
    words = words.replace("kwh", "kWh").replace("api", "API")
    return f"{words}, $" if info.name.endswith("_usd") else words


def _explained(info: FieldInfo) -> str:
    return f"{info.help} 0 means: {info.none_means}." if info.optional else info.help


def _help(info: FieldInfo) -> w.HTML:
    text = html.escape(_explained(info))
    shown = w.HTML(
        f'<details class="wb-explain"><summary title="{text}"'
        f' aria-label="What is {html.escape(_title(info))}?">?</summary>'
        f'<div class="wb-help">{text}</div></details>'
    )
    shown.add_class("wb-explained")
    return shown
