"""What runs will cost, before they are run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import StudyError
from workbench.fields import whole
from workbench.progress import SILENT, Monitor, Progress, on_terminal
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study.computing import compute
from workbench.study.workspace import Workspace, only_progress

if TYPE_CHECKING:
    from workbench.prediction.cost_table import CostTable
    from workbench.prediction.predict import Prediction
    from workbench.study.forecast import Forecast


def tabulate(
    workspace: Workspace,
    *,
    model: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Make the predictions of a base model ready; see :meth:`Study.tabulate`."""
    from workbench.study.forecast import is_complete

    name = workspace.model_named(model)
    table = cost_table(workspace, name)
    if table is not None and is_complete(table) and _has_baseline(workspace, name):
        return
    compute(workspace, [Recipe()], name, only_progress(on_progress))
    if not _has_baseline(workspace, name):
        for execution in workspace.inline.executions:
            if execution.error is not None:
                raise execution.error
        raise StudyError(f"The base model {name!r} was not evaluated; run study.run([]) first.")
    workspace.engine.tabulate(name, monitor=Monitor(on_progress) if on_progress else SILENT)


def lacks_predictions(workspace: Workspace, model: str | None = None) -> bool:
    """Return whether :func:`tabulate` has something left to do; nothing is computed."""
    from workbench.study.forecast import is_complete

    table = cost_table(workspace, workspace.model_named(model))
    return table is None or not is_complete(table)


def fit(
    workspace: Workspace,
    *,
    size_bytes: float | None = None,
    bits_per_weight: float | None = None,
    verify: int = 3,
    model: str | None = None,
    metric: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Recipe:
    """Return the recipe with the least loss within a budget; see :meth:`Study.fit`."""
    verify = whole("fit", "verify", verify, minimum=0)
    deciding = workspace.metric_named("kl" if metric is None else metric)
    found = forecast(workspace, model, None, on_progress).candidates(
        size_bytes=size_bytes, bits_per_weight=bits_per_weight
    )
    if verify == 0:
        return found[0].recipe
    runs = compute(workspace, [p.recipe for p in found[:verify]], model, only_progress(on_progress))
    sign = -1 if deciding.higher_is_better else 1
    measured = [
        (sign * value.value, run.recipe)
        for run in runs
        if (value := run.measurement(deciding.name)) is not None
        and (run.size_bytes or 0) <= (size_bytes or math.inf)
        and run.facts["bits_per_weight"] <= (bits_per_weight or math.inf) + 1e-9
    ]
    if not measured:
        reason = next((run.error for run in runs if run.error), "all were cancelled or too big")
        raise StudyError(f"No candidate could be verified: {reason}")
    return min(measured, key=lambda pair: pair[0])[1]


def ready_frontiers(
    workspace: Workspace, metric: str | None, predicted: bool | None
) -> list[tuple[str, Prediction]]:
    """Return the predicted fronts of the base models that have a table; none is made here."""
    found: list[tuple[str, Prediction]] = []
    for name in workspace.models:
        ready = ready_forecast(workspace, name, metric)
        if ready is not None:
            found += [(name, prediction) for prediction in ready.frontier()]
    if predicted and not found:
        raise StudyError(
            "There are no predictions yet; study.tabulate() makes them, and then"
            " plot(predicted=True) shows them."
        )
    return found


def cost_table(workspace: Workspace, name: str) -> CostTable | None:
    """Return the table of costs as its file is now, which another process may have written."""
    from workbench.prediction.cost_table import CostTable
    from workbench.study.forecast import find_table

    try:
        path = find_table(workspace.store, name)
        if path is None:
            return None
        about = path.stat()
        state = (path.name, about.st_ino, about.st_size, about.st_mtime_ns)
        if name not in workspace.cost_tables or workspace.cost_tables[name][0] != state:
            workspace.cost_tables[name] = (state, CostTable.load(path))
    except (OSError, StudyError):  # deleted meanwhile, damaged or old: made again when asked
        return None
    return workspace.cost_tables[name][1]


def forecast(
    workspace: Workspace,
    model: str | None,
    metric: str | None,
    on_progress: Callable[[Progress], None] | None,
) -> Forecast:
    """Return what predicts, learned from all runs by now; predictions are made ready first."""
    from workbench.study.forecast import Forecast

    name, decisive = workspace.model_named(model), workspace.metric_named(metric)
    tabulate(workspace, model=name, on_progress=on_progress or on_terminal())
    table = cost_table(workspace, name)
    if table is None:
        raise StudyError(f"The predictions of {name!r} were deleted while they were made.")
    return Forecast(table, workspace.records(), name, decisive)


def ready_forecast(workspace: Workspace, model: str | None, metric: str | None) -> Forecast | None:
    """Return what predicts if predictions are ready, else None; nothing is computed."""
    from workbench.selection.quality import is_baseline, is_measured

    name = workspace.model_named(model)
    table = cost_table(workspace, name)
    if table is None:
        return None
    decisive, records = workspace.metric_named(metric), workspace.records()
    if not any(is_baseline(r) and is_measured(r, decisive) and r.model == name for r in records):
        return None
    done = tuple(record.id for record in records if record.state is RunState.DONE)
    key = (decisive.name, id(table), done)
    if workspace.ready_forecasts.get(name, (None,))[0] != key:
        from workbench.study.forecast import Forecast

        workspace.ready_forecasts[name] = (key, Forecast(table, records, name, decisive))
    return workspace.ready_forecasts[name][1]


def _has_baseline(workspace: Workspace, name: str) -> bool:
    from workbench.study.running.engine import run_id

    record = workspace.store.record(run_id(workspace.store, name, Recipe()))
    return record is not None and record.state is RunState.DONE
