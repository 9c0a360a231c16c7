"""The search for the smallest run that passes: predictions order recipes, runs verify them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import CancelledError, ConfigError, StudyError
from workbench.fields import number
from workbench.prediction.estimates import estimate_range
from workbench.progress import Progress
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState
from workbench.selection.requirements import Requirements
from workbench.study import choosing, computing, predictions
from workbench.study.proposals import LEAST_CHANCE, LEAST_SAVING, Proposals
from workbench.study.running.runner import FINAL, Event, OnEvent, Wanted
from workbench.study.workspace import Workspace, only_progress

if TYPE_CHECKING:
    import pandas as pd

    from workbench.selection.decision import Decision

EXHAUSTED, BUDGET, CANCELLED = "exhausted", "budget", "cancelled"

_WHY = {
    EXHAUSTED: f"Nothing that is {LEAST_SAVING:.0%} smaller or more has a predicted chance of"
    f" {LEAST_CHANCE:.0%} to pass.",
    BUDGET: "The time is spent; the same search goes on from here.",
    CANCELLED: "It was cancelled; the same search goes on from here.",
}


@dataclass(frozen=True)
class Trial:
    """One recipe that a search computed.

    Attributes
    ----------
    run : str
        Id of the run.
    label : str
        The recipe in words.
    predicted_bytes : int
    predicted_value : float
        Of the metric, before it was run.
    chance : float
        That it passes, as predicted.
    state : RunState
    seconds : float
    """

    run: str
    label: str
    predicted_bytes: int
    predicted_value: float
    chance: float
    state: RunState
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found. Printing it says it in words.

    Attributes
    ----------
    decision : Decision
        On all runs of the study, as :meth:`Study.choose` makes it.
    trials : tuple of Trial
        What this search computed, in order; runs that were there already are not among them.
    ended : {"exhausted", "budget", "cancelled"}
        Why it ended.
    seconds : float
    """

    decision: Decision
    trials: tuple[Trial, ...]
    ended: str
    seconds: float

    @property
    def run(self) -> Any:
        """The smallest run that passes, None if none does."""
        return self.decision.run

    def table(self) -> pd.DataFrame:
        """Return one row per trial: what was predicted, and the verdict."""
        import pandas as pd

        verdicts = {verdict.run.id: verdict for verdict in self.decision.verdicts}
        rows = []
        for trial in self.trials:
            found = verdicts.get(trial.run)
            rows.append(
                {
                    "run": trial.run,
                    "recipe": trial.label,
                    "predicted_mb": trial.predicted_bytes / 1e6,
                    "size_mb": None if found is None else (found.run.size_bytes or 0) / 1e6,
                    "predicted": trial.predicted_value,
                    "chance": trial.chance,
                    "quality": None if found is None else found.quality,
                    "answer": trial.state.value if found is None else found.answer,
                    "seconds": trial.seconds,
                }
            )
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        tried = "1 run was" if len(self.trials) == 1 else f"{len(self.trials)} runs were"
        return (
            f"{self.decision.nearest} {tried} computed in {self.seconds:.0f} s. {_WHY[self.ended]}"
        )


class Search:
    """One search; see :meth:`Study.search`.

    Parameters
    ----------
    workspace : Workspace
    requirements : Requirements or float
    budget_minutes : float
    model, metric : str, optional
    on_progress, on_event : callable, optional
    in_worker : bool
        Whether the study's worker process computes, in place of this one.
    """

    def __init__(
        self,
        workspace: Workspace,
        requirements: Requirements | float,
        budget_minutes: float,
        *,
        model: str | None = None,
        metric: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_event: OnEvent | None = None,
        in_worker: bool = False,
    ) -> None:
        if not isinstance(requirements, Requirements):
            requirements = Requirements(requirements)
        if requirements.accuracy is None:
            raise ConfigError(
                "search: accuracy is not given, so there is no bar to search by; give such as"
                " Requirements(0.97, size_bytes=4e6). For a budget of bytes alone use"
                " study.fit(size_bytes=…)."
            )
        limits = (requirements.latency_ms, requirements.memory_bytes, requirements.cost_per_1k_usd)
        self._measures = any(limit is not None for limit in limits)
        if in_worker and self._measures:
            raise ConfigError(
                "A search in the background does not measure speed, memory or cost; leave these"
                " limits out, or search with study.search(…) in a script."
            )
        minutes = number("search", "budget_minutes", budget_minutes, above=0, unit="minutes")
        assert minutes is not None
        self._workspace, self._wanted, self._minutes = workspace, requirements, minutes
        self._model, self._metric = workspace.model_named(model), metric
        self._on_progress, self._on_event = on_progress, on_event
        self._in_worker = in_worker
        self._cancelled = threading.Event()
        self._deadline = self._started = time.monotonic()
        self._trials: list[Trial] = []

    def cancel(self) -> None:
        """Stop within three seconds; finished runs are kept."""
        self._cancelled.set()

    def run(self) -> SearchResult:
        """Search until nothing is left to try, the time is spent, or it is cancelled."""
        self._started = time.monotonic()
        self._deadline = self._started + 60 * self._minutes
        self._workspace.searches.add(self)
        try:
            ended = self._search()
        finally:
            self._workspace.searches.discard(self)
        return SearchResult(
            self._decide(), tuple(self._trials), ended, time.monotonic() - self._started
        )

    def _search(self) -> str:
        try:
            if not self._prepare():
                return self._why_stopped()
        except CancelledError:
            return self._why_stopped()
        metric = self._workspace.metric_named(self._metric)
        forecast = predictions.ready_forecast(self._workspace, self._model, metric.name)
        if forecast is None:
            raise StudyError(f"The base model {self._model!r} has no finite {metric.name}.")
        proposals, out = Proposals(forecast), set[Recipe]()
        while not self._must_stop():
            snapshot = self._workspace.snapshot()
            base = snapshot.baselines[self._model]
            reference = self._wanted.reference
            done = {r.recipe: r for r in snapshot.done if r.model == self._model}
            forecast = predictions.ready_forecast(self._workspace, self._model, metric.name)
            assert forecast is not None
            found = proposals.next(
                forecast,
                self._decide(),
                base,
                base if reference is None else snapshot.by_id[reference],
                done,
                out,
            )
            if found is None:
                return EXHAUSTED
            expected = estimate_range(snapshot.records, found.recipe, self._model)
            left = self._deadline - time.monotonic()
            if expected is not None and expected[0] > left and len(done) > 1:
                return BUDGET
            out.add(found.recipe)
            self._tell(f"trial {len(self._trials) + 1}: {found.recipe.label}")
            began = time.monotonic()
            record = self._compute(found.recipe)
            if record is None:
                return self._why_stopped()
            self._trials.append(
                Trial(
                    *(record.id, record.label, found.size_bytes, found.value, found.chance),
                    *(record.state, time.monotonic() - began),
                )
            )
            if record.state in (RunState.CANCELLED, RunState.INTERRUPTED):
                return self._why_stopped()
            if record.state is RunState.DONE and self._measures:
                computing.measure(self._workspace, record, on_progress=self._forward)
        return self._why_stopped()

    def _decide(self) -> Decision:
        return choosing.choose(
            self._workspace, self._wanted, metric=self._metric, model=self._model
        )

    def _prepare(self) -> bool:
        """Evaluate the base model and make the predictions ready; return whether they are."""
        if not self._in_worker:
            predictions.tabulate(self._workspace, model=self._model, on_progress=self._forward)
            return True
        self._submit((self._model, Recipe()))
        while predictions.lacks_predictions(self._workspace, self._model):
            ended = self._submit((self._model, None))
            if ended.kind == "failed":
                raise StudyError(f"The predictions could not be made: {ended.error}")
            if ended.kind == "cancelled":
                return False
        return True

    def _compute(self, recipe: Recipe) -> RunRecord | None:
        """Return the run of a recipe, however it ended; None if it was never started."""
        from workbench.study.running.engine import run_id

        if self._in_worker:
            self._submit((self._model, recipe))
        else:
            heard = only_progress(self._forward)
            computing.compute(self._workspace, [recipe], self._model, heard)
        return self._workspace.store.record(run_id(self._workspace.store, self._model, recipe))

    def _submit(self, wanted: Wanted) -> Event:
        """Let the worker compute a job, and return its last event."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        worker = self._workspace.worker
        job = worker.submit([wanted], events.put)[-1]
        is_stopped = False
        while True:
            if self._must_stop() and not is_stopped:
                worker.remove(job)
                is_stopped = True
            try:
                event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            if self._on_event is not None:
                self._on_event(event)
            if event.kind == "queued" and event.job > job:  # predictions that gave way to a run
                job = event.job
            elif event.kind in FINAL and event.job == job:
                if event.kind == "cancelled" and not is_stopped:
                    self.cancel()
                return event

    def _forward(self, progress: Progress) -> None:
        """Take the progress of what is computed here, and stop it when its time is up."""
        if self._on_progress is not None:
            self._on_progress(progress)
        if self._must_stop():
            raise CancelledError(_WHY[self._why_stopped()])

    def _tell(self, words: str) -> None:
        if self._on_progress is not None:
            spent = time.monotonic() - self._started
            self._on_progress(Progress("search", int(spent), int(60 * self._minutes), words))

    def _must_stop(self) -> bool:
        return self._cancelled.is_set() or time.monotonic() > self._deadline

    def _why_stopped(self) -> str:
        return CANCELLED if self._cancelled.is_set() else BUDGET
