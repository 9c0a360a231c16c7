"""Forms that are generated from the fields of a step: one control per field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as w

from workbench.app.parts.controls import (
    about_html,
    check,
    classed,
    close,
    dropdown,
    explained,
    looks,
    out_of_range,
    problem_html,
    show,
    text,
    toggled,
)
from workbench.recipes import STEPS, FieldInfo, Step, fields_of

BLOCKS = "blocks"
"""The unit of fields that count a model's blocks."""
_SLIDER_SPAN = 64
"""Whole numbers with more values than this get a box to type in instead of a slider."""
_MANY, _FIRST = 4, 3
"""Of a step with more than ``_MANY`` fields, those after the ``_FIRST`` are shown when asked."""


class Control:
    """One field of a step as a widget with a label, its help as tooltip and behind a question mark.

    Fields that accept None have a checkbox, or an entry in their list, that says what None means.

    Attributes
    ----------
    info : FieldInfo
    start : float, optional
        What a number begins at that is None by default.
    widget : ipywidgets.Widget
        What is shown.
    """

    def __init__(
        self, info: FieldInfo, on_change: Callable[[], None], start: float | None = None
    ) -> None:
        self.info = info
        self._on_change = on_change
        self._list: w.Dropdown | None = None
        self._none: w.Checkbox | None = None
        self._input: w.ValueWidget | None = None
        self.problem = w.HTML(layout=w.Layout(display="none"))
        rows: list[w.Widget] = []
        listed = bool(info.choices)
        if listed:
            self._list = dropdown(_spoken(info), self._options(), tooltip=info.help)
            rows.append(self._list)
        if not listed or info.minimum is not None:
            self._input = self._make_input()
            if listed:
                self._input.description = "other value"
            rows.append(self._input)
        if info.optional and not listed:
            label = f"no {_spoken(info)}: {info.none_means}"
            self._none = check(label, info.help)
            rows.insert(0, self._none)
        if self._input is not None and start is not None:
            self._input.value = start
        self.set(info.default)
        for control in (self._list, self._none, self._input):
            if control is not None:
                control.observe(self._changed, names="value")
        named = info.unit and info.unit not in _spoken(info)
        unit = f"In {info.unit}. " if named else ""
        if info.unit == BLOCKS and info.maximum is not None:
            unit = f"From {info.minimum:g} to {info.maximum:g}. "
        help = explained(_spoken(info), unit + info.help)
        self.widget = classed(w.VBox([*rows, self.problem, help]), "wb-field")

    def explain(self) -> str:
        """Return why the value that is shown is not accepted, ``""`` if it is."""
        info, value = self.info, self.get()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return ""
        low = -math.inf if info.minimum is None else info.minimum
        high = math.inf if info.maximum is None else info.maximum
        return "" if value in info.choices else out_of_range(value, low, high, info.unit)

    def get(self) -> Any:
        """Return the field's value as the form shows it."""
        if self._list is not None and self._list.value is not _OTHER:
            return self._list.value
        if self._none is not None and self._none.value:
            return None
        assert self._input is not None
        return self._input.value

    def set(self, value: Any) -> None:
        """Show a value."""
        if self._list is not None:
            known = [choice for _, choice in self._options()]
            self._list.value = value if value in known else _OTHER
        if self._none is not None:
            self._none.value = value is None
        if self._input is not None and value is not None:
            self._input.value = value
        self._show()

    def _changed(self, _: Any) -> None:
        self._show()
        self._on_change()

    def _show(self) -> None:
        if self._input is None:
            return
        problem = self.explain()
        self.problem.value = problem_html(problem)
        show(self.problem, is_shown=bool(problem))
        hidden = (self._list is not None and self._list.value is not _OTHER) or (
            self._none is not None and self._none.value
        )
        show(self._input, is_shown=not hidden)

    def _options(self) -> list[tuple[str, Any]]:
        info = self.info
        values = list(info.choices)
        if info.optional and None not in values:
            values.append(None)
        options = [(info.none_means if v is None else str(v), v) for v in values]
        if info.minimum is not None:
            options.append(("other value …", _OTHER))
        return options

    def _make_input(self) -> w.ValueWidget:
        info = self.info
        texts = {"description": _spoken(info), **looks(tooltip=info.help)}
        low, high = info.minimum, info.maximum
        if info.type is bool:
            return w.Checkbox(indent=True, **texts)
        if info.type is str:
            return text(_spoken(info), tooltip=info.help)
        if info.type is int:
            if low is None or high is None:
                return w.IntText(**texts)
            if high - low <= _SLIDER_SPAN:
                return w.IntSlider(min=int(low), max=int(high), **texts)
            return w.IntText(**texts)
        if low is None or high is None:
            return w.FloatText(**texts)
        if low > 0 and high / low >= 1000:  # spans orders of magnitude: a slider cannot hit it
            return w.FloatText(step=low, **texts)
        return w.FloatSlider(min=low, max=high, step=0.01, readout_format=".2f", **texts)


class _Other:
    def __repr__(self) -> str:
        return "other"


_OTHER = _Other()


_SPOKEN = {"method": "what is trained"}  # the form has a method of its own


def _spoken(info: FieldInfo) -> str:
    return _SPOKEN.get(info.name, info.name.replace("_", " "))


def _fitted(
    info: FieldInfo, on_change: Callable[[], None], n_blocks: int | None
) -> tuple[FieldInfo, Callable[[], None], float | None]:
    """Return what a control is made with: a number of blocks is one of the model's, or half."""
    if info.unit != BLOCKS or not n_blocks:
        return info, on_change, None
    return replace(info, maximum=n_blocks), on_change, max(1, n_blocks // 2)


class StepForm:
    """A form for one kind of step.

    Parameters
    ----------
    step : type of Step
    on_change : callable
    n_blocks : int, optional
        Blocks of the model, which a student has some of.

    Attributes
    ----------
    step : type of Step
    widget : ipywidgets.Widget
    """

    def __init__(
        self,
        step: type[Step],
        on_change: Callable[[], None] = lambda: None,
        n_blocks: int | None = None,
    ) -> None:
        self.step = step
        self._controls = {
            info.name: Control(*_fitted(info, on_change, n_blocks)) for info in fields_of(step)
        }
        about = w.HTML(about_html(step.about))
        fields = [control.widget for control in self._controls.values()]
        if len(fields) <= _MANY:
            self.widget = w.VBox([about, *fields])
            return
        more = toggled(
            f"{len(fields) - _FIRST} more settings",
            "sliders",
            "Show the settings that are rarely changed",
            fields[_FIRST:],
        )
        self.more = more.children[0]
        self.widget = w.VBox([about, *fields[:_FIRST], more])

    @property
    def value(self) -> Step:
        """The step that the form describes.

        Raises
        ------
        ConfigError
            If the values do not go together.
        """
        return self.step(**{name: control.get() for name, control in self._controls.items()})

    @value.setter
    def value(self, step: Step) -> None:
        for name, control in self._controls.items():
            control.set(getattr(step, name))

    def control(self, name: str) -> Control:
        """Return the control of a field."""
        return self._controls[name]

    def code(self) -> str:
        """Return the Python that makes the step."""
        return self.value.code()


class MethodForm:
    """Choose a method, then its parameters; each method keeps what was entered.

    Attributes
    ----------
    widget : ipywidgets.Widget
    method : ipywidgets.Dropdown
    """

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, n_blocks: int | None = None
    ) -> None:
        self._on_change, self._n_blocks = on_change, n_blocks
        self._forms: dict[str, StepForm] = {}
        options = [(_offer(name), name) for name in STEPS]
        self.method = dropdown("method", options, tooltip="How the model is made smaller")
        self._place = w.VBox()
        self.method.observe(self._switch, names="value")
        self.widget = w.VBox([self.method, self._place])
        self._switch(None)

    @property
    def form(self) -> StepForm:
        """The form of the chosen method."""
        name = self.method.value
        if name not in self._forms:
            self._forms[name] = StepForm(STEPS[name], self._on_change, self._n_blocks)
        return self._forms[name]

    @property
    def value(self) -> Step:
        """The step that the form describes; see :attr:`StepForm.value`."""
        return self.form.value

    @value.setter
    def value(self, step: Step) -> None:
        self.method.value = type(step).__name__
        self.form.value = step

    def code(self) -> str:
        """Return the Python that makes the step."""
        return self.value.code()

    def close(self) -> None:
        """Close the form of every method, also of those that are not shown."""
        for form in self._forms.values():
            close(form.widget)

    def _switch(self, _: Any) -> None:
        self._place.children = [self.form.widget]
        self._on_change()


def _offer(name: str) -> str:
    title = STEPS[name].title
    return title if title == name else f"{title} ({name})"
