"""Views of a few runs: their tree, their differences, and what compression did to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState
from workbench.study.comparing import Comparing
from workbench.study.computing import Computing
from workbench.study.handles import Run
from workbench.views import Confusion, FlipsView, LayerErrorsView, WeightHistogramView
from workbench.views.lineage import LineageView

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.prediction.predict import Prediction
    from workbench.study.forecast import Forecast


class Lineage(LineageView):
    """The tree of a study's runs; :meth:`plot` draws it."""

    def plot(self) -> go.Figure:
        """Return the tree as a plotly figure: nodes sized by bytes, coloured by the metric."""
        from workbench.views.figures import lineage_figure

        return lineage_figure(self)


class LayerErrors(LayerErrorsView):
    """Errors of the weights by layer and run; :meth:`plot` draws them."""

    def plot(self) -> go.Figure:
        """Return a heatmap on a logarithmic scale."""
        from workbench.views.figures import layer_errors_figure

        return layer_errors_figure(self)


class WeightHistogram(WeightHistogramView):
    """One layer's weights before and after; :meth:`plot` draws them."""

    def plot(self) -> go.Figure:
        """Return both distributions in one figure."""
        from workbench.views.figures import weight_histogram_figure

        return weight_histogram_figure(self)


class ConfusionOfRun(Confusion):
    """A confusion matrix; :meth:`plot` draws it."""

    def plot(self) -> go.Figure:
        """Return a heatmap of each label's shares."""
        from workbench.views.figures import confusion_figure

        return confusion_figure(self)


class Viewing(Computing, Comparing):
    """What can be seen about single runs, and about a few of them side by side."""

    _forecasts: tuple[object, Forecast] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what the study records of its models and its task, without loading either.

        Returns
        -------
        dict
            ``"models"``: by name, a dict with ``kind``, ``ref``, ``architecture``,
            ``n_parameters``, ``size_bytes`` and ``compute_dtype``; ``"task"``: its ``name`` and
            ``kind``.
        """
        names = ("n_parameters", "size_bytes", "compute_dtype")
        models = {
            name: {**known["source"], **{key: known[key] for key in names}}
            for name, known in self._store.models().items()
        }
        task = self._store.meta("task")
        return {"models": models, "task": {"name": task["name"], "kind": task["saved"]["kind"]}}

    def lineage(self, metric: str | None = None) -> Lineage:
        """Return the tree of runs: which recipe continues which.

        Parameters
        ----------
        metric : str, optional
            What nodes are coloured by. Default: the task's first.
        """
        from workbench.views.lineage import lineage

        view = lineage(self._store.records(), self._metric(metric))
        return Lineage(view.metric, view.nodes, view.edges)

    def differences(self, runs: Iterable[Run | str]) -> pd.DataFrame:
        """Return runs side by side, one row per fact; see :func:`workbench.views.differences`."""
        from workbench.views import differences

        return differences([self._record_of(run) for run in runs], self.metrics)

    def flips(self, before: Run | str, after: Run | str, *, texts: bool = True) -> FlipsView:
        """Return the examples on which two runs differ, and whether it is better or worse.

        Parameters
        ----------
        before, after : Run or str
            Finished runs, or their ids.
        texts : bool
            Whether the examples' texts are looked up, which loads the model's tokenizer.
        """
        from workbench.views import flips

        one, two = self._record_of(before), self._record_of(after)
        found = flips(
            self._store.outcomes(one.id),
            self._store.outcomes(two.id),
            names=(_name(one), _name(two)),
            labels=self.task.labels,
        )
        if not texts:
            return found
        from workbench.views.inspecting import example_texts

        base = self.baseline(one.model)
        dense = self.model(one.id if base is None else base)
        return found.with_texts(
            example_texts(self.task, dense, [flip.example for flip in found.rows])
        )

    def confusion(self, run: Run | str) -> ConfusionOfRun:
        """Return which labels a run mistakes for which; only for classification tasks."""
        from workbench.views import confusion

        record = self._record_of(run)
        found = confusion(
            self._store.outcomes(record.id),
            run=_name(record),
            labels=self.task.labels,
        )
        return ConfusionOfRun(found.run, found.labels, found.counts)

    def layer_errors(self, runs: Iterable[Run | str]) -> LayerErrors:
        """Return the relative squared error of every layer's weight, by run.

        Parameters
        ----------
        runs : iterable of Run or str
            Finished runs of one base model.
        """
        from workbench.views.inspecting import layer_names, relative_errors

        records = [self._record_of(run) for run in runs]
        dense = self._dense_of(records)
        layers = layer_names(dense)
        columns = [relative_errors(dense, self.model(record.id)) for record in records]
        return LayerErrors(
            layers,
            tuple(_name(record) for record in records),
            tuple(tuple(column[layer] for column in columns) for layer in layers),
        )

    def weight_histogram(self, run: Run | str, layer: str) -> WeightHistogram:
        """Return how a layer's weights are distributed before and after compression."""
        from workbench.views.inspecting import weight_histogram

        record = self._record_of(run)
        found = weight_histogram(
            self._dense_of([record]), self.model(record.id), layer, run=_name(record)
        )
        return WeightHistogram(found.layer, found.run, found.edges, found.before, found.after)

    def side_by_side(
        self, prompt: str, runs: Iterable[Run | str], *, max_new_tokens: int = 40
    ) -> dict[str, str]:
        """Return what each run's model generates from a prompt, by the run's id.

        Parameters
        ----------
        prompt : str
        runs : iterable of Run or str
            Finished runs of decoders, which go on from it, or encoder-decoders, which answer it.
        max_new_tokens : int
        """
        if not prompt.strip():
            raise ConfigError("The prompt is empty; give a few words to continue.")
        records = [self._record_of(run) for run in runs]
        return {
            record.id: self.model(record.id).generate(prompt, max_new_tokens=max_new_tokens)
            for record in records
        }

    def predict_now(
        self,
        recipe: Recipe | Step | Iterable[Step],
        *,
        model: str | None = None,
        metric: str | None = None,
    ) -> Prediction | None:
        """Return a recipe's prediction if predictions are ready, else None; nothing is computed.

        Meant for sliders: what it reads is kept until the journal has new finished runs.
        """
        forecast = self._ready_forecast(self._name(model), metric)
        return None if forecast is None else forecast.predict(Recipe.of(recipe))

    def lacks_predictions(self, model: str | None = None) -> bool:
        """Return whether :meth:`tabulate` has something left to do; nothing is computed."""
        from workbench.study.forecast import is_complete

        table = self._table(self._name(model))
        return table is None or not is_complete(table)

    def _ready_forecast(self, name: str, metric: str | None) -> Forecast | None:
        from workbench.selection.quality import is_baseline, is_measured

        table = self._table(name)
        if table is None:
            return None
        decisive, records = self._metric(metric), self._store.records()
        if not any(
            is_baseline(r) and is_measured(r, decisive) and r.model == name for r in records
        ):
            return None
        done = tuple(record.id for record in records if record.state is RunState.DONE)
        key = (name, decisive.name, id(table), done)
        if self._forecasts is None or self._forecasts[0] != key:
            from workbench.study.forecast import Forecast

            self._forecasts = (key, Forecast(table, records, name, decisive))
        return self._forecasts[1]

    def _record_of(self, run: Run | str) -> RunRecord:
        record = self._store.record(self._id_of(run))
        assert record is not None
        return record

    def _dense_of(self, records: list[RunRecord]) -> Any:
        names = {record.model for record in records}
        if len(names) != 1:
            given = ", ".join(sorted(names)) or "none"
            raise ConfigError(
                f"Layers are compared within one base model; the runs given are of {given}."
            )
        base = self.baseline(names.pop())
        assert base is not None  # a run that is done has one
        return self.model(base)


def _name(record: RunRecord) -> str:
    return record.label if record.recipe.steps else f"{record.model} ({record.label})"
