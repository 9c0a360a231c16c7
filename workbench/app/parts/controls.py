"""Buttons, fields and cards as every panel has them: label, help, width and look in one place."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ipywidgets as w
import traitlets

from workbench.errors import ConfigError

LABEL, LONG_LABEL = "104px", "150px"
"""Widths of labels: in a narrow column, and where they say more."""
SEVERAL = "Ctrl or Shift selects several"


def button(
    text: str,
    icon: str = "",
    tooltip: str = "",
    on_click: Callable[[Any], None] | None = None,
    *,
    primary: bool = False,
    disabled: bool = False,
) -> w.Button:
    """Return a button as wide as its text."""
    made = w.Button(
        description=text,
        icon=icon,
        tooltip=tooltip,
        disabled=disabled,
        button_style="primary" if primary else "",
        layout=w.Layout(width="auto"),
    )
    if on_click is not None:
        made.on_click(on_click)
    return made


def toggled(text: str, icon: str, tooltip: str, children: Sequence[w.Widget]) -> w.VBox:
    """Return a button that shows further controls below it, and hides them again."""
    switch = w.ToggleButton(
        description=text, icon=icon, tooltip=tooltip, layout=w.Layout(width="auto")
    )
    more = classed(w.VBox(list(children), layout=w.Layout(display="none")), "wb-more")
    switch.observe(lambda change: show(more, is_shown=change["new"]), names="value")
    return w.VBox([switch, more])


def text(name: str, value: str = "", *, placeholder: str = "", **look: Any) -> w.Text:
    """Return a line to write in; ``look`` is that of :func:`looks`."""
    return w.Text(description=name, value=value, placeholder=placeholder, **looks(**look))


def text_area(name: str, value: str = "", *, rows: int = 2, **look: Any) -> w.Textarea:
    """Return lines to write in."""
    placeholder = look.pop("placeholder", "")
    return w.Textarea(
        description=name, value=value, rows=rows, placeholder=placeholder, **looks(**look)
    )


def dropdown(name: str, options: Iterable[Any] = (), **look: Any) -> w.Dropdown:
    """Return a list of which one entry is seen."""
    return w.Dropdown(description=name, options=list(options), **looks(**look))


def one_of(name: str, rows: int) -> w.Select:
    """Return a list of which one entry is chosen; its heading is above it."""
    return w.Select(rows=rows, description=name, **looks(label="0px", width="100%"))


def several_of(name: str, rows: int) -> w.SelectMultiple:
    """Return a list of which several entries are chosen; its heading is above it."""
    look = looks(label="0px", width="100%", tooltip=SEVERAL)
    return w.SelectMultiple(rows=rows, description=name, **look)


def buttons(options: Sequence[Any], *, kind: str, **given: Any) -> w.ToggleButtons:
    """Return buttons of which one is chosen; ``kind`` is the class that says how they look."""
    return classed(w.ToggleButtons(options=list(options), **given), kind)


def check(name: str, tooltip: str, **look: Any) -> w.Checkbox:
    """Return a box to tick."""
    indent, disabled = look.pop("indent", True), look.pop("disabled", False)
    return w.Checkbox(
        description=name, indent=indent, disabled=disabled, **looks(tooltip=tooltip, **look)
    )


def share(name: str, value: float, low: float, high: float, step: float, **look: Any) -> Any:
    """Return a slider over shares, told as percentages."""
    form = ".0%" if step >= 0.01 else ".1%"
    return w.FloatSlider(
        value=value, min=low, max=high, step=step, readout_format=form, description=name,
        continuous_update=False, **looks(**look),
    )  # fmt: skip


def looks(
    *, tooltip: str = "", label: str = LABEL, width: str = "auto", most: str | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of a control's look, with a layout of its own.

    Parameters
    ----------
    tooltip : str
    label : str
        Width of the label, as CSS.
    width, most : str
        Width of the whole, and the most that it takes.
    """
    layout = w.Layout(width=width, **({"max_width": most} if most else {}))
    return {"style": {"description_width": label}, "layout": layout, "tooltip": tooltip}


def explained(name: str, words: str) -> w.HTML:
    """Return a question mark that the keyboard reaches, and what it opens."""
    shown, name = html.escape(words), html.escape(name)
    mark = f'<summary title="{shown}" aria-label="What is {name}?">?</summary>'
    told = f'<details class="wb-explain">{mark}<div class="wb-help">{shown}</div></details>'
    return classed(w.HTML(told), "wb-explained")


class NumberField(w.VBox):
    """A number that is written, checked at once, and told beside the field if it is none.

    Parameters
    ----------
    name : str
    value : float, optional
        None leaves the field empty.
    low, high : float
        What is accepted.
    whole : bool
        Whether only whole numbers are.
    empty : str
        What an empty field means, such as ``"no limit"``. Default: it must be filled.

    Attributes
    ----------
    value : int, float or None
        The last accepted number, None if the field is empty. A trait, which can be observed.
    problem : str
        Why what is written is not accepted.
    input : ipywidgets.Text
    """

    value = traitlets.Any(None, allow_none=True)
    problem = traitlets.Unicode()

    def __init__(
        self,
        name: str,
        value: float | None = None,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        whole: bool = False,
        empty: str = "",
        unit: str = "",
        **look: Any,
    ) -> None:
        self._range, self._whole, self._empty, self._unit = (low, high), whole, empty, unit
        self.input = text(name, placeholder=empty or accepted(low, high, unit), **look)
        self.input.continuous_update = False
        self._shown = w.HTML(layout=w.Layout(display="none"))
        super().__init__([self.input, self._shown])
        self.add_class("wb-number")
        self.value = value
        self.input.value = _written(value)
        self.input.observe(self._read, names="value")
        self.observe(self._write, names="value")

    def checked(self) -> Any:
        """Return the value.

        Raises
        ------
        ConfigError
            If what is written is not accepted.
        """
        if self.problem:
            raise ConfigError(f"{self.input.description}: {self.problem}")
        return self.value

    def limit(self, low: float, high: float) -> None:
        """Accept numbers from ``low`` to ``high`` from now on."""
        self._range = (low, high)
        if not self._empty:
            self.input.placeholder = accepted(low, high, self._unit)
        self._read(None)

    def _write(self, _: Any) -> None:
        if not self._is_reading:
            self.input.value = _written(self.value)
            self._read(None)

    def _read(self, _: Any) -> None:
        given = self.input.value.strip()
        low, high = self._range
        number: float | None = None
        problem = ""
        if given:
            try:
                number = float(given)
            except ValueError:
                problem = f"{given!r} is no number; write one such as 2.5."
            else:
                problem = out_of_range(number, low, high, self._unit, whole=self._whole)
        elif not self._empty:
            problem = f"Nothing is written; give a number {accepted(low, high, self._unit)}."
        self.problem = problem
        self._shown.value = problem_html(problem)
        show(self._shown, is_shown=bool(problem))
        self._is_reading = True
        if problem:  # whoever works with the value asks for it again, and is told
            change = {"name": "value", "owner": self, "type": "change"}
            self.notify_change({**change, "old": self.value, "new": self.value})
        else:
            self.value = int(number) if self._whole and number is not None else number
        self._is_reading = False

    _is_reading = False


def accepted(low: float, high: float, unit: str = "") -> str:
    """Return which numbers are accepted, such as ``"from 1 to 6 blocks"``; ``""`` if all are."""
    unit = f" {unit}" if unit else ""
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f"of at least {low:g}{unit}"
    return f"of at most {high:g}{unit}" if math.isinf(low) else f"from {low:g} to {high:g}{unit}"


def out_of_range(
    number: float, low: float, high: float, unit: str = "", *, whole: bool = False
) -> str:
    """Return why a number is not accepted, ``""`` if it is."""
    if low <= number <= high and math.isfinite(number) and (not whole or number == int(number)):
        return ""
    kind, range = "a whole number" if whole else "a number", accepted(low, high, unit)
    return f"{number:g} is not accepted; give {kind}{' ' if range else ''}{range}."


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if float(f"{value:g}") == value else repr(value)


# Where controls stand


def classed(widget: Any, *names: str) -> Any:
    """Return a widget that the stylesheet knows by these names."""
    for name in names:
        widget.add_class(name)
    return widget


def card(title: str, *children: w.Widget) -> w.VBox:
    """Return controls that belong together, below a heading where there is one."""
    head = [heading(title)] if title else []
    return classed(w.VBox([*head, *children]), "wb-card")


def heading(title: str) -> w.HTML:
    """Return a heading."""
    return w.HTML(f"<h3>{html.escape(title)}</h3>")


def row(*children: w.Widget, kind: str = "wb-buttons") -> w.HBox:
    """Return controls beside each other, wrapped where there is no room."""
    return classed(w.HBox(list(children)), kind)


def columns(kind: str, *children: w.Widget) -> w.HBox:
    """Return cards beside each other; ``kind`` is the class that says how wide each is."""
    return classed(w.HBox(list(children)), kind)


def show(*widgets: w.Widget, is_shown: bool) -> None:
    """Show widgets, or hide them."""
    for widget in widgets:
        widget.layout.display = "" if is_shown else "none"


def close(widget: w.Widget) -> None:
    """Close a widget and everything in it, which ipywidgets keeps otherwise."""
    for child in getattr(widget, "children", ()):
        close(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, w.Widget):
            part.close()
    widget.close()


def about(words: str) -> w.HTML:
    """Return a quiet sentence."""
    return w.HTML(about_html(words))


# What is told


def about_html(words: str, *, is_told: bool = False) -> str:
    """Return a quiet sentence as HTML, escaped; read aloud when it changes if ``is_told``."""
    role = ' role="status"' if is_told else ""
    return f'<div class="wb-about"><span{role}>{html.escape(words)}</span></div>' if words else ""


def answer_html(words: str, kind: str = "none", more: str = "") -> str:
    """Return an answer as HTML, escaped.

    Parameters
    ----------
    words : str
    kind : {"none", "pass", "maybe"}
    more : str
        HTML below it.
    """
    shown = f'<span role="status">{html.escape(words)}</span>'
    return f'<div class="wb-answer wb-answer-{kind}">{shown}</div>{more}' if words else ""


def problem_html(words: str) -> str:
    """Return what is wrong as HTML, escaped."""
    return f'<div class="wb-problem" role="alert">{html.escape(words)}</div>' if words else ""


def busy_html(words: str) -> str:
    """Return what is being done as HTML, escaped, with something that turns."""
    turns = '<span class="wb-spinner" aria-hidden="true"></span>'
    return f'{turns}<span role="status">{html.escape(words)}</span>' if words else ""
