"""Comparing runs: table and plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.study.predicting import Predicting

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Comparing(Predicting):
    """Views of all runs, measured and predicted."""

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """Return one row per run; see :func:`workbench.selection.compare.table`.

        Parameters
        ----------
        metric : str, optional
            Decides the column ``pareto``. Default: the task's first.
        """
        from workbench.selection import compare

        return compare.table(self._store.records(), self._metric(metric))

    def plot(
        self, metric: str | None = None, *, x: str = "size", predicted: bool | None = None
    ) -> go.Figure:
        """Return a plotly figure of a metric against size, with the Pareto front.

        Parameters
        ----------
        metric : str, optional
            Default: the task's first.
        x : {"size", "latency", "memory"}
            What the metric is drawn against; the last two are of runs that were measured with
            :meth:`measure`.
        predicted : bool, optional
            Whether the predicted front is drawn too, hollow, against size. Default: if
            predictions were made already, by :meth:`tabulate` or any method that needs them.

        Raises
        ------
        ConfigError
            If predictions are asked for that cannot be: only sizes are predicted.
        StudyError
            If predictions are asked for and none were made yet.
        """
        from workbench.selection import compare
        from workbench.views import figures

        if predicted and x != "size":
            raise ConfigError(
                f"plot(x={x!r}, predicted=True) is not accepted: the {x} is not predicted, only"
                ' measured; give x="size", or leave predicted out.'
            )
        show = x == "size" if predicted is None else predicted
        view = compare.tradeoff_view(
            self._store.records(),
            self._metric(metric),
            task=self._store.meta("task")["name"],
            outcomes=self._outcomes,
            axis=compare.axis_named(x),
            predictions=self._predicted(metric, predicted) if show else (),
        )
        return figures.tradeoff_figure(view)
