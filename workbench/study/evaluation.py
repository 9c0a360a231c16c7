"""Outcomes of any part of the data, and whether the task has one answer per example."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.progress import Monitor, Progress
from workbench.records import EVALUATION_FACT, EVALUATION_VERSIONS, RunState
from workbench.selection.quality import is_measured
from workbench.study.workspace import HasId, Workspace
from workbench.tasks.output import Output

if TYPE_CHECKING:
    from workbench.tasks.outcomes import Outcomes


def renew(workspace: Workspace) -> None:
    """Compute again what earlier versions measured otherwise, or mark it where that is not known.

    Outcomes of an earlier reading of the texts are no ground for a number; see
    :data:`workbench.records.EVALUATION_VERSIONS`.
    """
    store, metrics = workspace.store, workspace.metrics
    store.renew_measurements(metrics)
    version = EVALUATION_VERSIONS.get(store.meta("task")["saved"].get("kind"), 1)
    before = (None, *range(1, version))
    earlier = [r for r in store.snapshot().done if r.facts.get(EVALUATION_FACT) in before]
    models = store.models()
    changed = {
        record.model
        for record in earlier
        if models[record.model]["source"]["architecture"].endswith("ForSequenceClassification")
    }
    if not changed:  # which is found out without transformers
        return
    from workbench.models.architectures import classifies_by_last_token

    changed = {m for m in changed if classifies_by_last_token(models[m]["source"]["architecture"])}
    runs = [
        record.id
        for record in earlier
        if record.model in changed and any(is_measured(record, metric) for metric in metrics)
    ]
    if runs:
        warnings.warn(
            f"{len(runs)} runs of {', '.join(sorted(changed))} were measured by an earlier version,"
            " which read some padded texts otherwise. Run their recipes again to have their"
            " numbers.",
            stacklevel=3,
        )
    for run in runs:
        store.forget_outcomes(run, metrics)


def outcomes(
    workspace: Workspace,
    run: HasId | str,
    part: str = "evaluation",
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcomes:
    """Return a run's outcomes of a part, evaluated if need be; see :meth:`Study.outcomes`."""
    record = workspace.record_of(run)
    id = record.id
    if record.state is not RunState.DONE:
        raise StudyError(
            f"Run {id} is {record.state.value}, so it has no outcomes; only finished runs have."
        )
    if part == "evaluation":
        found = workspace.store.outcomes(id)
        if not found.is_classified or "entropy" in found:
            return found
    kept = workspace.store.outcomes_of(id, part)
    if kept is None:
        kept = workspace.engine.outcomes(id, part, monitor=Monitor(on_progress))
        # A read-only study is looked into all the same.
        with contextlib.suppress(OSError, StudyError):
            workspace.store.keep_outcomes(id, part, kept)
    return kept


def classification(workspace: Workspace, *, texts: bool = False) -> Any:
    """Return the task if every example has one answer, with ``texts`` to texts of the user."""
    task = workspace.task
    if not task.output.classifies:
        raise ConfigError(
            f"This needs one answer per example, and {task.name!r} answers {task.output.value}; use"
            " a study of a TextClassification task, or of a multiple-choice HarnessTask."
        )
    if texts and task.output is not Output.LABELS:
        raise ConfigError(
            f"The prompts of {task.name!r} are the harness's, so they are not changed here; use a"
            " study of a TextClassification task."
        )
    if not task.is_validated:
        raise ConfigError(
            f"The validation documents that {task.name!r} was given are not scored as the evaluated"
            " ones, and this is set by them; use a study of a task that has a validation or"
            " training split of its own."
        )
    return task
