"""All runs at a glance: the plot, what they cost, and what the study records of its models."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.fields import shown
from workbench.selection.cost import CostModel, cost_table
from workbench.study.curating import shown_records
from workbench.study.predictions import ready_frontiers
from workbench.study.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def describe(workspace: Workspace) -> dict[str, Any]:
    """Return what is recorded of models and task; see :meth:`Study.describe`."""
    names = ("n_parameters", "size_bytes", "compute_dtype", "n_blocks")
    models = {
        name: {**known["source"], **{key: known.get(key) for key in names}}
        for name, known in workspace.store.models().items()
    }
    task = workspace.store.meta("task")
    return {"models": models, "task": {"name": task["name"], "kind": task["saved"]["kind"]}}


def run_named(workspace: Workspace, name: str) -> str:
    """Return the id of the run with this id or label; see :meth:`Study.__getitem__`."""
    records = workspace.records()
    found = [r.id for r in records if r.id == name] or [r.id for r in records if r.label == name]
    found = found or [r.id for r in records if r.recipe_label == name]
    if len(found) == 1:
        return found[0]
    if found:
        models = {r.id: r.model for r in records}
        several = ", ".join(f"{id} of {models[id]!r}" for id in found)
        raise StudyError(f"{len(found)} runs have the label {name!r}; give an id: {several}.")
    close = difflib.get_close_matches(name, [r.label for r in records], 3, 0.4)
    near = f" Near to it are {', '.join(map(repr, close))}." if close else ""
    raise StudyError(
        f"The study in {workspace.path} has no run with the id or label {name!r}.{near}"
        " study.table() lists all of them."
    )


def plot(
    workspace: Workspace,
    metric: str | None = None,
    *,
    x: str = "size",
    predicted: bool | None = None,
) -> go.Figure:
    """Return a figure of a metric against size; see :meth:`Study.plot`."""
    from workbench.selection import compare
    from workbench.views import figures

    if predicted and x != "size":
        raise ConfigError(
            f"plot(x={x!r}, predicted=True) is not accepted: the {x} is not predicted, only"
            ' measured; give x="size", or leave predicted out.'
        )
    show = x == "size" if predicted is None else predicted
    view = compare.tradeoff_view(
        shown_records(workspace.records()),
        workspace.metric_named(metric),
        task=workspace.task_name,
        outcomes=workspace.outcomes,
        axis=compare.axis_named(x),
        predictions=ready_frontiers(workspace, metric, predicted) if show else (),
    )
    return figures.tradeoff_figure(replace(view, note=workspace.unreadable()))


def costs(workspace: Workspace, prices: CostModel, *, model: str | None = None) -> pd.DataFrame:
    """Return what every measured run costs; see :meth:`Study.costs`."""
    if not isinstance(prices, CostModel):
        raise ConfigError(
            f"costs: prices={shown(prices)} is not accepted; give CostModel(price_per_hour_usd=…)."
        )
    found = cost_table(workspace.records(), prices, workspace.baseline(model))
    if found.empty:
        warnings.warn(
            "No run has measured times yet, from which its cost follows: study.measure(run)"
            " measures one, on the machine that its price is of.",
            stacklevel=3,
        )
    return found
