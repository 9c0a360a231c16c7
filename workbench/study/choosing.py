"""The choice of a run: the smallest one that passes a bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.selection.requirements import Requirements
from workbench.study.run import Run
from workbench.study.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from workbench.records import Metric, RunRecord
    from workbench.selection.compare import Interval
    from workbench.selection.decision import Verdict
    from workbench.tasks.uncertainty import Estimate


@dataclass(frozen=True)
class Choice:
    """What :meth:`Study.choose` found. Printing it says it in one sentence.

    Attributes
    ----------
    run : Run or None
        None if no run passes.
    quality : float or None
        Quality of ``run`` (or of ``nearest_run``) relative to the base model; 1.0 is as good.
    interval : Interval or None
        95 % interval of ``quality``.
    surely : bool
        Whether the lower end of the interval passes the bar too.
    nearest_run : Run or None
        The chosen run, else the one that comes nearest.
    nearest : str
        What was chosen, or which run comes nearest and what it lacks.
    """

    run: Run | None
    quality: float | None
    interval: Interval | None
    surely: bool
    nearest_run: Run | None
    nearest: str

    def __str__(self) -> str:
        return self.nearest


@dataclass(frozen=True)
class Decision(Choice):
    """What :meth:`Study.choose` found for :class:`Requirements`. Printing it says it in words.

    ``surely`` is True where a run was chosen: it passed the test.

    Attributes
    ----------
    answer : {"passes", "fails", "unclear"}
        Of the chosen run, or of the nearest one; "unclear" also if there are no runs.
    requirements : Requirements
    verdicts : tuple of Verdict
        What is known about every candidate, smallest first.
    """

    answer: str
    requirements: Requirements
    verdicts: tuple[Verdict, ...]

    def table(self) -> pd.DataFrame:
        """Return one row per candidate: its answer, quality, interval, and what it lacks."""
        import pandas as pd

        rows = [
            {
                "run": verdict.run.id,
                "model": verdict.run.model,
                "recipe": verdict.run.label,
                "size_mb": (verdict.run.size_bytes or 0) / 1e6,
                "answer": verdict.answer,
                "quality": verdict.quality,
                "quality_low": None if verdict.interval is None else verdict.interval.low,
                "quality_high": None if verdict.interval is None else verdict.interval.high,
                "p_value": verdict.p_value,
                "level": verdict.level,
                "examples": verdict.n_examples,
                "enough_examples": verdict.enough_examples,
                "lacks": "; ".join(verdict.lacks),
            }
            for verdict in self.verdicts
        ]
        return pd.DataFrame(rows)


def choose(
    workspace: Workspace,
    accuracy: float | Requirements | None = None,
    *,
    relative: bool = True,
    size_bytes: float | None = None,
    latency_ms: float | None = None,
    metric: str | None = None,
    model: str | None = None,
) -> Choice:
    """Choose a run; see :meth:`Study.choose`."""
    if not isinstance(accuracy, Requirements):
        return _by_measured_value(
            workspace,
            accuracy,
            relative=relative,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
            metric=metric,
            model=model,
        )
    if not relative or size_bytes is not None or latency_ms is not None:
        raise ConfigError(
            "relative, size_bytes and latency_ms are part of Requirements(...); give them there."
        )
    return decide(workspace, accuracy, metric=metric, model=model)


def decide(
    workspace: Workspace,
    requirements: Requirements,
    *,
    metric: str | None = None,
    model: str | None = None,
) -> Decision:
    """Choose a run that passes requirements with confidence; see :meth:`Study.choose`."""
    from workbench.selection import decision

    chosen = workspace.metric_named(metric)
    found = decision.decide(
        workspace.records(),
        workspace.baseline(model),
        chosen,
        requirements,
        outcomes=workspace.outcomes,
        estimates=lambda record: _estimate(workspace, record, chosen),
    )
    nearest = found.nearest
    return Decision(
        run=_handle(workspace, None if found.chosen is None else found.chosen.run),
        quality=None if nearest is None else nearest.quality,
        interval=None if nearest is None else nearest.interval,
        surely=found.chosen is not None,
        nearest_run=_handle(workspace, None if nearest is None else nearest.run),
        nearest=found.words,
        answer=decision.UNCLEAR if nearest is None else nearest.answer,
        requirements=requirements,
        verdicts=found.verdicts,
    )


def _by_measured_value(
    workspace: Workspace,
    accuracy: float | None,
    *,
    relative: bool,
    size_bytes: float | None,
    latency_ms: float | None,
    metric: str | None,
    model: str | None,
) -> Choice:
    from workbench.selection import compare

    found = compare.choose(
        workspace.records(),
        workspace.baseline(model),
        workspace.metric_named(metric),
        outcomes=workspace.outcomes,
        accuracy=accuracy,
        relative=relative,
        size_bytes=size_bytes,
        latency_ms=latency_ms,
    )
    return Choice(
        run=_handle(workspace, found.run),
        quality=found.quality,
        interval=found.interval,
        surely=found.surely,
        nearest_run=_handle(workspace, found.nearest_run),
        nearest=found.nearest,
    )


def _handle(workspace: Workspace, record: RunRecord | None) -> Run | None:
    return None if record is None else Run(workspace, record.id)


def _estimate(workspace: Workspace, record: RunRecord, metric: Metric) -> Estimate | None:
    """Return a run's metric with its influences, which needs the task itself."""
    outcomes = workspace.outcomes(record)
    return None if outcomes is None else workspace.task.estimate(metric.name, outcomes)
