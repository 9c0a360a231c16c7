"""A study without a model: it records what it was asked and holds records made by hand."""

from __future__ import annotations

from workbench import compare, plots
from workbench.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.steps import GPTQ, RTN
from workbench.sweep import Event


def record(id, size, value, recipe=(), state=RunState.DONE, **changes):
    found = () if value is None else (Measurement("accuracy", value, n=100, stderr=0.01),)
    return RunRecord(id, "tiny", Recipe.of(recipe), state, None, found, size, **changes)


class FakeStudy:
    """What the widgets use of :class:`workbench.study.Study`."""

    metric = Metric("accuracy")

    def __init__(self):
        self.records = [record("dense", 4_000_000, 0.9), record("a", 1_000_000, 0.89, GPTQ(4))]
        self.predictions = []
        self.submitted = []
        self.cancelled = 0
        self.fail_with = None

    def plot(self):
        view = compare.tradeoff_view(
            self.records, self.metric, task="toy", predictions=self.predictions
        )
        return plots.tradeoff_figure(view)

    def table(self):
        return compare.table(self.records, self.metric)

    def choose(self, accuracy):
        return compare.choose(self.records, self.records[0], self.metric, accuracy=accuracy)

    def submit(self, recipes, on_event):
        if self.fail_with is not None:
            raise self.fail_with
        self.submitted.append((list(recipes), on_event))
        return [len(self.submitted)]

    def cancel(self):
        self.cancelled += 1


def event(kind, step=None, **values):
    recipe = Recipe.of(step if step is not None else RTN(4))
    return Event(kind, 1, "tiny", recipe.to_json(), recipe.label, **values)
