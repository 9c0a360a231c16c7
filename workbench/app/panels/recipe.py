"""Build a recipe: steps added, changed, moved and removed, with what it will cost before Run."""

from __future__ import annotations

import contextlib
import dataclasses
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.parts.form import MethodForm
from workbench.app.parts.run_options import offered
from workbench.app.session import Session
from workbench.errors import ConfigError, WorkbenchError
from workbench.prediction.estimates import estimate_memory_bytes, estimate_seconds
from workbench.recipes import AWQ, GPTQ, RTN, STEPS, Step, fields_of
from workbench.recipes.recipe import Recipe, shortened
from workbench.records import RunState

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction

STARTER: tuple[Step, ...] = (RTN(4), GPTQ(4), RTN(3), GPTQ(3), AWQ(3), GPTQ(2, group_size=32))
"""A first sweep: what each method does as the bits get fewer."""

_BASE = ""


class RecipePanel:
    """The steps of a recipe with a form for the chosen one, and the buttons that run it.

    Parameters
    ----------
    session : Session
    submit : callable
        Called with the recipes to compute.
    on_draft : callable
        Called with the prediction of the recipe whenever it changes, None where there is none.

    Attributes
    ----------
    widget : ipywidgets.Widget
    form : MethodForm
        Of the chosen step.
    run, sweep, starter, add : ipywidgets.Button
    estimate : ipywidgets.HTML
    """

    def __init__(
        self,
        session: Session,
        submit: Callable[[list[Recipe]], None],
        on_draft: Callable[[Prediction | None], None] = lambda prediction: None,
    ) -> None:
        self._session = session
        self._submit = submit
        self._on_draft = on_draft
        self._steps: list[Step] = [GPTQ(4)]
        self._chosen = 0
        self._is_loading = True
        guard = session.banner.guard
        self.form = MethodForm(guard(self._edited))
        self.source = w.Dropdown(
            description="continue from",
            tooltip="Start from the base model, or put a further step behind a run's recipe",
            style={"description_width": "104px"},
            layout=w.Layout(width="auto"),
        )
        self.source.observe(guard(self._continue), names="value")
        self._list = w.VBox()
        self._list.add_class("wb-steps")
        self.add = _button("Add a step", "plus", "Put another step behind this one")
        self.add.on_click(guard(lambda _: self._add()))
        self.estimate = w.HTML()
        self.problem = w.HTML()
        self.run = _button("Run", "play", "Compress and evaluate for real", "primary")
        self.run.on_click(guard(lambda _: self._run()))
        self.starter = _button("Starter set", "th", "Six recipes that show the whole frontier")
        self.starter.on_click(guard(lambda _: self._start()))
        self.field = w.Dropdown(
            description="sweep over",
            style={"description_width": "104px"},
            layout=w.Layout(width="auto"),
        )
        self.values = w.Text(
            description="values",
            placeholder="2, 3, 4, 8",
            tooltip="Values that the setting takes, separated by commas",
            style={"description_width": "104px"},
            layout=w.Layout(width="auto"),
        )
        self.sweep = _button("Run all", "forward", "Queue one run for every value")
        self.sweep.on_click(guard(lambda _: self._sweep()))
        self.field.observe(lambda _: self._suggest(), names="value")
        self._code = w.HTML()
        buttons = w.HBox([self.run, self.starter])
        buttons.add_class("wb-buttons")
        sweep = w.VBox([self.field, self.values, self.sweep])
        sweep.add_class("wb-sweep")
        head = w.HTML("<h3>Recipe</h3>")
        self.widget = w.VBox(
            [
                head,
                self.source,
                self._list,
                self.form.widget,
                self.problem,
                self.estimate,
                buttons,
                sweep,
                self._code,
            ]
        )
        self.widget.add_class("wb-card")
        self.widget.add_class("wb-recipe")
        self.refresh_sources()
        self._is_loading = False
        self._show_form()
        if session.is_recorded:
            for button in (self.run, self.starter, self.sweep):
                button.disabled = True
                button.tooltip = "This study is a recording; continue with a copy to run anything"

    @property
    def recipe(self) -> Recipe:
        """The recipe as it is shown.

        Raises
        ------
        ConfigError
            If a step's values do not go together, or the steps' order has no meaning.
        """
        steps = list(self._steps)
        steps[self._chosen] = self._checked()
        return Recipe.of(steps)

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self._steps = [step for step in recipe.steps if type(step).__name__ in STEPS]
        if len(self._steps) < len(recipe.steps) or not self._steps:
            raise ConfigError(
                f"{shortened(recipe.label)} cannot be edited in a form; run it as it is with"
                " study.run(...)."
            )
        self._chosen = len(self._steps) - 1
        self._show_form()

    def code(self) -> str:
        """Return the Python that does what the Run button does."""
        return f"study.run({self.recipe.code()})"

    def refresh_sources(self) -> None:
        """Offer the finished runs to continue from."""
        first = self._session.study.models[0]  # what is run here is run on that one
        done = [
            record
            for record in self._session.study.records
            if record.state is RunState.DONE
            and record.recipe.steps
            and record.model == first
            and all(type(step).__name__ in STEPS for step in record.recipe.steps)
        ]
        options = [("the base model", _BASE)]
        shown = offered(self._session, done, [self.source.value])
        options += [(shortened(record.label, 40), record.id) for record in shown]
        if list(self.source.options) != options:
            kept, was = self.source.value, self._is_loading
            self._is_loading = True
            self.source.options = options
            self.source.value = kept if kept in [run for _, run in options] else _BASE
            self._is_loading = was

    def refresh(self) -> None:
        """Predict and estimate anew, because runs have come."""
        self.refresh_sources()
        self._tell()

    # What is clicked

    def _run(self) -> None:
        self._session.banner.clear()
        self._submit([self.recipe])

    def _start(self) -> None:
        self._session.banner.clear()
        self._submit([Recipe.of(step) for step in STARTER])

    def _sweep(self) -> None:
        self._session.banner.clear()
        recipe, name = self.recipe, self.field.value
        info = next(i for i in fields_of(type(recipe.steps[self._chosen])) if i.name == name)
        recipes = []
        for text in filter(None, (part.strip() for part in self.values.value.split(","))):
            step = dataclasses.replace(
                recipe.steps[self._chosen], **{name: _value(text, info.type, name)}
            )
            steps = list(recipe.steps)
            steps[self._chosen] = step
            recipes.append(Recipe.of(steps))
        if not recipes:
            raise ConfigError(f"No values of {name!r} to sweep over; give some, such as 2, 3, 4.")
        self._submit(recipes)

    def _add(self) -> None:
        self._steps[self._chosen] = self._checked()
        self._steps.append(_next_step(self._steps))
        self._chosen = len(self._steps) - 1
        self._show_form()

    def _choose(self, place: int) -> None:
        self._steps[self._chosen] = self._checked()
        self._chosen = place
        self._show_form()

    def _move(self, place: int, by: int) -> None:
        self._steps[self._chosen] = self._checked()
        other = place + by
        self._steps[place], self._steps[other] = self._steps[other], self._steps[place]
        if self._chosen in (place, other):
            self._chosen = other if self._chosen == place else place
        self._show_form()

    def _remove(self, place: int) -> None:
        del self._steps[place]
        self._chosen = min(self._chosen - (place < self._chosen), len(self._steps) - 1)
        self._show_form()

    def _continue(self, _: Any) -> None:
        if self._is_loading:
            return
        record = next((r for r in self._session.study.records if r.id == self.source.value), None)
        self._steps = [] if record is None else list(record.recipe.steps)
        self._steps.append(_next_step(self._steps))
        self._chosen = len(self._steps) - 1
        self._show_form()

    # What is shown

    def _checked(self) -> Step:
        return self.form.value

    def _show_form(self) -> None:
        self._is_loading = True
        self.form.value = self._steps[self._chosen]
        self._is_loading = False
        self._edited()

    def _edited(self) -> None:
        if self._is_loading:
            return
        try:
            self._steps[self._chosen] = self.form.value
        except ConfigError as error:
            self._say_problem(str(error))
        self._show_steps()
        self._offer_fields()
        self._tell()

    def _show_steps(self) -> None:
        rows = []
        last = len(self._steps) - 1
        for place, step in enumerate(self._steps):
            name = w.Button(
                description=f"{place + 1}  {shortened(step.label, 34)}",
                tooltip=step.about,
                layout=w.Layout(flex="1 1 auto", width="auto"),
            )
            name.add_class("wb-step-name")
            if place == self._chosen:
                name.add_class("wb-chosen")
            name.on_click(self._session.banner.guard(lambda _, place=place: self._choose(place)))
            up = _icon("arrow-up", f"Do step {place + 1} earlier", disabled=place == 0)
            down = _icon("arrow-down", f"Do step {place + 1} later", disabled=place == last)
            gone = _icon("trash", f"Remove step {place + 1}", disabled=last == 0)
            up.on_click(self._session.banner.guard(lambda _, place=place: self._move(place, -1)))
            down.on_click(self._session.banner.guard(lambda _, place=place: self._move(place, 1)))
            gone.on_click(self._session.banner.guard(lambda _, place=place: self._remove(place)))
            rows.append(w.HBox([name, up, down, gone]))
        key = [(step.label, place == self._chosen) for place, step in enumerate(self._steps)]
        if key != self._shown:
            self._shown = key
            self._list.children = [*rows, self.add]

    _shown: object = None

    def _offer_fields(self) -> None:
        names = [
            info.name
            for info in fields_of(type(self._steps[self._chosen]))
            if info.type in (int, float)
        ]
        if list(self.field.options) != [(name.replace("_", " "), name) for name in names]:
            self.field.options = [(name.replace("_", " "), name) for name in names]
            self.field.value = names[0] if names else None
            self._suggest()
        self.sweep.disabled = not names or self._session.is_recorded

    def _suggest(self) -> None:
        suggestions = {
            "bits": "2, 3, 4, 8",
            "ratio": "0.1, 0.3, 0.5, 0.7",
            "group_size": "32, 64, 128, 256",
        }
        self.values.value = suggestions.get(self.field.value or "", "")

    def _say_problem(self, text: str) -> None:
        shown = f'<div class="wb-problem" role="alert">{html.escape(text)}</div>' if text else ""
        self.problem.value = shown

    def _tell(self) -> None:
        """Show what the recipe will cost, its code, and its predicted point."""
        try:
            recipe = self.recipe
        except WorkbenchError as error:
            self._say_problem(str(error))
            self.estimate.value = self._code.value = ""
            self._on_draft(None)
            return
        self._say_problem("")
        prediction = self._session.study.predict_now(recipe)
        self._on_draft(prediction)
        self.estimate.value = self._estimate_html(recipe, prediction)
        self._code.value = f"<code>{html.escape(self.code())}</code>"

    def _estimate_html(self, recipe: Recipe, prediction: Prediction | None) -> str:
        study = self._session.study
        rows: list[tuple[str, str]] = []
        if prediction is None:
            rows.append(("quality", "predictions are being made ready"))
        elif prediction.value is None or prediction.interval is None:
            rows.append(("quality", f"not predicted: {prediction.reason}"))
        else:
            low, high = prediction.interval
            text = f"{prediction.value:.4g}  ({low:.4g} to {high:.4g})"
            rows.append((prediction.metric.replace("_", " "), text))
        if prediction is not None and prediction.size_bytes is not None:
            rows.append(("size", f"{prediction.size_bytes / 1e6:.2f} MB"))
        known = next(iter(study.describe()["models"].items()))
        seconds = estimate_seconds(study.records, recipe, known[0])
        rows.append(("time", "not known yet" if seconds is None else _duration(seconds)))
        memory = estimate_memory_bytes(known[1]["n_parameters"], known[1]["compute_dtype"])
        rows.append(("memory", f"about {memory / 1e9:.1f} GB"))
        cells = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows
        )
        return (
            f'<dl class="wb-estimate" aria-label="Estimated before Run">{cells}</dl>'
            '<div class="wb-help">Estimated. Nothing is measured before you press Run.</div>'
        )


def _next_step(steps: list[Step]) -> Step:
    """Return the first step that has a meaning behind these and was not used; GPTQ comes first."""
    used = [type(step) for step in steps]
    offered: list[type[Step]] = [GPTQ, *STEPS.values()]
    for kind in offered:
        if kind not in used:
            with contextlib.suppress(WorkbenchError):
                return Recipe.of([*steps, kind()]).steps[-1]
    return GPTQ()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min"


def _value(text: str, kind: type, name: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no value of {name!r}; give numbers, such as 2, 3."
        ) from None


def _button(text: str, icon: str, tooltip: str, style: str = "") -> w.Button:
    return w.Button(
        description=text,
        icon=icon,
        tooltip=tooltip,
        button_style=style,
        layout=w.Layout(width="auto"),
    )


def _icon(icon: str, tooltip: str, *, disabled: bool) -> w.Button:
    button = w.Button(icon=icon, tooltip=tooltip, disabled=disabled, layout=w.Layout(width="30px"))
    button.add_class("wb-icon")
    return button
