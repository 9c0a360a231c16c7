"""What runs will cost, before they are run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, StudyError
from workbench.progress import SILENT, Monitor, Progress, on_terminal
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study.base import StudyBase, only_progress

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.prediction.cost_table import CostTable
    from workbench.prediction.predict import Prediction
    from workbench.study.forecast import Forecast
    from workbench.study.running.sweep import OnEvent


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much each group of layers costs under each step; predicted, in nats.

    Attributes
    ----------
    table : DataFrame
        Index: the first layer of every shared input; columns: labels of the steps.
    """

    table: pd.DataFrame

    def plot(self) -> go.Figure:
        """Return the table as a heatmap, on a logarithmic colour scale."""
        from workbench.views.figures import sensitivity_figure

        return sensitivity_figure(self.table)

    def _repr_html_(self) -> str:
        return str(self.table.to_html(float_format="{:.2g}".format, border=0))


class Predicting(StudyBase):
    """Predictions from one table of costs per base model."""

    def tabulate(
        self,
        *,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Make the predictions ready: one backward pass, then every layer under every scheme.

        The other methods of this kind do it when they are first asked. What is there already is
        not made again, and an interrupted table goes on where it stopped.

        Parameters
        ----------
        model : str, optional
            Name of the base model. Default: the study's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.
        """
        from workbench.study.forecast import is_complete

        name = self._name(model)
        table = self._table(name)
        if table is not None and is_complete(table) and self._has_baseline(name):
            return
        self._compute([Recipe()], name, only_progress(on_progress))
        if not self._has_baseline(name):
            for execution in self._get_inline().executions:
                if execution.error is not None:
                    raise execution.error
            raise StudyError(f"The base model {name!r} was not evaluated; run study.run([]) first.")
        self._get_engine().tabulate(name, monitor=Monitor(on_progress) if on_progress else SILENT)

    def submit_tabulate(
        self, *, model: str | None = None, on_event: OnEvent | None = None
    ) -> list[int]:
        """Queue :meth:`tabulate` for the study's worker process and return at once.

        Predictions can be asked for when the job's event ``"finished"`` has come; the plot shows
        them from then on. A cancelled job goes on where it stopped when it is queued again.

        Parameters
        ----------
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.study.running.sweep.Event`, in a background thread.

        Returns
        -------
        list of int
            The numbers of the jobs; a baseline that is missing adds one.
        """
        return self._get_worker().submit([(self._name(model), None)], on_event)

    def predict(
        self,
        recipe: Recipe | Step | Iterable[Step],
        *,
        model: str | None = None,
        metric: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Prediction:
        """Predict a recipe without running it; milliseconds once :meth:`tabulate` has run.

        The first time the table is made, which takes as long as some runs.

        Parameters
        ----------
        recipe : Step, sequence of steps, or Recipe
        model : str, optional
            Name of the base model. Default: the study's first.
        metric : str, optional
            Default: the task's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress` while the table is made. Default:
            shown on standard error if that is a terminal.

        Returns
        -------
        Prediction
            With no loss, and the reason, for steps that no table knows (training, structure).
        """
        return self._forecast(model, metric, on_progress).predict(Recipe.of(recipe))

    def frontier(
        self,
        *,
        model: str | None = None,
        metric: str | None = None,
        n_mixed: int = 12,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Prediction, ...]:
        """Return the predicted Pareto front over uniform and mixed recipes, the smallest first.

        Parameters
        ----------
        model : str, optional
            Name of the base model. Default: the study's first.
        metric : str, optional
            Default: the task's first.
        n_mixed : int
            Sizes at which mixed precision is looked at.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress` while the table is made. Default:
            shown on standard error if that is a terminal.
        """
        return self._forecast(model, metric, on_progress).frontier(n_mixed)

    def sensitivity(
        self,
        steps: Iterable[Step] | None = None,
        *,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Sensitivity:
        """Return how much each group of layers costs under each step, as a table and a heatmap.

        Parameters
        ----------
        steps : iterable of Step, optional
            Default: everything that is tabulated.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress` while the table is made. Default:
            shown on standard error if that is a terminal.
        """
        forecast = self._forecast(model, None, on_progress)
        return Sensitivity(forecast.sensitivity(steps))

    def fit(
        self,
        *,
        size_bytes: float | None = None,
        bits_per_weight: float | None = None,
        verify: int = 3,
        model: str | None = None,
        metric: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Recipe:
        """Return the recipe with the least loss within a budget: a precision for every layer.

        The knapsack over the table of costs is solved to one part in 10,000; its best answers are
        then run, and the one that measures best is returned.

        Parameters
        ----------
        size_bytes : float, optional
            The most that the whole stored model may take.
        bits_per_weight : float, optional
            Instead: mean stored bits of the compressed layers, scales and zero points included.
        verify : int
            How many candidates are run; 0 trusts the prediction.
        model : str, optional
            Name of the base model. Default: the study's first.
        metric : str, optional
            Decides among the measured. Default: KL divergence from the dense model.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        ConfigError
            If not exactly one budget is given, or nothing fits; the message says what would.
        """
        if type(verify) is not int or verify < 0:
            raise ConfigError(f"verify={verify!r} is not accepted; give 0 or a positive number.")
        deciding = self._metric(metric or "kl")
        found = self._forecast(model, None, on_progress).candidates(
            size_bytes=size_bytes, bits_per_weight=bits_per_weight
        )
        if verify == 0:
            return found[0].recipe
        runs = self._compute([p.recipe for p in found[:verify]], model, only_progress(on_progress))
        sign = -1 if deciding.higher_is_better else 1
        measured = [
            (sign * value.value, run.recipe)
            for run in runs
            if (value := run.record.measurement(deciding.name)) is not None
            and (run.size_bytes or 0) <= (size_bytes or math.inf)
            and run.record.facts["bits_per_weight"] <= (bits_per_weight or math.inf) + 1e-9
        ]
        if not measured:
            reason = next((run.error for run in runs if run.error), "all were cancelled or too big")
            raise StudyError(f"No candidate could be verified: {reason}")
        return min(measured, key=lambda pair: pair[0])[1]

    def _forecast(
        self,
        model: str | None,
        metric: str | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Forecast:
        from workbench.study.forecast import Forecast

        name, decisive = self._name(model), self._metric(metric)
        self.tabulate(model=name, on_progress=on_progress or on_terminal())
        table = self._table(name)
        if table is None:
            raise StudyError(f"The predictions of {name!r} were deleted while they were made.")
        return Forecast(table, self._store.records(), name, decisive)

    def _has_baseline(self, name: str) -> bool:
        from workbench.study.running.engine import run_id

        record = self._store.record(run_id(self._store, name, Recipe()))
        return record is not None and record.state is RunState.DONE

    def _table(self, name: str) -> CostTable | None:
        """Return the table of costs as its file is now, which another process may have written."""
        from workbench.prediction.cost_table import CostTable
        from workbench.study.forecast import find_table

        try:
            path = find_table(self._store, name)
            if path is None:
                return None
            about = path.stat()
            state = (path.name, about.st_ino, about.st_size, about.st_mtime_ns)
            if name not in self._tables or self._tables[name][0] != state:
                self._tables[name] = (state, CostTable.load(path))
        except (OSError, StudyError):  # deleted meanwhile, damaged or old: made again when asked
            return None
        return self._tables[name][1]

    def _predicted(
        self, metric: str | None, predicted: bool | None
    ) -> list[tuple[str, Prediction]]:
        """Return the predicted fronts of the base models that have a table; none is made here."""
        from workbench.selection.quality import is_baseline, is_measured

        decisive, records = self._metric(metric), self._store.records()
        measured = {r.model for r in records if is_baseline(r) and is_measured(r, decisive)}
        found: list[tuple[str, Prediction]] = []
        for name in self.models:
            table = self._table(name) if name in measured else None
            if table is not None:
                from workbench.study.forecast import Forecast

                forecast = Forecast(table, records, name, decisive)
                found += [(name, prediction) for prediction in forecast.frontier()]
        if predicted and not found:
            raise StudyError(
                "There are no predictions yet; study.tabulate() makes them, and then"
                " plot(predicted=True) shows them."
            )
        return found
