"""A study without a model: it records what it was asked and holds records made by hand."""

from __future__ import annotations

import pathlib
import tempfile

import pandas as pd

from workbench.prediction.predict import Prediction
from workbench.recipes import GPTQ, RTN
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.selection import compare
from workbench.selection.decision import decide
from workbench.study.next_step import NextStep
from workbench.study.running.runner import Event
from workbench.tasks.output import Output
from workbench.views import differences
from workbench.views.figures import tradeoff_figure
from workbench.views.lineage import lineage


def record(id, size, value, recipe=(), state=RunState.DONE, **changes):
    found = () if value is None else (Measurement("accuracy", value, n=100, stderr=0.01),)
    return RunRecord(id, "tiny", Recipe.of(recipe), state, None, found, size, **changes)


class FakeStudy:
    """What the widgets use of :class:`workbench.study.Study`."""

    metric = Metric("accuracy")
    metrics = (Metric("accuracy"), Metric("kl", "nats", higher_is_better=False))
    models = ("tiny",)
    fingerprints = ("tiny", "toy")
    output = Output.TOKENS

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="fake-study-"))
        self.records = [record("dense", 4_000_000, 0.9), record("a", 1_000_000, 0.89, GPTQ(4))]
        self.predictions = []
        self.predicts = True
        self.submitted = []
        self.cancelled = []
        self.tabulated = 0
        self.fail_with = None
        self.is_idle = True

    def describe(self):
        about = {"kind": "live", "ref": "tiny", "architecture": "TinyForCausalLM"}
        about |= {"n_parameters": 1_000_000, "size_bytes": 4_000_000, "compute_dtype": "float32"}
        about["n_blocks"] = 6
        return {"models": {"tiny": about}, "task": {"name": "toy", "kind": "language_modeling"}}

    def baseline(self, model=None):
        found = [record for record in self.records if not record.recipe.steps]
        return type("Run", (), {"record": found[0]})() if found else None

    def plot(self, metric=None, *, x="size"):
        view = compare.tradeoff_view(
            self.records,
            self.metric,
            task="toy",
            axis=compare.axis_named(x),
            predictions=self.predictions,
        )
        return tradeoff_figure(view)

    def table(self, metric=None, *, hidden=False):
        shown = [r for r in self.records if hidden or not r.annotation.hidden]
        return compare.table(shown, self.metric)

    def disk_use(self):
        return {"weights": 2_000_000, "journal": 0}

    def choose(self, requirements):
        own = requirements.reference
        wanted = (r for r in self.records if (r.id == own if own else not r.recipe.steps))
        baseline = next(wanted, None)
        return decide(self.records, baseline, self.metric, requirements)

    def next_step(self, requirements):
        return NextStep("run", "Run <this>.", Recipe.of(RTN(3)))

    def costs(self, prices):
        rows = [
            {"run": r.id, "model": r.model, "recipe": r.label, **vars(found), "of_baseline": None}
            | {"of_api": None}
            for r in self.records
            if (found := prices.of(r)) is not None
        ]
        return pd.DataFrame(rows)

    def lineage(self, metric=None):
        return lineage(self.records, self.metric)

    def differences(self, runs):
        known = {record.id: record for record in self.records}
        return differences([known[run] for run in runs], self.metrics)

    def predict_now(self, recipe, *, model=None, metric=None):
        recipe = Recipe.of(recipe)
        if not self.predicts:
            return None
        bits = getattr(recipe.steps[-1], "bits", None)
        if bits is None:
            return Prediction(recipe, None, None, None, "accuracy", None, None, reason="training")
        value = 0.9 - 0.1 / bits
        return Prediction(
            recipe,
            bits * 250_000,
            0.1 / bits,
            None,
            "accuracy",
            value,
            (value - 0.01, value + 0.01),
        )

    def lacks_predictions(self, model=None):
        return not self.predicts

    def submit(self, recipes, on_event, model=None):
        if self.fail_with is not None:
            raise self.fail_with
        self.submitted.append((list(recipes), on_event))
        return [len(self.submitted)]

    def submit_tabulate(self, *, on_event):
        self.tabulated += 1
        return [0]

    is_open = True

    def close(self):
        pass

    def wait(self, timeout=None):
        return self.is_idle

    queue = ()

    def cancel(self, *, current_only=False, job=None):
        self.cancelled.append(current_only if job is None else job)

    def move(self, job, places):
        order = list(self.queue)
        order.insert(max(0, order.index(job) + places), order.pop(order.index(job)))
        self.queue = tuple(order)


def event(kind, step=None, job=1, **values):
    recipe = Recipe.of(step if step is not None else RTN(4))
    return Event(kind, job, "tiny", recipe.to_json(), recipe.label, **values)
