"""Computing runs, here or in the worker process, and measuring what came of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, StudyError
from workbench.progress import Monitor, Progress
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.study.workspace import HasId, Workspace, only_progress

if TYPE_CHECKING:
    from workbench.study.running.runner import OnEvent

Recipes = Iterable["Recipe | Step | Iterable[Step]"]


def compute(
    workspace: Workspace, recipes: list[Recipe], model: str | None, on_event: OnEvent | None
) -> list[RunRecord]:
    """Compute recipes in this process, and return the runs that were started, in order."""
    from workbench.study.running.engine import run_ids

    name = workspace.model_named(model)
    workspace.inline.submit([(name, recipe) for recipe in recipes], on_event)
    known = {record.id: record for record in workspace.records()}
    ids = run_ids(workspace.store, name, recipes)
    return [known[id] for id in ids if id in known]


def run(
    workspace: Workspace,
    recipe: Recipe | Step | Iterable[Step],
    *,
    model: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> str:
    """Compute one recipe and return its run's id; see :meth:`Study.run`."""
    runs = compute(workspace, [Recipe.of(recipe)], model, only_progress(on_progress))
    for execution in workspace.inline.executions:
        if execution.error is not None:
            raise execution.error
    return runs[-1].id


def sweep(
    workspace: Workspace,
    recipes: Recipes,
    *,
    model: str | None = None,
    on_event: OnEvent | None = None,
) -> list[str]:
    """Compute several recipes and return their runs' ids; see :meth:`Study.sweep`."""
    runs = compute(workspace, _recipes(recipes), model, on_event)
    each = {run.id: run for run in runs}
    failed = [run for run in each.values() if run.state is RunState.FAILED]
    if failed:
        first, total = failed[0], len(each)
        some = f"{len(failed)} of {total} runs" if total > 1 else "The only run"
        named = "The first, " if len(failed) > 1 else ""
        warnings.warn(
            f"{some} failed; the table has the reasons. {named}{first.label}: {first.error}",
            stacklevel=3,
        )
    return [run.id for run in runs]


def submit(
    workspace: Workspace,
    recipes: Recipes,
    *,
    model: str | None = None,
    on_event: OnEvent | None = None,
) -> list[int]:
    """Queue recipes for the worker process; see :meth:`Study.submit`."""
    name = workspace.model_named(model)
    jobs = [(name, recipe) for recipe in _recipes(recipes)]
    return workspace.worker.submit(jobs, on_event)


def cancel(workspace: Workspace, *, current_only: bool = False, job: int | None = None) -> None:
    """Stop what is being computed; see :meth:`Study.cancel`."""
    if job is not None:
        workspace.worker.remove(job)
        return
    for search in () if current_only else list(workspace.searches):
        search.cancel()
    for runner in workspace.runners:
        runner.cancel() if current_only else runner.cancel_all()


def measure(
    workspace: Workspace,
    run: HasId | str,
    *,
    repeats: int = 7,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Measurement, ...]:
    """Measure a run's memory and time, and record them; see :meth:`Study.measure`."""
    from workbench.runtime.measure import measure_model

    if not workspace.wait(0):
        raise StudyError(
            "The worker process is computing runs, which would spoil the times. Wait with"
            " study.wait(), or stop it with study.cancel()."
        )
    id = workspace.id_of(run)
    workspace.store.add_measurements(id, ())  # raises now if nothing could be written later
    model = workspace.engine.model(id)
    found = measure_model(model, workspace.task, repeats=repeats, monitor=Monitor(on_progress))
    workspace.store.add_measurements(id, found)
    return found


def _recipes(recipes: Recipes) -> list[Recipe]:
    if isinstance(recipes, (Recipe, Step)):
        raise ConfigError(
            f"A sweep takes a list of recipes, and {recipes!r} is one; put it into a list, or use"
            " study.run(...)."
        )
    return [Recipe.of(recipe) for recipe in recipes]
