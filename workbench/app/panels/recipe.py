"""Build a recipe: steps added, changed, moved and removed, with what it will cost before Run."""

from __future__ import annotations

import contextlib
import dataclasses
import html
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.notice import Notice, plain
from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import (
    button,
    card,
    classed,
    close,
    dropdown,
    problem_html,
    row,
    text,
)
from workbench.app.parts.durations import duration
from workbench.app.parts.form import MethodForm
from workbench.app.parts.run_picker import RunPicker
from workbench.app.session import Session
from workbench.errors import ConfigError, WorkbenchError
from workbench.prediction.estimates import (
    estimate_memory_bytes,
    estimate_range,
    estimate_training_bytes,
)
from workbench.recipes import AWQ, GPTQ, RTN, STEPS, Step, Training, fields_of
from workbench.recipes.recipe import Recipe, shortened

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction

STARTER: tuple[Step, ...] = (RTN(4), GPTQ(4), RTN(3), GPTQ(3), AWQ(3), GPTQ(2, group_size=32))
"""A first sweep: what each method does as the bits get fewer."""

_BASE = ""


class RecipePanel(StudyPanel):
    """The steps of a recipe with a form for the chosen one, and the buttons that run it.

    Attributes
    ----------
    form : MethodForm
        Of the chosen step.
    run, sweep, starter, add : ipywidgets.Button
    estimate : ipywidgets.HTML
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._steps: list[Step] = [GPTQ(4)]
        self._chosen = 0
        self._is_loading = True
        guard = self._guard
        first = session.study.describe()["models"][session.study.models[0]]
        self.form = MethodForm(guard(self._edited), first["n_blocks"])
        self.source = dropdown(
            "continue from",
            tooltip="Start from the base model, or put a further step behind a run's recipe",
        )
        self._sources = RunPicker(session, self.source, guard(self._continue))
        self._list = classed(w.VBox(), "wb-steps")
        self.add = button(
            "Add a step", "plus", "Put another step behind this one", guard(lambda _: self._add())
        )
        self.estimate, self.problem, self._code = w.HTML(), w.HTML(), w.HTML()
        self.run = button(
            "Run", "play", "Compress and evaluate for real",
            guard(lambda _: session.submit([self.recipe])), primary=True,
        )  # fmt: skip
        self.starter = button(
            "Starter set", "th", "Six recipes that show the whole frontier",
            guard(lambda _: session.submit([Recipe.of(step) for step in STARTER])),
        )  # fmt: skip
        self.field = dropdown("sweep over")
        self.values = text(
            "values", placeholder="2, 3, 4, 8",
            tooltip="Values that the setting takes, separated by commas",
        )  # fmt: skip
        self.sweep_notice = Notice()
        self.sweep = button(
            "Run all", "forward", "Queue one run for every value",
            self.sweep_notice.guard(lambda _: self._sweep()),
        )  # fmt: skip
        self.field.observe(lambda _: self._suggest(), names="value")
        self.values.observe(lambda _: self.sweep_notice.clear(), names="value")
        sweep = w.VBox([self.field, self.values, self.sweep, self.sweep_notice.widget])
        self.widget = classed(
            card(
                "Recipe", self.source, self._list, self.form.widget, self.problem, self.estimate,
                row(self.run, self.starter), self.notice.widget, classed(sweep, "wb-sweep"),
                self._code,
            ),
            "wb-recipe",
        )  # fmt: skip
        self._offer_sources()
        self._is_loading = False
        self._show_form()
        if session.is_recorded:
            for control in (self.run, self.starter, self.sweep):
                control.disabled = True
                control.tooltip = "This study is a recording; continue with a copy to run anything"

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

    def _offer_sources(self) -> None:
        """Offer the finished runs to continue from."""
        first = self._session.study.models[0]  # what is run here is run on that one
        done = [
            record
            for record in self._session.done
            if record.recipe.steps
            and record.model == first
            and all(type(step).__name__ in STEPS for step in record.recipe.steps)
        ]
        self._sources.offer(done, before=[("the base model", _BASE)])

    def _refresh(self) -> None:
        """Predict and estimate anew, because runs have come."""
        self._offer_sources()
        self._tell()

    # What is clicked

    def _sweep(self) -> None:
        recipe, name = self.recipe, self.field.value
        info = next(i for i in fields_of(type(recipe.steps[self._chosen])) if i.name == name)
        recipes = []
        for given in filter(None, (part.strip() for part in self.values.value.split(","))):
            step = dataclasses.replace(
                recipe.steps[self._chosen], **{name: _value(given, info.type, name)}
            )
            steps = list(recipe.steps)
            steps[self._chosen] = step
            recipes.append(Recipe.of(steps))
        if not recipes:
            raise ConfigError(f"No values of {name!r} to sweep over; give some, such as 2, 3, 4.")
        self._session.submit(recipes)

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

    def _continue(self) -> None:
        record = self._session.record(self.source.value)
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
        key = [(step.label, place == self._chosen) for place, step in enumerate(self._steps)]
        if key == self._shown:
            return
        self._shown = key
        old = self._list.children[:-1]
        rows = []
        last = len(self._steps) - 1
        for place, step in enumerate(self._steps):
            name = classed(
                button(f"{place + 1}  {shortened(step.label, 34)}", tooltip=step.about),
                "wb-step-name",
            )
            if place == self._chosen:
                name.add_class("wb-chosen")
            name.on_click(self._guard(lambda _, place=place: self._choose(place)))
            up = _icon("arrow-up", f"Do step {place + 1} earlier", disabled=place == 0)
            down = _icon("arrow-down", f"Do step {place + 1} later", disabled=place == last)
            gone = _icon("trash", f"Remove step {place + 1}", disabled=last == 0)
            up.on_click(self._guard(lambda _, place=place: self._move(place, -1)))
            down.on_click(self._guard(lambda _, place=place: self._move(place, 1)))
            gone.on_click(self._guard(lambda _, place=place: self._remove(place)))
            rows.append(w.HBox([name, up, down, gone]))
        self._list.children = [*rows, self.add]
        for gone_row in old:  # ipywidgets would keep them for ever
            close(gone_row)

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
        self.problem.value = problem_html(plain(text))

    def _tell(self) -> None:
        """Show what the recipe will cost, its code, and its predicted point."""
        try:
            recipe = self.recipe
        except WorkbenchError as error:
            self._say_problem(str(error))
            self.estimate.value = self._code.value = ""
            self._session.draft.set(None)
            return
        self._say_problem("")
        prediction = self._session.study.predict_now(recipe)
        self._session.draft.set(prediction)
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
        records, n_parameters = self._session.records, known[1]["n_parameters"]
        trains = any(isinstance(step, Training) for step in recipe.steps)
        between = estimate_range(records, recipe, known[0])
        untold = "said after its first steps" if trains else "not known yet"
        rows.append(("time", untold if between is None else duration(*between)))
        memory = estimate_memory_bytes(n_parameters, known[1]["compute_dtype"])
        training, is_all = estimate_training_bytes(records, recipe, n_parameters)
        about = "about" if is_all else "more than"
        rows.append(("memory", f"{about} {(memory + training) / 1e9:.1f} GB"))
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


def _value(text: str, kind: type, name: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no value of {name!r}; give numbers, such as 2, 3."
        ) from None


def _icon(icon: str, tooltip: str, *, disabled: bool) -> w.Button:
    made = classed(button("", icon, tooltip, disabled=disabled), "wb-icon")
    made.layout.width = "30px"
    return made
