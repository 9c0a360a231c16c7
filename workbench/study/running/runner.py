"""Where runs execute: what a runner is asked to compute, and how it tells what happens.

A runner computes jobs (recipes, or predictions to make ready) one after the other. Its queue lives
in the process that submits, so that nothing is lost with a process that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from workbench.progress import Progress
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.storage.store import Store

MOST_UPCOMING = 64
"""So many waiting jobs are told with each job to whatever computes it, to be solved with it."""

FINAL = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """One thing that happened to one job; JSON-ready by :func:`dataclasses.asdict`.

    Attributes
    ----------
    kind : str
        In this order for each job: ``"queued"``, ``"started"``, ``"progress"`` (any number of
        times), then one of ``"finished"``, ``"failed"`` and ``"cancelled"``. After the last job of
        the queue comes ``"idle"``, whose ``job`` is the last one's.
    job : int
        Number of the job, increasing within one runner.
    model : str
        Name of the base model.
    recipe : str
        JSON of the recipe; the base model's own run has an empty one. ``""`` where predictions
        are made ready.
    label : str
        The recipe in words.
    run : str or None
        The run's id; None before it has started, and where predictions are made ready.
    stage, done, total, detail
        Of ``"progress"``, see :class:`workbench.progress.Progress`.
    error : str or None
        Of ``"failed"`` and ``"cancelled"``: why, for people.
    cached : bool
        Of ``"finished"``: the run was there already.
    waiting : int
        Jobs that wait behind this one.
    """

    kind: str
    job: int = 0
    model: str = ""
    recipe: str = ""
    label: str = ""
    run: str | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    detail: str = ""
    error: str | None = None
    cached: bool = False
    waiting: int = 0


OnEvent = Callable[[Event], None]

Wanted = tuple[str, "Recipe | None"]
"""A base model's name and a recipe, or None to make its predictions ready."""


@dataclass(eq=False)
class Job:
    """A recipe (or a table of predictions: None) that waits for its turn, or is being computed."""

    number: int
    model: str
    recipe: Recipe | None
    on_event: OnEvent | None = None
    run: str | None = None
    has_started: bool = False
    cancelled: bool = False
    was_sent_twice: bool = False

    def event(self, kind: str, **values: Any) -> Event:
        """Return an event about this job."""
        return Event(
            kind,
            self.number,
            self.model,
            "" if self.recipe is None else self.recipe.to_json(),
            "predictions" if self.recipe is None else self.recipe.label,
            **({"run": self.run} | values),
        )


class Runner(Protocol):
    """Where jobs are computed."""

    def submit(self, jobs: Sequence[Wanted], on_event: OnEvent | None = None) -> list[int]:
        """Add jobs, pairs of a base model's name and a recipe; return their numbers."""

    def cancel(self) -> None:
        """Stop the job that is being computed; the next one starts."""

    def cancel_all(self) -> None:
        """Stop the job that is being computed and forget those that wait."""

    def close(self) -> None:
        """Stop everything and let go of processes; the runner cannot be used again."""


def progress_event(job: Job, progress: Progress) -> Event:
    """Return a progress report as an event of a job."""
    return job.event("progress", **asdict(progress))


def with_baselines(
    store: Store, jobs: Sequence[Wanted], queued: Sequence[Job] = ()
) -> list[Wanted]:
    """Put the base model's own run before the first job of each base model that lacks one."""
    measured = {
        record.model
        for record in store.records()
        if not record.recipe.steps and record.state is RunState.DONE
    }
    measured.update(job.model for job in queued if job.recipe == Recipe())
    result: list[Wanted] = []
    for model, recipe in jobs:
        if model not in measured and recipe != Recipe():
            result.append((model, Recipe()))
        measured.add(model)
        result.append((model, recipe))
    return result
