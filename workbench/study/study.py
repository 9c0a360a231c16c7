"""A study: base models, one task, and every run on them.

:class:`Study` says what can be asked; what answers is one file per question, beside this one.
Opening a study loads neither torch nor a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.progress import Progress
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord
from workbench.selection.cost import CostModel
from workbench.selection.requirements import Requirements
from workbench.storage.store import Store
from workbench.study import (
    base_models,
    cascades,
    choosing,
    computing,
    curating,
    evaluation,
    exporting,
    handing_over,
    inspection,
    overview,
    predictions,
    report,
    searching,
    trust,
)
from workbench.study import next_step as advice
from workbench.study.cascades import Routed
from workbench.study.computing import Recipes
from workbench.study.next_step import NextStep
from workbench.study.run import Run
from workbench.study.searching import SearchResult
from workbench.study.trust import Trust
from workbench.study.workspace import Workspace
from workbench.views.curves import LossCurves
from workbench.views.lineage import Lineage, lineage
from workbench.views.sensitivity import Sensitivity

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.calibration.calibrate import CalibrationOptions
    from workbench.export import Exported, ExportOffer
    from workbench.models.load import LoadedModel
    from workbench.prediction.predict import Prediction
    from workbench.selection.cascades import Signal
    from workbench.selection.decision import Decision
    from workbench.selection.trust import Perturbation
    from workbench.study.running.runner import OnEvent
    from workbench.tasks import Task
    from workbench.tasks.outcomes import Outcomes
    from workbench.tasks.output import Output
    from workbench.views import Confusion, FlipsView, LayerErrors, WeightHistogram


class Study:
    """Base models, a task and the runs on them, kept in a folder.

    Parameters
    ----------
    model : LoadedModel, or what :func:`workbench.load_model` takes
        The base model; never changed.
    task : Task, or what :func:`workbench.load_task` takes
        What accuracy means.
    path : str or Path, optional
        The study's folder, made if it is not there. A study that is there is continued, if model
        and task are the same. Default: a temporary folder, deleted with the study.
    calibration : CalibrationOptions, optional
        How much calibration data is read. Default: what the study has, else the defaults.
    disk_budget_bytes : int, optional
        Limit for the compressed weights that are kept; see
        :meth:`workbench.storage.store.Store.create`.

    Raises
    ------
    StudyError
        If the folder cannot be used, or holds a study of another model or task.

    Examples
    --------
    >>> study = Study(model, task, path="runs/demo")  # doctest: +SKIP
    >>> study.sweep([RTN(4), GPTQ(4)])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: LoadedModel | str | Path | None = None,
        task: Task | str | Path | None = None,
        path: str | Path | None = None,
        *,
        calibration: CalibrationOptions | None = None,
        disk_budget_bytes: int | None = None,
    ) -> None:
        from workbench.tasks import load_task

        if model is None or task is None:
            where = "path" if path is None else repr(str(path))
            raise ConfigError(
                "A new study is of a model and a task: Study(model, task, path=...). One that is"
                f" there already is opened with Study.open({where})."
            )
        # What is wrong with the folder is said before minutes are spent on loading a model.
        temporary = None
        if path is None:
            temporary = tempfile.TemporaryDirectory(prefix="workbench-", ignore_cleanup_errors=True)
            warnings.warn(
                f"The study is kept in {temporary.name} and deleted with the study object. Give"
                " path=... to keep it.",
                stacklevel=2,
            )
        store = Store.create(
            temporary.name if temporary else path or "", disk_budget_bytes=disk_budget_bytes
        )
        self._workspace = Workspace(store, temporary)
        task = load_task(task)
        _check_task(store, task)
        loaded = base_models.base_model(model)
        known = {d["fingerprint"]: name for name, d in store.models().items()}
        if known and loaded.fingerprint not in known:
            raise StudyError(
                f"The study in {store.path} is of {', '.join(map(repr, known.values()))}, and the"
                f" model that was given ({loaded.source.name!r}) is another one. Give another path,"
                " or compare both in one study: Study.open(path).add_model(...)."
            )
        recorded = store.meta("task")
        if recorded is None:
            store.task_folder.mkdir(exist_ok=True)
            store.set_meta(
                "task",
                {
                    "name": task.name,
                    "fingerprint": task.fingerprint,
                    "metrics": [dataclasses.asdict(metric) for metric in task.metrics],
                    "saved": task.save(store.task_folder),
                },
            )
        elif (saved := task.saved_again(recorded["saved"])) != recorded["saved"]:
            store.set_meta("task", {**recorded, "saved": saved})
        if calibration is not None:
            options = dataclasses.asdict(calibration)
            if options != store.meta("calibration"):
                store.set_meta("calibration", options)
        self._workspace.given_task = task
        self._workspace.first_model = base_models.add(self._workspace, loaded, None)
        store.recover()
        evaluation.renew(self._workspace)

    @classmethod
    def open(cls, path: str | Path, *, metric: Callable[..., float] | None = None) -> Study:
        """Return the study in a folder; its model and task are loaded when a run needs them.

        Parameters
        ----------
        path : str or Path
            The folder.
        metric : callable, optional
            Your own metric, where the task was made with one: a study keeps its name and never
            runs what it names. What it has measured is shown without it.

        Raises
        ------
        StudyError
            If there is no study, it is damaged, or a newer version wrote it.
        """
        store = Store.open(path)
        if store.meta("task") is None or not store.models():
            raise StudyError(
                f"The study in {store.path} was never started: it has no task or no model. Start"
                " it with Study(model, task, path=...)."
            )
        study = cls.__new__(cls)
        study._workspace = Workspace(store)
        study._workspace.first_model = next(iter(store.models()))
        if metric is not None:
            from workbench.tasks.metric import use_metric

            use_metric(store.meta("task")["saved"], metric)
        with contextlib.suppress(StudyError):  # one that is read-only can still be looked at
            store.recover()
            evaluation.renew(study._workspace)
        return study

    def add_model(self, model: LoadedModel | str | Path, name: str | None = None) -> str:
        """Add another base model to compare with, and return its name within the study.

        Parameters
        ----------
        model : LoadedModel, or what :func:`workbench.load_model` takes
            A model that the study has already is not added again.
        name : str, optional
            For the table, the plot and ``study.run(..., model=name)``. Default: its own.

        Raises
        ------
        StudyError
            If the name is taken by another model.
        """
        return base_models.add(self._workspace, base_models.base_model(model), name)

    # What it is

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self._workspace.path

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the base models, in the order of their addition."""
        return self._workspace.models

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the task, then of the base models: what its runs are of."""
        models = self._workspace.store.models().values()
        return (
            self._workspace.store.meta("task")["fingerprint"],
            *(d["fingerprint"] for d in models),
        )

    @property
    def task(self) -> Task:
        """The task, loaded from the study's own snapshot if need be."""
        return self._workspace.task

    @property
    def output(self) -> Output:
        """What the task answers: labels, choices, tokens or text."""
        return self._workspace.output

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics; the first one decides where none is named."""
        return self._workspace.metrics

    @property
    def metric(self) -> Metric:
        """The task's first metric."""
        return self.metrics[0]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, oldest first, those of the base models included."""
        return tuple(self._run(record.id) for record in self._workspace.records())

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """What the journal says about all runs, oldest first."""
        return self._workspace.records()

    def __getitem__(self, run: str) -> Run:
        """Return a run by its label in the table, or by its id: ``study["GPTQ 4-bit g128"]``.

        Raises
        ------
        StudyError
            If there is none, or if runs of several base models have the label.
        """
        return self._run(overview.run_named(self._workspace, run))

    def baseline(self, model: str | None = None) -> Run | None:
        """Return the run of a base model itself, None if it has not been computed."""
        record = self._workspace.baseline(model)
        return None if record is None else self._run(record.id)

    # Computing runs

    def run(
        self,
        recipe: Recipe | Step | Iterable[Step],
        *,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Compute one recipe in this process and return its run; what is done is not done again.

        The base model is evaluated first if it was not yet. The model in memory is not changed.

        Parameters
        ----------
        recipe : Step, sequence of steps, or Recipe
            ``[]`` is the base model itself.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        Exception
            Whatever ended the run, after it was recorded; CancelledError after :meth:`cancel`.
        """
        return self._run(
            computing.run(self._workspace, recipe, model=model, on_progress=on_progress)
        )

    def sweep(
        self,
        recipes: Recipes,
        *,
        model: str | None = None,
        on_event: OnEvent | None = None,
    ) -> list[Run]:
        """Compute several recipes in this process, one after the other, and return their runs.

        A run that fails is recorded with its reason, and the next one is computed. A sweep that
        was interrupted goes on where it stopped when it is started again.

        Parameters
        ----------
        recipes : iterable
            Of steps, sequences of steps, or recipes.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.study.running.runner.Event`.

        Returns
        -------
        list of Run
            One per recipe that was started, in order; the same run for the same recipe. Look at
            ``run.state``.
        """
        ids = computing.sweep(self._workspace, recipes, model=model, on_event=on_event)
        return [self._run(id) for id in ids]

    def submit(
        self,
        recipes: Recipes,
        *,
        model: str | None = None,
        on_event: OnEvent | None = None,
    ) -> list[int]:
        """Queue recipes for the study's worker process and return at once.

        They go before predictions, also before those that are being made, which go on later.

        Parameters
        ----------
        recipes : iterable
            Of steps, sequences of steps, or recipes.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.study.running.runner.Event`, in a background thread.

        Returns
        -------
        list of int
            The numbers of the jobs, as events name them; a baseline that is missing adds one.
        """
        return computing.submit(self._workspace, recipes, model=model, on_event=on_event)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything submitted has ended; return whether it has."""
        return self._workspace.wait(timeout)

    def cancel(self, *, current_only: bool = False, job: int | None = None) -> None:
        """Stop what is being computed, within three seconds, and forget what waits.

        Parameters
        ----------
        current_only : bool
            Go on with what waits.
        job : int, optional
            Number of one job, as :meth:`submit` returns it: only that one is stopped or forgotten.
        """
        computing.cancel(self._workspace, current_only=current_only, job=job)

    @property
    def queue(self) -> tuple[int, ...]:
        """Numbers of the jobs that wait for the worker process, the next one first."""
        return self._workspace.worker.waiting

    def move(self, job: int, places: int) -> None:
        """Let a job that waits go before (a negative number) or after so many others."""
        self._workspace.worker.move(job, places)

    def model(self, run: Run | str) -> LoadedModel:
        """Return a run's model: the base model's architecture with the compressed weights in place.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.

        Returns
        -------
        LoadedModel
            A copy, for you to keep or change.
        """
        return self._workspace.engine.model(self._workspace.id_of(run))

    def measure(
        self,
        run: Run | str,
        *,
        repeats: int = 7,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Measurement, ...]:
        """Measure memory and time of a run's model on this machine, and record them on the run.

        The compressed layers run from their codes where there is a kernel; what ran how is in
        ``how`` of every measurement, and where in ``conditions``. It is done in this process, not
        in the worker, which may be computing other runs: do not measure while it is. Measure the
        baseline too, to see what is faster than what: ``study.measure(study.baseline())``. A run
        that is measured again keeps its earlier rows, and the newest count.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        repeats : int
            At least 3; medians of so many are recorded with their interquartile range.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        tuple of Measurement
            See :func:`workbench.runtime.measure.measure_model`.

        Raises
        ------
        StudyError
            If the run is not done, the worker is computing, or the study cannot be written.
        """
        return computing.measure(self._workspace, run, repeats=repeats, on_progress=on_progress)

    # Keeping order among runs

    def select(
        self,
        text: str = "",
        *,
        tags: str | Iterable[str] = (),
        starred: bool | None = None,
        hidden: bool | None = None,
        state: str | None = None,
    ) -> list[Run]:
        """Return the runs that match all that is given, oldest first.

        Parameters
        ----------
        text : str
            Words, each of which is in the run's id, name, recipe, model, note, tags or state.
        tags : str or iterable of str
            It has all of these.
        starred, hidden : bool, optional
        state : str, optional
            Such as ``"done"`` or ``"failed"``.
        """
        found = curating.select(
            self.records, text, tags=tags, starred=starred, hidden=hidden, state=state
        )
        return [self._run(record.id) for record in found]

    def delete(self, runs: Run | str | Iterable[Run | str]) -> int:
        """Delete runs with their outcomes, and weights that no other run has the same of.

        Runs that continue from one are kept, and its training is computed again if it is needed.
        The journal keeps that it was there; see :attr:`deletions`.

        Parameters
        ----------
        runs : Run, str, or several

        Returns
        -------
        int
            The bytes that were freed.

        Raises
        ------
        StudyError
            If one is being computed, or is the base model that others are compared to.
        """
        return curating.delete(self._workspace, runs)

    def would_free(self, runs: Run | str | Iterable[Run | str]) -> int:
        """Return the bytes that :meth:`delete` would free; nothing is deleted."""
        return curating.would_free(self._workspace, runs)

    @property
    def deletions(self) -> pd.DataFrame:
        """Runs that were deleted: id, model, recipe, label, when, and the bytes that it freed."""
        return curating.deletions(self._workspace)

    def disk_use(self) -> dict[str, int]:
        """Return the bytes of the study's folder by what they are for, such as ``"weights"``."""
        return self._workspace.store.disk_use()

    def clean(self, parts: str | Iterable[str] = ("statistics", "checkpoints")) -> int:
        """Remove files that are made again when they are needed, and return the bytes freed.

        Parameters
        ----------
        parts : str or iterable of str
            Of ``"weights"`` (a run's model is then computed again, which may take long),
            ``"statistics"``, ``"predictions"`` and ``"checkpoints"`` (of trainings that would go
            on).

        Raises
        ------
        StudyError
            If a run is being computed.
        """
        return curating.clean(self._workspace, parts)

    # Predicting what is not run yet

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
        predictions.tabulate(self._workspace, model=model, on_progress=on_progress)

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
            Called with every :class:`workbench.study.running.runner.Event`, in a background thread.

        Returns
        -------
        list of int
            The numbers of the jobs; a baseline that is missing adds one.
        """
        return self._workspace.worker.submit([(self._workspace.model_named(model), None)], on_event)

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
        ready = predictions.forecast(self._workspace, model, metric, on_progress)
        return ready.predict(Recipe.of(recipe))

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
        ready = predictions.ready_forecast(self._workspace, model, metric)
        return None if ready is None else ready.predict(Recipe.of(recipe))

    def lacks_predictions(self, model: str | None = None) -> bool:
        """Return whether :meth:`tabulate` has something left to do; nothing is computed."""
        return predictions.lacks_predictions(self._workspace, model)

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
        ready = predictions.forecast(self._workspace, model, metric, on_progress)
        return ready.frontier(n_mixed)

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
        ready = predictions.forecast(self._workspace, model, None, on_progress)
        return Sensitivity(ready.sensitivity(steps))

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
        return predictions.fit(
            self._workspace,
            size_bytes=size_bytes,
            bits_per_weight=bits_per_weight,
            verify=verify,
            model=model,
            metric=metric,
            on_progress=on_progress,
        )

    # Seeing and choosing

    def describe(self) -> dict[str, Any]:
        """Return what the study records of its models and its task, without loading either.

        Returns
        -------
        dict
            ``"models"``: by name, a dict with ``kind``, ``ref``, ``architecture``,
            ``n_parameters``, ``size_bytes`` and ``compute_dtype``; ``"task"``: its ``name`` and
            ``kind``.
        """
        return overview.describe(self._workspace)

    def table(self, metric: str | None = None, *, hidden: bool = False) -> pd.DataFrame:
        """Return one row per run; see :func:`workbench.selection.compare.table`.

        Parameters
        ----------
        metric : str, optional
            Decides the column ``pareto``. Default: the task's first.
        hidden : bool
            Whether hidden runs are among them.
        """
        from workbench.selection import compare

        records = self._workspace.records()
        chosen = records if hidden else curating.shown_records(records)
        return compare.table(chosen, self._workspace.metric_named(metric))

    def plot(
        self,
        metric: str | None = None,
        *,
        x: str = "size",
        y: str | None = None,
        predicted: bool | None = None,
    ) -> go.Figure:
        """Return a plotly figure of a metric against size, with the Pareto front.

        Parameters
        ----------
        metric : str, optional
            Default: the task's first.
        x : {"size", "latency", "memory"}
            What the metric is drawn against; the last two are of runs that were measured with
            :meth:`measure`.
        y : str, optional
            Another name for ``metric``.
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
        if metric is not None and y is not None:
            raise ConfigError(
                f"plot({metric!r}, y={y!r}) names the metric twice; give one of them."
            )
        chosen = y if metric is None else metric
        return overview.plot(self._workspace, chosen, x=x, predicted=predicted)

    def lineage(self, metric: str | None = None) -> Lineage:
        """Return the tree of runs: which recipe continues which.

        Parameters
        ----------
        metric : str, optional
            What nodes are coloured by. Default: the task's first.
        """
        return lineage(self._workspace.records(), self._workspace.metric_named(metric))

    def choose(
        self,
        accuracy: float | Requirements | None = None,
        *,
        relative: bool = True,
        size_bytes: float | None = None,
        size_mb: float | None = None,
        latency_ms: float | None = None,
        metric: str | None = None,
        model: str | None = None,
        reference: Run | str | None = None,
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
        size_mb : float, optional
            ``size_bytes`` in megabytes (10⁶ bytes).
        metric : str, optional
            Default: the task's first.
        model : str, optional
            The base model that quality refers to. Default: the study's first. The runs of all
            base models are candidates.
        reference : Run or str, optional
            The run that quality refers to in place of the base model, such as a fine-tuned teacher.
        """
        if size_mb is not None:
            if size_bytes is not None:
                raise ConfigError(
                    f"size_bytes={size_bytes!r} and size_mb={size_mb!r} are one limit; give one."
                )
            # What is no number is refused with the others, as size_bytes.
            size_bytes = size_mb * 1e6 if isinstance(size_mb, (int, float)) else size_mb
        return choosing.choose(
            self._workspace,
            accuracy,
            relative=relative,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
            metric=metric,
            model=model,
            reference=reference,
        )

    def search(
        self,
        requirements: Requirements | float,
        *,
        budget_minutes: float = 30.0,
        metric: str | None = None,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_event: OnEvent | None = None,
        in_worker: bool = False,
    ) -> SearchResult:
        """Search for the smallest run that passes, and return it with the proof, or the nearest.

        Predictions say which recipe is expected to save most, a run verifies it, and what came of
        it teaches the predictions. Where no quantization is left that is likely to pass, smaller
        ones are tried with a training behind (distilled scales, or a low-rank product). What
        passes is decided as :meth:`choose` does, on all runs of the study. Finished runs are kept,
        and the same search goes on from them, also after Ctrl-C or :meth:`cancel`.

        Which recipe is tried next follows from what others scored on the evaluation part. The
        confidence is meant for the runs that were tried; ``benchmarks/search.py --simulate`` says
        how often a search chooses a run that truly fails.

        Parameters
        ----------
        requirements : Requirements or float
            The bar; a number is the least share of the base model's quality, with 95 % confidence.
        budget_minutes : float
            The most time it takes, in all. The first search in a study makes its predictions first.
        metric : str, optional
            Default: the task's first.
        model : str, optional
            Name of the base model that is made smaller. Default: the study's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`; of stage ``"search"`` are the
            trials, in seconds of the budget.
        on_event : callable, optional
            With ``in_worker`` called with every event of the worker.
        in_worker : bool
            Compute in the study's worker process, which keeps this one free of models. The call
            returns when the search has ended in any case.

        Raises
        ------
        ConfigError
            If no quality is asked for.
        StudyError
            If the base model cannot be evaluated.

        Examples
        --------
        >>> found = study.search(0.97, budget_minutes=30)  # doctest: +SKIP
        >>> print(found)  # doctest: +SKIP
        """
        return searching.Search(
            self._workspace,
            requirements,
            budget_minutes,
            model=model,
            metric=metric,
            on_progress=on_progress,
            on_event=on_event,
            in_worker=in_worker,
        ).run()

    def next_step(
        self,
        requirements: Requirements | float = 0.97,
        *,
        metric: str | None = None,
        model: str | None = None,
    ) -> NextStep:
        """Return the most useful thing to do next, computed from all that is known; nothing is run.

        That is the recipe with the largest expected saving, the number of examples that would tell
        of a run whether it passes, or the run to keep.

        Parameters
        ----------
        requirements : Requirements or float
            As for :meth:`search`.
        metric, model : str, optional
            As for :meth:`search`.

        Returns
        -------
        NextStep
            With ``kind``, ``text``, ``recipe`` and ``run``.
        """
        return advice.next_step(self._workspace, requirements, metric=metric, model=model)

    # Looking into a few runs

    def differences(self, runs: Iterable[Run | str]) -> pd.DataFrame:
        """Return runs side by side, one row per fact; see :func:`workbench.views.differences`."""
        return inspection.differences(self._workspace, runs)

    def flips(self, before: Run | str, after: Run | str, *, texts: bool = True) -> FlipsView:
        """Return the examples on which two runs differ, and whether it is better or worse.

        Parameters
        ----------
        before, after : Run or str
            Finished runs, or their ids.
        texts : bool
            Whether the examples' texts are looked up, which loads the model's tokenizer.
        """
        return inspection.flips(self._workspace, before, after, texts=texts)

    def confusion(self, run: Run | str) -> Confusion:
        """Return which labels a run mistakes for which; only for classification tasks."""
        return inspection.confusion(self._workspace, run)

    def layer_errors(self, runs: Iterable[Run | str]) -> LayerErrors:
        """Return the relative squared error of every layer's weight, by run.

        Parameters
        ----------
        runs : iterable of Run or str
            Finished runs of one base model.
        """
        return inspection.layer_errors(self._workspace, runs)

    def loss_curves(self, runs: Iterable[Run | str] | None = None) -> LossCurves:
        """Return how the trainings of runs went: losses by step, with ``.table`` and ``.plot()``.

        Parameters
        ----------
        runs : iterable of Run or str, optional
            Default: all that trained in their last step or steps and are not hidden.
        """
        return inspection.curves(self._workspace, runs)

    def weight_histogram(self, run: Run | str, layer: str) -> WeightHistogram:
        """Return how a layer's weights are distributed before and after compression."""
        return inspection.weight_histogram(self._workspace, run, layer)

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
        return inspection.side_by_side(self._workspace, prompt, runs, max_new_tokens=max_new_tokens)

    def try_out(
        self, text: str, runs: Iterable[Run | str], *, max_new_tokens: int = 40
    ) -> pd.DataFrame:
        """Return what several runs answer to one text: a label and how sure, or a continuation.

        Parameters
        ----------
        text : str
            To be classified, continued, or answered by an encoder-decoder.
        runs : iterable of Run or str
            Finished runs, or their ids.
        max_new_tokens : int
            Of a continuation.

        Returns
        -------
        DataFrame
            One row per run: ``name``, ``answer``, ``confidence`` and ``others`` (the next likely
            labels) of a classifier, ``seconds`` that it took here, with the weights unpacked;
            ``size_mb``, and ``latency_ms`` and ``memory_mb`` where :meth:`measure` recorded them.
        """
        return inspection.try_out(self._workspace, text, runs, max_new_tokens=max_new_tokens)

    # Trusting answers

    def outcomes(
        self,
        run: Run | str,
        part: str = "evaluation",
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcomes:
        """Return per-example outcomes of a part of the data; what was not evaluated yet is.

        Outcomes of the validation part are what thresholds and temperatures are chosen by. They
        are kept in the study beside the evaluation's.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        part : {"evaluation", "validation", "calibration"}
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        StudyError
            If the run is not done.
        """
        return evaluation.outcomes(self._workspace, run, part, on_progress=on_progress)

    def trust(
        self,
        run: Run | str,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        threshold: float = 0.9,
        bins: int = 15,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Trust:
        """Say when a run's answers can be believed, for a classification task.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        columns : mapping of str to sequence, optional
            Further columns to slice by, one value per row of the evaluation part. Length, label
            and the task's own ``columns`` are looked at anyway.
        threshold : float
            Confidence from which a mistake is a confident one.
        bins : int
            Of the reliability diagram.
        on_progress : callable, optional
            The validation part is evaluated the first time.

        Raises
        ------
        ConfigError
            If the task is no classification.
        StudyError
            If the run or its base model is not done.
        """
        return trust.trust(
            self._workspace,
            run,
            columns=columns,
            threshold=threshold,
            bins=bins,
            on_progress=on_progress,
        )

    def consistency(
        self,
        run: Run | str,
        perturbations: Mapping[str, Perturbation | str] | None = None,
        *,
        seed: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> pd.DataFrame:
        """Change the texts a little and see whether the answers stay; the model is run for each.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        perturbations : mapping of str to callable or str, optional
            A function of a text and a ``random.Random``, or a template such as
            ``"Dear team, {text}"``. Default: :data:`workbench.selection.trust.PERTURBATIONS`.
        seed : int
            Of what is drawn by chance.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        DataFrame
            One row each: share of the answers that stay with its 95 % interval, accuracy, and its
            change with its paired 95 % interval.
        """
        return trust.consistency(
            self._workspace, run, perturbations, seed=seed, on_progress=on_progress
        )

    # Routing, costs and the report

    def cascade(
        self,
        runs: Sequence[Run | str],
        *,
        signal: str | Signal = "confidence",
        accuracy: float = 1.0,
        cost: str | CostModel | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Routed:
        """Let a small model answer what it is sure of, and ask a larger one for the rest.

        Nothing is run but, the first time, the validation part of each model. Thresholds are the
        cheapest that reach the accuracy on the validation part; all that is reported is of the
        evaluation part.

        Parameters
        ----------
        runs : sequence of Run or str
            Two or more finished runs, the one that is asked first at the front.
        signal : {"confidence", "margin", "entropy"} or callable
            How sure a model is; a callable takes log-probabilities (examples, classes) and returns
            one number each, higher if surer.
        accuracy : float
            Least share of the last model's accuracy.
        cost : {"latency", "size"} or CostModel, optional
            What a query to a model costs: measured milliseconds, the megabytes that are read, or
            dollars. Default: latency if it was measured for all of them, else size.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        ConfigError
            If the task is no classification, or there are fewer than two runs.
        StudyError
            If a cost was not measured.
        """
        return cascades.cascade(
            self._workspace,
            runs,
            signal=signal,
            accuracy=accuracy,
            cost=cost,
            on_progress=on_progress,
        )

    def costs(self, prices: CostModel, *, model: str | None = None) -> pd.DataFrame:
        """Return what every measured run costs, beside the base model and a service's price.

        Parameters
        ----------
        prices : CostModel
            Yours.
        model : str, optional
            The base model that is compared with. Default: the study's first.

        Returns
        -------
        DataFrame
            One row per run that was measured; dollars. ``of_baseline`` and ``of_api`` are ratios.
            A warning says if there is none.

        Raises
        ------
        StudyError
            If the runs were measured on different machines.
        """
        return overview.costs(self._workspace, prices, model=model)

    def report(
        self,
        path: str | Path = "report.html",
        requirements: Requirements | float | None = None,
        *,
        question: str = "",
        cost: CostModel | None = None,
        cascade: Routed | None = None,
        trust: Trust | bool | None = None,
        metric: str | None = None,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Path:
        """Write one self-contained page: the question, the bar, the choice, its cost and faults.

        It needs no network and no script, fits a phone, and prints.

        Parameters
        ----------
        path : str or Path
            Of the file, replaced if it is there.
        requirements : Requirements or float, optional
            The bar, or the share of the base model's quality that it asks for. Default: 0.97.
        question : str
            What is to be decided, in your words.
        cost : CostModel, optional
            Default: that of the requirements.
        cascade : Routed, optional
            From :meth:`cascade`.
        trust : Trust or bool, optional
            From :meth:`trust`. Default (None or True): made for the chosen run where the task is
            a classification, which evaluates the validation part the first time; False for none.
        metric, model : str, optional
            As for :meth:`choose`.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ConfigError
            If the file cannot be written.
        """
        return report.report(
            self._workspace,
            path,
            requirements,
            question=question,
            cost=cost,
            cascade=cascade,
            trust=trust,
            metric=metric,
            model=model,
            on_progress=on_progress,
        )

    # Exporting

    def export(
        self,
        run: Run | str,
        path: str | os.PathLike[str],
        format: str = "hf",
        *,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Exported:
        """Write a run's model to a folder in a format that other programs load.

        What was written is loaded again, and its predictions for evaluation inputs are compared
        with the run's; only then does the folder appear under its name. The bytes on disk, the KL
        divergence and the largest difference of a logit are recorded on the run
        (``part="export"``). A model card is written beside the weights. A layer whose codes the
        format cannot hold is written densely where its loaders allow that; the result and the card
        name it.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        path : str or path
            The folder; made with its parents.
        format : str
            A name of :data:`workbench.export.FORMATS`; :meth:`export_offers` says which can
            hold the run's model.
        overwrite : bool
            Whether an earlier export in that place is replaced, once the new one is complete.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        ExportError
            If the format cannot hold the model (the message names the nearest that can), the
            folder cannot be written, or what was written predicts otherwise. What was there
            before is still there.
        StudyError
            If the run is not done.
        """
        return exporting.export(
            self._workspace, run, path, format, overwrite=overwrite, on_progress=on_progress
        )

    def export_offers(self, run: Run | str) -> tuple[ExportOffer, ...]:
        """Return for every format whether a run's model fits into it, how large, or why not."""
        return exporting.export_offers(self._workspace, run)

    def export_bytes(self, run: Run | str, format: str) -> int:
        """Return the bytes that all tensors of a run's export will have; nothing is written.

        Raises
        ------
        ExportError
            If the format cannot hold the model.
        """
        return exporting.export_bytes(self._workspace, run, format)

    # Handing over

    def points(self, metric: str | None = None) -> pd.DataFrame:
        """Return every run, and what is predicted on the front, as one table.

        Its column ``kind`` says which is which; ``recipe_json`` makes the recipe again.
        """
        return handing_over.points(self._workspace, metric)

    def save_points(self, path: str | Path, metric: str | None = None) -> Path:
        """Write :meth:`points` to a file, ``.csv`` or ``.json``, and return it.

        Raises
        ------
        ConfigError
            If the file has another ending, or cannot be written.
        """
        return handing_over.save_points(self._workspace, path, metric)

    def log_to_mlflow(
        self,
        runs: Iterable[Run | str] | None = None,
        *,
        tracking_uri: str | Path | None = None,
        experiment: str | None = None,
    ) -> list[str]:
        """Log finished runs to MLflow, each once: recipe, measurements, times and losses.

        Parameters
        ----------
        runs : iterable of Run or str, optional
            Default: all that are finished.
        tracking_uri : str or Path, optional
            A server, or a folder's ``file:`` address. Default: MLflow's own, such as
            ``MLFLOW_TRACKING_URI``.
        experiment : str, optional
            Default: of the task's name.

        Returns
        -------
        list of str
            The ids that MLflow gave, in order.

        Raises
        ------
        ConfigError
            If MLflow is not installed (extra ``mlflow``).
        StudyError
            If it refuses what is logged.
        """
        return handing_over.log_to_mlflow(
            self._workspace, runs, tracking_uri=tracking_uri, experiment=experiment
        )

    # Its end

    @property
    def is_open(self) -> bool:
        """Whether it can compute in its worker process: it was not closed."""
        return self._workspace.is_open

    def close(self) -> None:
        """End the worker process, if there is one, and remove a temporary study's folder."""
        self._workspace.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self.is_open and self._workspace.is_temporary:
            return "<Study closed>"
        where = f"{self.path} (temporary)" if self._workspace.is_temporary else str(self.path)
        task = self._workspace.task_name
        models = ", ".join(self.models)
        count = len(self._workspace.records())
        return f"<Study of {models} on {task}, {count} run{'s' * (count != 1)}, in {where}>"

    def _run(self, id: str) -> Run:
        return Run(self._workspace, id)


def _check_task(store: Store, task: Task) -> None:
    recorded = store.meta("task")
    if recorded is None or recorded["fingerprint"] == task.fingerprint:
        return
    raise StudyError(
        f"The study in {store.path} is on the task {recorded['name']!r} (fingerprint"
        f" {recorded['fingerprint']}), and the task that was given, {task.name!r}"
        f" ({task.fingerprint}), has other data or options, so their runs cannot be compared."
        " Give another path for the new task, or use Study.open(path) to go on with the"
        " recorded one."
    )
