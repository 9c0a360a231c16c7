"""Deciding: the smallest run that passes a bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.study.comparing import Comparing

if TYPE_CHECKING:
    from workbench.selection.decision import Decision
    from workbench.selection.requirements import Requirements


class Deciding(Comparing):
    """The choice of a run."""

    def choose(
        self,
        accuracy: float | Requirements | None = None,
        *,
        relative: bool = True,
        size_bytes: float | None = None,
        latency_ms: float | None = None,
        metric: str | None = None,
        model: str | None = None,
    ) -> Decision:
        """Choose the smallest run that passes, or with limits alone the best one that fits.

        With a number a run is judged by its measured value, and the answer says how sure that is.
        With :class:`workbench.Requirements` a run must pass with confidence, however many there
        are to choose from. See :func:`workbench.selection.decision.decide`.

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
        """
        from workbench.selection import decision

        records = self._store.records()
        name, chosen = self._name(model), self._metric(metric)
        baseline = [r for r in records if r.model == name and not r.recipe.steps]
        return decision.choose(
            records,
            baseline[0] if baseline else None,
            chosen,
            accuracy,
            relative=relative,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
            outcomes=self._outcomes,
            statistic=lambda outcomes: self.task.statistic(chosen, outcomes),
            handle=lambda record: self._handle(record.id),
        )
