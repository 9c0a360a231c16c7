"""A study's points as a file, and its runs in MLflow."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.atomic_files import write_file
from workbench.errors import ConfigError, StudyError
from workbench.fields import printable
from workbench.records import RunRecord, RunState
from workbench.study.predictions import ready_frontiers
from workbench.study.workspace import HasId, Workspace
from workbench.views.curves import loss_curves

if TYPE_CHECKING:
    import pandas as pd

MEASURED, PREDICTED = "measured", "predicted"
RUN_TAG = "workbench.run"
"""The tag by which a run is found again, so that it is logged once."""

_FORMULA = re.compile(r"^[=+\-@\t\r]")


def csv_of(table: pd.DataFrame) -> str:
    """Return a table as CSV in which no text is a formula for a spreadsheet.

    A text that begins like one gets an apostrophe before it, which spreadsheets do not show.
    """

    def harmless(value: object) -> object:
        if isinstance(value, str):
            return f"'{value}" if _FORMULA.match(value) else printable(value)
        return value

    found = table.reset_index().map(harmless)
    return str(found.to_csv(index=False))


def points(workspace: Workspace, metric: str | None = None) -> pd.DataFrame:
    """Return every run and every predicted point of the front; see :meth:`Study.points`."""
    import pandas as pd

    from workbench.selection import compare

    decisive, records = workspace.metric_named(metric), workspace.records()
    table = compare.table(records, decisive)
    table.insert(0, "kind", MEASURED)
    table["recipe_json"] = [record.recipe.to_json() for record in records]
    known = {(record.model, record.recipe) for record in records}
    rows = []
    for model, found in ready_frontiers(workspace, metric, None):
        if (model, found.recipe) in known or found.value is None or found.size_bytes is None:
            continue
        low, high = found.interval or (math.nan, math.nan)
        row: dict[str, object] = {"kind": PREDICTED, "model": model, "recipe": found.label}
        row |= {"size_mb": found.size_bytes / 1e6, decisive.name: found.value, "low_90": low}
        rows.append(row | {"high_90": high, "recipe_json": found.recipe.to_json()})
    if not rows:
        return table
    return pd.concat([table, pd.DataFrame(rows, index=[""] * len(rows))]).rename_axis("run")


def save_points(workspace: Workspace, path: str | Path, metric: str | None = None) -> Path:
    """Write :func:`points` as CSV or JSON, by the file's ending, and return the file."""
    target = Path(path).expanduser()
    kind = target.suffix.lower()
    if kind not in (".csv", ".json"):
        raise ConfigError(f"{target} is not accepted; give a file that ends with .csv or .json.")
    found = points(workspace, metric)
    if kind == ".csv":
        text = csv_of(found)
    else:
        rows = found.reset_index().astype(object).to_dict("records")
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    try:
        write_file(target, text)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}.") from error
    return target


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def log_to_mlflow(
    workspace: Workspace,
    runs: Iterable[HasId | str] | None = None,
    *,
    tracking_uri: str | Path | None = None,
    experiment: str | None = None,
) -> list[str]:
    """Log finished runs to MLflow; see :meth:`Study.log_to_mlflow`."""
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise ConfigError(
            'MLflow is not installed: pip install "compression-workbench[mlflow]".'
        ) from error
    if runs is None:
        chosen = [record for record in workspace.records() if record.state is RunState.DONE]
    else:
        chosen = [workspace.record_of(run) for run in runs]
    uri = tracking_uri.absolute().as_uri() if isinstance(tracking_uri, Path) else tracking_uri
    name = experiment or f"workbench/{workspace.task_name}"
    try:
        client = MlflowClient(uri)
        known = client.get_experiment_by_name(name)
        place = client.create_experiment(name) if known is None else known.experiment_id
        return [_log(workspace, client, place, record, Metric, Param, RunTag) for record in chosen]
    except MlflowException as error:
        raise StudyError(f"MLflow at {uri or 'its default place'} refuses it: {error}") from error


def _log(
    workspace: Workspace,
    client: Any,
    experiment: str,
    record: RunRecord,
    metric: Any,
    param: Any,
    tag: Any,
) -> str:
    """Log one run, unless it is there, and return its id in MLflow."""
    there = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{record.id}'", max_results=1)
    run = (
        there[0]
        if there
        else client.create_run(experiment, run_name=record.label, tags={RUN_TAG: record.id})
    )
    id = str(run.info.run_id)
    if there and run.info.status == "FINISHED":
        return id
    facts = [("model", record.model), ("task", workspace.task_name), ("recipe", record.label)]
    facts += [("recipe_json", record.recipe.to_json())]
    params = [param(name, str(value)[:6000]) for name, value in facts]
    now = int(run.info.start_time)
    values = [
        metric(_key(m.metric, m.part), m.value, now, 0)
        for m in record.measurements
        if math.isfinite(m.value)
    ]
    if record.size_bytes is not None:
        values.append(metric("size_bytes", float(record.size_bytes), now, 0))
    values += [metric(f"seconds.{s}", float(taken), now, 0) for s, taken in record.seconds.items()]
    for curve in loss_curves([record]).curves:
        values += [metric("train_loss", loss, now, step) for step, loss in curve.loss]
        values += [metric("validation_loss", loss, now, step) for step, loss in curve.validation]
    said = record.annotation
    tags = [tag("workbench.tags", ", ".join(said.tags))] if said.tags else []
    tags += [tag("mlflow.note.content", said.note)] if said.note else []
    for start in range(0, len(values), 900):  # a batch holds at most 1,000
        client.log_batch(id, metrics=values[start : start + 900])
    if not there:
        client.log_batch(id, params=params, tags=tags)
    client.set_terminated(id, "FINISHED")
    return id


def _key(metric: str, part: str) -> str:
    """Return a metric's name for MLflow, which accepts few signs in it."""
    name = metric if part in ("evaluation", "") else f"{metric}.{part}"
    return re.sub(r"[^\w./ -]", "_", name)
