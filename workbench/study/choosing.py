"""The choice of a run: the smallest one that passes a bar."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.study.run import Run
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    from workbench.selection.decision import Decision
    from workbench.selection.requirements import Requirements


def choose(
    workspace: Workspace,
    accuracy: float | Requirements | None = None,
    *,
    relative: bool = True,
    size_bytes: float | None = None,
    latency_ms: float | None = None,
    metric: str | None = None,
    model: str | None = None,
    reference: HasId | str | None = None,
) -> Decision:
    """Choose a run; see :meth:`Study.choose`."""
    from workbench.selection import decision
    from workbench.selection.requirements import Requirements

    if reference is None and isinstance(accuracy, Requirements):
        reference = accuracy.reference
    baseline = workspace.baseline(model) if reference is None else workspace.record_of(reference)
    chosen = workspace.metric_named(metric)
    found = decision.choose(
        workspace.records(),
        baseline,
        chosen,
        accuracy,
        relative=relative,
        size_bytes=size_bytes,
        latency_ms=latency_ms,
        outcomes=workspace.outcomes,
        statistic=lambda outcomes: workspace.task.statistic(chosen, outcomes),
        handle=lambda record: Run(workspace, record.id),
    )
    note = workspace.unreadable()
    return replace(found, nearest=f"{found.nearest} {note}") if note else found
