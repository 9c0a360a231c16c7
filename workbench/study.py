"""A study: base models, one task, and every run on them. Opening one loads neither torch nor model.

A :class:`Run` is a handle: it holds an id and reads the journal anew whenever it is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.progress import SILENT, Monitor, Progress
from workbench.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.steps import Step
from workbench.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.calibrate import CalibrationOptions
    from workbench.compare import Interval
    from workbench.cost_table import CostTable
    from workbench.engine import Engine
    from workbench.forecast import Forecast
    from workbench.models import LoadedModel
    from workbench.outcomes import Outcomes
    from workbench.predict import Prediction
    from workbench.sweep import InlineRunner, OnEvent, WorkerRunner
    from workbench.tasks import Task

Recipes = Iterable["Recipe | Step | Iterable[Step]"]


class Run:
    """A read-only handle on one run of a study. Runs with the same id are equal."""

    def __init__(self, study: Study, id: str) -> None:
        self._study = study
        self._id = id

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of everything that changes the answer."""
        return self._id

    @property
    def record(self) -> RunRecord:
        """What the journal says about the run now.

        Raises
        ------
        StudyError
            If the run was deleted.
        """
        record = self._study._store.record(self._id)
        if record is None:
            raise StudyError(f"Run {self._id} was deleted from {self._study.path}.")
        return record

    @property
    def state(self) -> RunState:
        """Where the run is in its life."""
        return self.record.state

    @property
    def label(self) -> str:
        """The recipe in words."""
        return self.record.label

    @property
    def recipe(self) -> Recipe:
        """The steps; none for a base model."""
        return self.record.recipe

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every number that was measured on the run, oldest first."""
        return self.record.measurements

    @property
    def size_bytes(self) -> int | None:
        """Tensor bytes in the canonical packing; None unless the run is done."""
        return self.record.size_bytes

    @property
    def error(self) -> str | None:
        """Why the run has no result, for people."""
        return self.record.error

    @property
    def parent(self) -> Run | None:
        """The run of the base model, or of the first steps of the recipe where there is one."""
        parent = self.record.parent
        return None if parent is None else Run(self._study, parent)

    def outcomes(self) -> Outcomes:
        """Return the per-example outcomes of the evaluation."""
        return self._study._store.outcomes(self._id)

    def model(self) -> LoadedModel:
        """Return the model with the compressed weights in place; see :meth:`Study.model`."""
        return self._study.model(self)

    def measure(
        self, *, repeats: int = 7, on_progress: Callable[[Progress], None] | None = None
    ) -> tuple[Measurement, ...]:
        """Measure memory and time on this machine; see :meth:`Study.measure`."""
        return self._study.measure(self, repeats=repeats, on_progress=on_progress)

    def delete(self) -> None:
        """Delete the run; see :meth:`Study.delete`."""
        self._study.delete(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Run):
            return NotImplemented
        return self._id == other._id and self._study.path == other._study.path

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        record = self._study._store.record(self._id)
        if record is None:
            return f"<Run {self._id} deleted>"
        text = f"{record.model}, {record.label}, {record.state.value}"
        if record.size_bytes is not None:
            text += f", {record.size_bytes / 1e6:.2f} MB"
        found = record.measurement(self._study.metric.name)
        if found is not None:
            text += f", {found.metric} {found.value:.4g}"
        if record.error:
            text += f", {record.error.splitlines()[0][:100]}"
        return f"<Run {self._id} {text}>"


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
        from workbench.plots import sensitivity_figure

        return sensitivity_figure(self.table)

    def _repr_html_(self) -> str:
        return str(self.table.to_html(float_format="{:.2g}".format, border=0))


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
        Limit for the compressed weights that are kept; see :meth:`workbench.store.Store.create`.

    Raises
    ------
    StudyError
        If the folder cannot be used, or holds a study of another model or task.

    Examples
    --------
    >>> study = Study(model, task, path="runs/demo")  # doctest: +SKIP
    >>> study.sweep([RTN(4), GPTQ(4)])  # doctest: +SKIP
    """

    _given_task: Task | None

    def __init__(
        self,
        model: LoadedModel | str | Path,
        task: Task | str | Path,
        path: str | Path | None = None,
        *,
        calibration: CalibrationOptions | None = None,
        disk_budget_bytes: int | None = None,
    ) -> None:
        from workbench.tasks import load_task

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
        self._setup(store, temporary)
        task = load_task(task)
        self._check_task(task)
        loaded = _loaded(model)
        _check_dense(loaded)
        known = {d["fingerprint"]: name for name, d in store.models().items()}
        if known and loaded.fingerprint not in known:
            raise StudyError(
                f"The study in {store.path} is of {', '.join(map(repr, known.values()))}, and the"
                f" model that was given ({loaded.source.name!r}) is another one. Give another path,"
                " or compare both in one study: Study.open(path).add_model(...)."
            )
        if store.meta("task") is None:
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
        if calibration is not None:
            options = dataclasses.asdict(calibration)
            if options != store.meta("calibration"):
                store.set_meta("calibration", options)
        self._given_task = task
        self._default = self._add(loaded, None)
        store.recover()

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Return the study in a folder; its model and task are loaded when a run needs them.

        Raises
        ------
        StudyError
            If there is no study, it is damaged, or a newer version wrote it.
        """
        store = Store.open(path)
        study = cls.__new__(cls)
        study._setup(store, None)
        if store.meta("task") is None or not store.models():
            raise StudyError(
                f"The study in {store.path} was never started: it has no task or no model. Start"
                " it with Study(model, task, path=...)."
            )
        study._default = next(iter(store.models()))
        with contextlib.suppress(StudyError):  # one that is read-only can still be looked at
            store.recover()
        return study

    def _setup(self, store: Store, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
        self._store = store
        self._is_temporary = temporary is not None
        self._given_task = None
        self._models: dict[str, LoadedModel] = {}
        self._default = ""
        self._tables: dict[str, tuple[object, CostTable]] = {}
        self._lock = threading.RLock()
        self._inline: InlineRunner | None = None
        self._engine: Engine | None = None
        self._resources = _Resources(temporary)
        self._finalizer = weakref.finalize(self, self._resources.release)

    # What it is

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self._store.path

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the base models, in the order of their addition."""
        return tuple(self._store.models())

    @property
    def task(self) -> Task:
        """The task, loaded from the study's own snapshot if need be."""
        return self._get_engine().task

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics; the first one decides where none is named."""
        return tuple(Metric(**metric) for metric in self._store.meta("task")["metrics"])

    @property
    def metric(self) -> Metric:
        """The task's first metric."""
        return self.metrics[0]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, oldest first, those of the base models included."""
        return tuple(Run(self, record.id) for record in self._store.records())

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """What the journal says about all runs, oldest first."""
        return self._store.records()

    def baseline(self, model: str | None = None) -> Run | None:
        """Return the run of a base model itself, None if it has not been computed."""
        name = self._name(model)
        found = [r for r in self._store.records() if r.model == name and not r.recipe.steps]
        return Run(self, found[0].id) if found else None

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
        loaded = _loaded(model)
        _check_dense(loaded)
        return self._add(loaded, name)

    def _add(self, model: LoadedModel, name: str | None) -> str:
        from workbench.engine import describe_model

        models = self._store.models()
        for known, description in models.items():
            if description["fingerprint"] == model.fingerprint and name in (None, known):
                self._attach(known, model)
                return known
        if name is not None and (not name.strip() or len(name) > 100):
            raise ConfigError(f"name={name!r} is not accepted; give 1 to 100 characters.")
        wanted = name or model.source.name
        chosen, number = wanted, 1
        while name is None and chosen in models:
            number += 1
            chosen = f"{wanted}-{number}"
        if chosen in models:
            raise StudyError(
                f"The study has another model named {chosen!r} already; give another name."
            )
        description = describe_model(self._store, chosen, model)
        try:
            self._store.add_model(chosen, description)
        except StudyError:  # another process may have added the same one at the same time
            if self._store.models().get(chosen, {}).get("fingerprint") != model.fingerprint:
                raise
        self._attach(chosen, model)
        return chosen

    def _attach(self, name: str, model: LoadedModel) -> None:
        with self._lock:
            self._models[name] = model
            if self._engine is not None:
                self._engine.attach(name, model)

    # Computing

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
        runs = self._compute([Recipe.of(recipe)], model, _only_progress(on_progress))
        for execution in self._get_inline().executions:
            if execution.error is not None:
                raise execution.error
        return runs[-1]

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
            Called with every :class:`workbench.sweep.Event`.

        Returns
        -------
        list of Run
            One per recipe that was started, in order; the same run for the same recipe. Look at
            ``run.state``.
        """
        runs = self._compute(_recipes(recipes), model, on_event)
        failed = [run for run in dict.fromkeys(runs) if run.state is RunState.FAILED]
        if failed:
            first = failed[0].record
            warnings.warn(
                f"{len(failed)} of {len(set(runs))} runs failed; the table has the reasons. The"
                f" first, {first.label}: {first.error}",
                stacklevel=2,
            )
        return runs

    def submit(
        self,
        recipes: Recipes,
        *,
        model: str | None = None,
        on_event: OnEvent | None = None,
    ) -> list[int]:
        """Queue recipes for the study's worker process and return at once.

        Parameters
        ----------
        recipes : iterable
            Of steps, sequences of steps, or recipes.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.sweep.Event`, in a background thread.

        Returns
        -------
        list of int
            The numbers of the jobs, as events name them; a baseline that is missing adds one.
        """
        name = self._name(model)
        jobs = [(name, recipe) for recipe in _recipes(recipes)]
        return self._get_worker().submit(jobs, on_event)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything submitted has ended; return whether it has."""
        worker = self._resources.worker
        return True if worker is None else worker.wait(timeout)

    def cancel(self, *, current_only: bool = False) -> None:
        """Stop what is being computed, within three seconds, and forget what waits.

        Parameters
        ----------
        current_only : bool
            Go on with what waits.
        """
        for runner in (self._resources.worker, self._inline):
            if runner is not None:
                runner.cancel() if current_only else runner.cancel_all()

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
        return self._get_engine().model(self._id_of(run))

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
            See :func:`workbench.measure.measure_model`.

        Raises
        ------
        StudyError
            If the run is not done, the worker is computing, or the study cannot be written.
        """
        from workbench.measure import measure_model
        from workbench.progress import Monitor

        worker = self._resources.worker
        if worker is not None and not worker.wait(0):
            raise StudyError(
                "The worker process is computing runs, which would spoil the times. Wait with"
                " study.wait(), or stop it with study.cancel()."
            )
        id = self._id_of(run)
        self._store.add_measurements(id, ())  # raises now if nothing could be written later
        model = self._get_engine().model(id)
        found = measure_model(model, self.task, repeats=repeats, monitor=Monitor(on_progress))
        self._store.add_measurements(id, found)
        return found

    def delete(self, run: Run | str) -> None:
        """Delete a run with its outcomes, and its weights unless another run has the same.

        Raises
        ------
        StudyError
            If it is being computed, or is the base model that others are compared to.
        """
        self._store.delete(self._id_of(run))

    # Predicting

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
        from workbench.forecast import is_complete

        name = self._name(model)
        table = self._table(name)
        if table is not None and is_complete(table) and self._has_baseline(name):
            return
        self._compute([Recipe()], name, _only_progress(on_progress))
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
            Called with every :class:`workbench.sweep.Event`, in a background thread.

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
    ) -> Prediction:
        """Predict a recipe without running it; milliseconds once :meth:`tabulate` has run.

        Parameters
        ----------
        recipe : Step, sequence of steps, or Recipe
        model : str, optional
            Name of the base model. Default: the study's first.
        metric : str, optional
            Default: the task's first.

        Returns
        -------
        Prediction
            With no loss, and the reason, for steps that no table knows (training, structure).
        """
        return self._forecast(model, metric).predict(Recipe.of(recipe))

    def frontier(
        self, *, model: str | None = None, metric: str | None = None, n_mixed: int = 12
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
        """
        return self._forecast(model, metric).frontier(n_mixed)

    def sensitivity(
        self, steps: Iterable[Step] | None = None, *, model: str | None = None
    ) -> Sensitivity:
        """Return how much each group of layers costs under each step, as a table and a heatmap.

        Parameters
        ----------
        steps : iterable of Step, optional
            Default: everything that is tabulated.
        model : str, optional
            Name of the base model. Default: the study's first.
        """
        forecast = self._forecast(model, None)
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
        found = self._forecast(model, None).candidates(
            size_bytes=size_bytes, bits_per_weight=bits_per_weight
        )
        if verify == 0:
            return found[0].recipe
        runs = self._compute([p.recipe for p in found[:verify]], model, _only_progress(on_progress))
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

    def _forecast(self, model: str | None, metric: str | None) -> Forecast:
        from workbench.forecast import Forecast

        name, decisive = self._name(model), self._metric(metric)
        self.tabulate(model=name)
        table = self._table(name)
        if table is None:
            raise StudyError(f"The predictions of {name!r} were deleted while they were made.")
        return Forecast(table, self._store.records(), name, decisive)

    def _has_baseline(self, name: str) -> bool:
        from workbench.engine import run_id

        record = self._store.record(run_id(self._store, name, Recipe()))
        return record is not None and record.state is RunState.DONE

    def _table(self, name: str) -> CostTable | None:
        """Return the table of costs as its file is now, which another process may have written."""
        from workbench.cost_table import CostTable
        from workbench.forecast import find_table

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
        from workbench.compare import is_baseline, is_measured

        decisive, records = self._metric(metric), self._store.records()
        measured = {r.model for r in records if is_baseline(r) and is_measured(r, decisive)}
        found: list[tuple[str, Prediction]] = []
        for name in self.models:
            table = self._table(name) if name in measured else None
            if table is not None:
                from workbench.forecast import Forecast

                forecast = Forecast(table, records, name, decisive)
                found += [(name, prediction) for prediction in forecast.frontier()]
        if predicted and not found:
            raise StudyError(
                "There are no predictions yet; study.tabulate() makes them, and then"
                " plot(predicted=True) shows them."
            )
        return found

    # Comparing

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """Return one row per run; see :func:`workbench.compare.table`.

        Parameters
        ----------
        metric : str, optional
            Decides the column ``pareto``. Default: the task's first.
        """
        from workbench import compare

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
        from workbench import compare, plots

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
        return plots.tradeoff_figure(view)

    def choose(
        self,
        accuracy: float | None = None,
        *,
        relative: bool = True,
        size_bytes: float | None = None,
        latency_ms: float | None = None,
        metric: str | None = None,
        model: str | None = None,
    ) -> Choice:
        """Choose the smallest run that passes, or with limits alone the best one that fits.

        See :func:`workbench.compare.choose`.

        Parameters
        ----------
        accuracy : float, optional
            The least acceptable quality, as a share of the base model's (0.97 for 97 %).
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
        from workbench import compare

        records = self._store.records()
        name = self._name(model)
        baseline = [r for r in records if r.model == name and not r.recipe.steps]
        found = compare.choose(
            records,
            baseline[0] if baseline else None,
            self._metric(metric),
            outcomes=self._outcomes,
            accuracy=accuracy,
            relative=relative,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
        )
        return Choice(
            run=self._handle(found.run),
            quality=found.quality,
            interval=found.interval,
            surely=found.surely,
            nearest_run=self._handle(found.nearest_run),
            nearest=found.nearest,
        )

    # Ending

    def close(self) -> None:
        """End the worker process, if there is one, and remove a temporary study's folder."""
        self._finalizer()

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
        if not self._finalizer.alive and self._is_temporary:
            return "<Study closed>"
        where = f"{self.path} (temporary)" if self._is_temporary else str(self.path)
        task = self._store.meta("task")["name"]
        models = ", ".join(self.models)
        return f"<Study of {models} on {task}, {len(self._store.records())} runs, in {where}>"

    # Parts

    def _get_engine(self) -> Engine:
        from workbench.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._store, task=self._given_task, models=self._models)
            return self._engine

    def _get_inline(self) -> InlineRunner:
        from workbench.sweep import InlineRunner

        with self._lock:
            if self._inline is None:
                self._inline = InlineRunner(self._get_engine())
            return self._inline

    def _get_worker(self) -> WorkerRunner:
        from workbench.sweep import WorkerRunner

        with self._lock:
            if not self._finalizer.alive:
                raise StudyError("The study is closed; open it again to compute runs.")
            if self._resources.worker is None:
                self._resources.worker = WorkerRunner(self._store)
            return self._resources.worker

    def _compute(
        self, recipes: list[Recipe], model: str | None, on_event: OnEvent | None
    ) -> list[Run]:
        from workbench.engine import run_id

        name = self._name(model)
        self._get_inline().submit([(name, recipe) for recipe in recipes], on_event)
        known = {record.id for record in self._store.records()}
        ids = [run_id(self._store, name, recipe) for recipe in recipes]
        return [Run(self, id) for id in ids if id in known]

    def _name(self, model: str | None) -> str:
        name = self._default if model is None else model
        if name not in self._store.models():
            known = ", ".join(map(repr, self._store.models()))
            raise StudyError(
                f"The study has no base model named {name!r}; it has {known}. Add it with"
                " study.add_model(...)."
            )
        return name

    def _metric(self, name: str | None) -> Metric:
        for metric in self.metrics:
            if name in (None, metric.name):
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise ConfigError(f"The task has no metric {name!r}; it has {known}.")

    def _id_of(self, run: Run | str) -> str:
        id = run.id if isinstance(run, Run) else run
        if not isinstance(id, str) or self._store.record(id) is None:
            raise StudyError(
                f"{run!r} is no run of the study in {self.path}; give a Run of study.runs, or its"
                " id from study.table()."
            )
        return id

    def _handle(self, record: RunRecord | None) -> Run | None:
        return None if record is None else Run(self, record.id)

    def _outcomes(self, record: RunRecord) -> Outcomes | None:
        with contextlib.suppress(StudyError):
            return self._store.outcomes(record.id)
        return None

    def _check_task(self, task: Task) -> None:
        recorded = self._store.meta("task")
        if recorded is None or recorded["fingerprint"] == task.fingerprint:
            return
        raise StudyError(
            f"The study in {self.path} is on the task {recorded['name']!r} (fingerprint"
            f" {recorded['fingerprint']}), and the task that was given, {task.name!r}"
            f" ({task.fingerprint}), has other data or options, so their runs cannot be compared."
            " Give another path for the new task, or use Study.open(path) to go on with the"
            " recorded one."
        )


class _Resources:
    """What must be let go of when a study ends, apart from it so that it can end."""

    def __init__(self, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
        self.worker: WorkerRunner | None = None
        self._temporary = temporary

    def release(self) -> None:
        if self.worker is not None:
            self.worker.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _loaded(model: Any) -> LoadedModel:
    from workbench.models import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, (str, os.PathLike)):
        return load_model(model)
    raise ConfigError(
        f"A {type(model).__name__} is not accepted as a model; give load_model(...), which takes a"
        " reference, or a live transformers model with its tokenizer."
    )


def _check_dense(model: LoadedModel) -> None:
    from workbench.architectures import refuse_unsupported

    refuse_unsupported(repr(model.source.name), model.hf_model.config)
    if model.weights:
        raise StudyError(
            f"{model.source.name!r} has compressed weights already; a study starts from the"
            " original model. Give load_model(...) of that."
        )


def _recipes(recipes: Recipes) -> list[Recipe]:
    if isinstance(recipes, (Recipe, Step)):
        raise ConfigError(
            f"A sweep takes a list of recipes, and {recipes!r} is one; put it into a list, or use"
            " study.run(...)."
        )
    return [Recipe.of(recipe) for recipe in recipes]


def _only_progress(on_progress: Callable[[Progress], None] | None) -> OnEvent | None:
    if on_progress is None:
        return None
    forward = on_progress

    def on_event(event: Any) -> None:
        if event.kind == "progress":
            forward(Progress(event.stage, event.done, event.total, event.detail))

    return on_event
