"""Outcomes of any part of the data, and whether the task has one answer per example."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, overload

from workbench.errors import ConfigError, StudyError
from workbench.progress import Monitor, Progress
from workbench.records import RunState
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    from workbench.tasks import HarnessTask, TextClassification
    from workbench.tasks.outcomes import Outcomes


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
        if "prediction" not in found or "entropy" in found:
            return found
    kept = workspace.store.outcomes_of(id, part)
    if kept is None:
        kept = workspace.engine.outcomes(id, part, monitor=Monitor(on_progress))
        with contextlib.suppress(OSError):  # a read-only study is looked into all the same
            workspace.store.keep_outcomes(id, part, kept)
    return kept


@overload
def classification(workspace: Workspace) -> TextClassification | HarnessTask: ...


@overload
def classification(workspace: Workspace, *, texts: Literal[True]) -> TextClassification: ...


def classification(
    workspace: Workspace, *, texts: bool = False
) -> TextClassification | HarnessTask:
    """Return the task if every example has one answer, with ``texts`` to texts of the user."""
    from workbench.tasks import HarnessTask, TextClassification

    task = workspace.task
    if isinstance(task, TextClassification):
        return task
    if isinstance(task, HarnessTask) and task.is_choice:
        if not texts and not task.is_validated:
            raise ConfigError(
                f"The validation documents that {task.name!r} was given are not scored as the"
                " evaluated ones, and this is set by them; use a study of a task that has a"
                " validation or training split of its own."
            )
        if not texts:
            return task
        raise ConfigError(
            f"The prompts of {task.name!r} are the harness's, so they are not changed here; use"
            " a study of a TextClassification task."
        )
    raise ConfigError(
        f"This needs one answer per example, and {task.name!r} is"
        f" {task.kind.replace('_', ' ')}; use a study of a TextClassification task, or of a"
        " multiple-choice HarnessTask."
    )
