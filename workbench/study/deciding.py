"""Deciding: the smallest run that passes a bar with confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from workbench.errors import ConfigError
from workbench.selection.requirements import Requirements
from workbench.study.comparing import Comparing
from workbench.study.handles import Choice

if TYPE_CHECKING:
    import pandas as pd

    from workbench.records import Metric, RunRecord
    from workbench.selection.decision import Verdict
    from workbench.tasks.uncertainty import Estimate


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


class Deciding(Comparing):
    """Choices that hold with confidence."""

    @overload
    def choose(
        self, accuracy: Requirements, *, metric: str | None = None, model: str | None = None
    ) -> Decision: ...

    @overload
    def choose(
        self,
        accuracy: float | None = None,
        *,
        relative: bool = True,
        size_bytes: float | None = None,
        latency_ms: float | None = None,
        metric: str | None = None,
        model: str | None = None,
    ) -> Choice: ...

    def choose(
        self,
        accuracy: float | Requirements | None = None,
        *,
        relative: bool = True,
        size_bytes: float | None = None,
        latency_ms: float | None = None,
        metric: str | None = None,
        model: str | None = None,
    ) -> Choice:
        """Choose the smallest run that passes, or with limits alone the best one that fits.

        With a number a run is judged by its measured value, see
        :func:`workbench.selection.compare.choose`.
        With :class:`workbench.Requirements` a run must pass with confidence, however many there
        are to choose from, see :func:`workbench.selection.decision.decide`.

        Parameters
        ----------
        accuracy : float or Requirements, optional
            The least acceptable quality, as a share of the base model's (0.97 for 97 %); or all
            that is asked for.
        relative : bool
            False: ``accuracy`` is a bar for the metric's value itself.
        size_bytes, latency_ms : float, optional
            The most that is acceptable.
        metric : str, optional
            Default: the task's first.
        model : str, optional
            The base model that quality refers to. Default: the study's first. The runs of all
            base models are candidates.

        Returns
        -------
        Choice
            A :class:`Decision` for requirements.
        """
        if not isinstance(accuracy, Requirements):
            return super().choose(
                accuracy,
                relative=relative,
                size_bytes=size_bytes,
                latency_ms=latency_ms,
                metric=metric,
                model=model,
            )
        if not relative or size_bytes is not None or latency_ms is not None:
            raise ConfigError(
                "relative, size_bytes and latency_ms are part of Requirements(...); give them"
                " there."
            )
        from workbench.selection.decision import UNCLEAR, decide

        records = self._store.records()
        name, chosen = self._name(model), self._metric(metric)
        baseline = [r for r in records if r.model == name and not r.recipe.steps]
        found = decide(
            records,
            baseline[0] if baseline else None,
            chosen,
            accuracy,
            outcomes=self._outcomes,
            estimates=lambda record: self._estimate(record, chosen),
        )
        nearest = found.nearest
        return Decision(
            run=self._handle_of(None if found.chosen is None else found.chosen.run),
            quality=None if nearest is None else nearest.quality,
            interval=None if nearest is None else nearest.interval,
            surely=found.chosen is not None,
            nearest_run=self._handle_of(None if nearest is None else nearest.run),
            nearest=found.words,
            answer=UNCLEAR if nearest is None else nearest.answer,
            requirements=accuracy,
            verdicts=found.verdicts,
        )

    def _estimate(self, record: RunRecord, metric: Metric) -> Estimate | None:
        """Return a run's metric with its influences, which needs the task itself."""
        outcomes = self._outcomes(record)
        return None if outcomes is None else self.task.estimate(metric.name, outcomes)
