"""The most useful thing to do next, computed from what is known by now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.recipes.recipe import Recipe, shortened
from workbench.records import RunState
from workbench.selection.decision import UNCLEAR
from workbench.selection.requirements import Requirements
from workbench.study import choosing, predictions
from workbench.study.proposals import Proposals
from workbench.study.workspace import Workspace

if TYPE_CHECKING:
    from workbench.selection.decision import Verdict

BASE, PREDICT, RUN, EXAMPLES, KEEP, NOTHING = (
    *("base", "predict", "run", "examples", "keep", "nothing"),
)
MOST_TIMES = 20
"""So many times the examples that there are can still be had; more are not asked for."""


@dataclass(frozen=True)
class NextStep:
    """What to do next. Printing it says it in words.

    Attributes
    ----------
    kind : {"base", "predict", "run", "examples", "keep", "nothing"}
        Evaluate the base model; make predictions; run ``recipe``; get more examples to decide on
        ``run``; keep ``run``, as nothing better is in sight; or ask for less.
    text : str
    recipe : Recipe or None
    run : str or None
        Id of the run that it is about.
    """

    kind: str
    text: str
    recipe: Recipe | None = None
    run: str | None = None

    def __str__(self) -> str:
        return self.text


def next_step(
    workspace: Workspace,
    requirements: Requirements | float = 0.97,
    *,
    metric: str | None = None,
    model: str | None = None,
) -> NextStep:
    """Return what to do next; see :meth:`Study.next_step`."""
    if not isinstance(requirements, Requirements):
        requirements = Requirements(requirements)
    name, decisive = workspace.model_named(model), workspace.metric_named(metric)
    base = workspace.baseline(name)
    if base is None or base.state is not RunState.DONE:
        return NextStep(BASE, f"Evaluate {name} itself: all else is compared with it.", Recipe())
    forecast = predictions.ready_forecast(workspace, name, decisive.name)
    if forecast is None or predictions.lacks_predictions(workspace, name):
        words = "Make the predictions: after one pass every recipe's size and quality is known"
        return NextStep(PREDICT, f"{words} roughly, without a run.")
    snapshot = workspace.snapshot()
    decision = choosing.choose(
        workspace, requirements, metric=metric, model=model, reference=requirements.reference
    )
    chosen = decision.verdict if decision.run is not None else None
    if requirements.accuracy is not None:
        key = (name, decisive.name)
        if key not in workspace.proposals:
            workspace.proposals[key] = Proposals(forecast)
        reference = requirements.reference
        done = {r.recipe: r for r in snapshot.done if r.model == name}
        failed = [r.recipe for r in snapshot.by_model[name] if r.state is RunState.FAILED]
        found = workspace.proposals[key].next(
            forecast,
            decision,
            base,
            base if reference is None else snapshot.by_id[reference],
            done,
            failed,
        )
        if found is not None:
            than = "the base model" if chosen is None else chosen.run.label
            size = (base if chosen is None else chosen.run).size_bytes or 0
            words = (
                f"Run {found.recipe.label}: it is predicted to be {_mb(size - found.size_bytes)}"
                f" smaller than {shortened(than, 60)} ({_mb(found.size_bytes)}) with"
                f" {decisive.name.replace('_', ' ')} {found.value:.4g}, and passes with a chance"
                f" of {found.chance:.0%}."
            )
            return NextStep(RUN, words, found.recipe)
    unclear = _nearly_told(decision.verdicts, chosen)
    if unclear is not None:
        words = (
            f"Give about {unclear.enough_examples:,} evaluation examples in place of"
            f" {unclear.n_examples:,}: they would tell whether {unclear.run.label}"
            f" ({_mb(unclear.run.size_bytes or 0)}) passes."
        )
        return NextStep(EXAMPLES, words, run=unclear.run.id)
    if chosen is not None:
        words = f"Keep {chosen.run.label} ({_mb(chosen.run.size_bytes or 0)}): nothing smaller is"
        return NextStep(KEEP, f"{words} likely to pass.", run=chosen.run.id)
    nearest = decision.verdict
    words = "Ask for less, or begin with another model: nothing that is known is likely to pass."
    return NextStep(NOTHING, words, run=None if nearest is None else nearest.run.id)


def _nearly_told(verdicts: tuple[Verdict, ...], chosen: Verdict | None) -> Verdict | None:
    """Return the unclear run, smaller than the chosen one, that the fewest examples would tell."""
    most = float("inf") if chosen is None else chosen.run.size_bytes or 0
    able = [
        (needed, verdict.run.size_bytes or 0, verdict)
        for verdict in verdicts
        if verdict.answer == UNCLEAR
        and (verdict.run.size_bytes or 0) < most
        and (needed := verdict.enough_examples) is not None
        and needed <= MOST_TIMES * verdict.n_examples
    ]
    return min(able, key=lambda one: one[:2])[2] if able else None


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f} MB"
