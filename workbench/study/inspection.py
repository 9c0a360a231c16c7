"""What compression did to a few runs: facts side by side, flips, mistakes, weights and texts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workbench import views
from workbench.errors import ConfigError
from workbench.fields import listed, shown
from workbench.records import Metric, RunRecord
from workbench.study.workspace import HasId, Workspace
from workbench.tasks.output import Output
from workbench.views import Confusion, FlipsView, LayerErrors, WeightHistogram
from workbench.views.curves import LossCurves, loss_curves

if TYPE_CHECKING:
    import pandas as pd

    from workbench.models.loaded import LoadedModel
    from workbench.tasks.metrics import Statistic


def differences(workspace: Workspace, runs: Iterable[HasId | str]) -> pd.DataFrame:
    """Return runs side by side; see :meth:`Study.differences`."""
    from workbench.selection.quality import Scores

    def statistic(metric: Metric) -> Statistic:
        return lambda outcomes: workspace.task.statistic(metric, outcomes)

    scores = [Scores(m, workspace.outcomes, statistic(m)) for m in workspace.metrics]
    return views.differences(_records(workspace, "differences", runs), workspace.metrics, scores)


def _records(workspace: Workspace, owner: str, runs: Iterable[HasId | str]) -> list[RunRecord]:
    return [workspace.record_of(run) for run in listed(owner, "runs", runs, "a list of runs")]


def flips(
    workspace: Workspace, before: HasId | str, after: HasId | str, *, texts: bool = True
) -> FlipsView:
    """Return the examples on which two runs differ; see :meth:`Study.flips`."""
    one, two = workspace.record_of(before), workspace.record_of(after)
    found = views.flips(
        workspace.store.outcomes(one.id),
        workspace.store.outcomes(two.id),
        names=(_name(one), _name(two)),
        labels=workspace.task.labels,
    )
    if not texts:
        return found
    from workbench.views.inspecting import example_texts

    base = workspace.baseline(one.model)
    dense = workspace.engine.model((base or one).id)
    return found.with_texts(
        example_texts(workspace.task, dense, [flip.example for flip in found.rows])
    )


def confusion(workspace: Workspace, run: HasId | str) -> Confusion:
    """Return which labels are mistaken for which; see :meth:`Study.confusion`."""
    record = workspace.record_of(run)
    return views.confusion(
        workspace.store.outcomes(record.id),
        run=_name(record),
        labels=workspace.task.labels,
    )


def layer_errors(workspace: Workspace, runs: Iterable[HasId | str]) -> LayerErrors:
    """Return the error of every layer's weight; see :meth:`Study.layer_errors`."""
    from workbench.views.inspecting import layer_names, relative_errors

    records = _records(workspace, "layer_errors", runs)
    dense = _dense_of(workspace, records)
    layers = layer_names(dense)
    columns = [relative_errors(dense, workspace.engine.model(record.id)) for record in records]
    return LayerErrors(
        layers,
        tuple(_name(record) for record in records),
        tuple(tuple(column[layer] for column in columns) for layer in layers),
    )


def curves(workspace: Workspace, runs: Iterable[HasId | str] | None) -> LossCurves:
    """Return how trainings went; see :meth:`Study.loss_curves`."""
    if runs is None:
        return loss_curves(r for r in workspace.records() if not r.annotation.hidden)
    return loss_curves(_records(workspace, "loss_curves", runs))


def weight_histogram(workspace: Workspace, run: HasId | str, layer: str) -> WeightHistogram:
    """Return a layer's weights before and after; see :meth:`Study.weight_histogram`."""
    from workbench.views.inspecting import weight_histogram

    record = workspace.record_of(run)
    dense, compressed = _dense_of(workspace, [record]), workspace.engine.model(record.id)
    return weight_histogram(dense, compressed, layer, run=_name(record))


def side_by_side(
    workspace: Workspace, prompt: str, runs: Iterable[HasId | str], *, max_new_tokens: int = 40
) -> dict[str, str]:
    """Return what each run's model generates; see :meth:`Study.side_by_side`."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(
            f"side_by_side: prompt={shown(prompt)} is not accepted; give a few words to continue."
        )
    records = _records(workspace, "side_by_side", runs)
    return {
        record.id: workspace.engine.model(record.id).generate(prompt, max_new_tokens=max_new_tokens)
        for record in records
    }


def try_out(
    workspace: Workspace, text: str, runs: Iterable[HasId | str], *, max_new_tokens: int = 40
) -> pd.DataFrame:
    """Return what each run answers to a text; see :meth:`Study.try_out`."""
    import pandas as pd

    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"try_out: text={shown(text)} is not accepted; give some words.")
    records, rows = _records(workspace, "try_out", runs), []
    for record in records:
        model = workspace.engine.model(record.id)
        if workspace.output is Output.LABELS:
            classify: Any = workspace.task
            classify.probabilities(model, [text])  # what is compiled or read once is not timed
            began = time.perf_counter()
            sure = classify.probabilities(model, [text])[0]
            seconds = time.perf_counter() - began
            best = sure.argsort()[::-1][:3]
            answer, confidence = classify.label_of(best[0]), float(sure[best[0]])
            others = ", ".join(f"{classify.label_of(i)} {sure[i]:.1%}" for i in best[1:])
        else:
            model.generate(text, max_new_tokens=1)
            began = time.perf_counter()
            answer = model.generate(text, max_new_tokens=max_new_tokens)
            seconds, confidence, others = time.perf_counter() - began, None, ""
        row: dict[str, object] = {"name": _name(record), "answer": answer}
        row |= {"confidence": confidence, "others": others, "seconds": seconds}
        row["size_mb"] = (record.size_bytes or 0) / 1e6
        for name, divisor in (("latency_ms", 1.0), ("resident_bytes", 1e6)):
            found = record.measurement(name)
            key = "memory_mb" if name == "resident_bytes" else name
            row[key] = None if found is None else found.value / divisor
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index([r.id for r in records], name="run", dtype=object))


def _dense_of(workspace: Workspace, records: list[RunRecord]) -> LoadedModel:
    names = {record.model for record in records}
    if len(names) != 1:
        given = ", ".join(sorted(names)) or "none"
        raise ConfigError(
            f"Layers are compared within one base model; the runs given are of {given}."
        )
    base = workspace.baseline(names.pop())
    assert base is not None  # a run that is done has one
    return workspace.engine.model(base.id)


def _name(record: RunRecord) -> str:
    return record.label if record.recipe.steps else f"{record.model} ({record.label})"
