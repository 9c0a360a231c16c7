"""What all questions to a study work with: its folder, its base models, and what computes here."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import ConfigError, StudyError
from workbench.fields import shown
from workbench.progress import Progress
from workbench.records import Metric, RunRecord
from workbench.storage.store import Store
from workbench.tasks.metrics import recorded_metrics
from workbench.tasks.output import Output, recorded_output

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel
    from workbench.prediction.cost_table import CostTable
    from workbench.storage.snapshot import Snapshot
    from workbench.study.forecast import Forecast
    from workbench.study.running.engine import Engine
    from workbench.study.running.inline import InlineRunner
    from workbench.study.running.runner import OnEvent, Runner
    from workbench.study.running.worker import WorkerRunner
    from workbench.tasks import Task
    from workbench.tasks.outcomes import Outcomes


class HasId(Protocol):
    """A run, however it is held: a handle or a record."""

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits."""


class Cancellable(Protocol):
    """What goes on until it is told to stop."""

    def cancel(self) -> None:
        """Stop soon."""


class Workspace:
    """A study as this process works on it; :class:`workbench.Study` is its face.

    Its worker process and a temporary folder end with :meth:`close`, or when nothing refers to the
    workspace any more.

    Parameters
    ----------
    store : Store
        The study's folder.
    temporary : TemporaryDirectory, optional
        Of the folder, if it goes with the study.

    Attributes
    ----------
    first_model : str
        Name of the base model that is meant where none is named.
    given_task : Task or None
        The task as the user gave it; None where it is loaded from the folder.
    cost_tables : dict
        By base model: what identifies the file, and the table that was read from it.
    ready_forecasts : dict
        By base model: what the forecast depends on that was asked for last, and the forecast.
    searches : set
        Those that go on now.
    proposals : dict
        By base model and metric: the recipes among which the next step is looked for.
    """

    def __init__(
        self, store: Store, temporary: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        self.store = store
        self.is_temporary = temporary is not None
        self.first_model = ""
        self.given_task: Task | None = None
        self.cost_tables: dict[str, tuple[object, CostTable]] = {}
        self.ready_forecasts: dict[str, tuple[object, Forecast]] = {}
        self.searches: set[Cancellable] = set()
        self.proposals: dict[tuple[str, str], Any] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._inline: InlineRunner | None = None
        self._ending = _Ending(temporary)
        self._finalizer = weakref.finalize(self, self._ending.release)

    # What it is of

    @property
    def path(self) -> Path:
        """The folder."""
        return self.store.path

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the base models, in the order of their addition."""
        return tuple(self.store.models())

    @property
    def task(self) -> Task:
        """The task, loaded from the study's own snapshot if need be."""
        return self.engine.task

    @property
    def task_name(self) -> str:
        """The task's name, without loading it."""
        return str(self.store.meta("task")["name"])

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics; the first one decides where none is named."""
        return recorded_metrics(self.store.meta("task"))

    @property
    def output(self) -> Output:
        """What the task answers, without loading it."""
        return recorded_output(self.store.meta("task")["saved"])

    def metric_named(self, name: str | None) -> Metric:
        """Return the metric of this name, None for the task's first.

        Raises
        ------
        ConfigError
            If the task has no such metric.
        """
        metrics = self.metrics
        for metric in metrics:
            if name is None or (isinstance(name, str) and name == metric.name):
                return metric
        known = ", ".join(metric.name for metric in metrics)
        raise ConfigError(f"The task has no metric {shown(name)}; it has {known}.")

    def model_named(self, model: str | None) -> str:
        """Return the name of a base model that the study has, None for its first.

        Raises
        ------
        StudyError
            If there is none of this name.
        """
        name = self.first_model if model is None else model
        models = self.models
        if not isinstance(name, str) or name not in models:
            known = ", ".join(map(repr, models))
            raise StudyError(
                f"The study has no base model named {shown(name)}; it has {known}. Add it with"
                " study.add_model(...)."
            )
        return name

    # Its runs

    def records(self) -> tuple[RunRecord, ...]:
        """Return what the journal says about all runs, oldest first."""
        return self.snapshot().records

    def snapshot(self) -> Snapshot:
        """Return all runs as they are now; the same object while nothing has changed."""
        return self.store.snapshot()

    def record_of(self, run: HasId | str) -> RunRecord:
        """Return what the journal says about a run now.

        Raises
        ------
        StudyError
            If the study has no such run.
        """
        id = run if isinstance(run, str) else getattr(run, "id", None)
        record = self.store.record(id) if isinstance(id, str) and id.isascii() else None
        if record is None:
            raise StudyError(
                f"{shown(run)} is no run of the study in {self.path}; give a Run of study.runs, or"
                " its id from study.table()."
            )
        return record

    def id_of(self, run: HasId | str) -> str:
        """Return the id of a run that the study has; see :meth:`record_of`."""
        return self.record_of(run).id

    def baseline(self, model: str | None = None) -> RunRecord | None:
        """Return the run of a base model itself, None if it has not been computed."""
        name = self.model_named(model)
        return self.snapshot().baselines.get(name)

    @property
    def outcomes(self) -> Callable[[RunRecord], Outcomes | None]:
        """What returns a run's outcomes on the evaluation part, None where there are none."""
        return self.snapshot().outcomes

    def unreadable(self) -> str:
        """Return which outcomes could not be read and what to do, in words; ``""`` for none."""
        snapshot = self.snapshot()
        runs = [snapshot.by_id[id] for id in snapshot.damaged]
        if not runs:
            return ""
        named = ", ".join(f"{r.label} (run {r.id})" for r in runs[:3]) + ", …" * (len(runs) > 3)
        return (
            f"The outcomes of {named} are missing or damaged, so what is said of"
            f" {'it' if len(runs) == 1 else 'them'} follows from recorded numbers alone. Run the"
            " same recipe again to compute them anew."
        )

    # What computes

    @property
    def engine(self) -> Engine:
        """What computes in this process, made when it is first needed."""
        from workbench.study.running.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self.store, task=self.given_task, models=self._loaded)
            return self._engine

    @property
    def inline(self) -> InlineRunner:
        """The runner of this process."""
        from workbench.study.running.inline import InlineRunner

        with self._lock:
            if self._inline is None:
                self._inline = InlineRunner(self.engine)
            return self._inline

    @property
    def worker(self) -> WorkerRunner:
        """The runner of the worker process, which starts with its first job.

        Raises
        ------
        StudyError
            If the study was closed.
        """
        from workbench.study.running.worker import WorkerRunner

        with self._lock:
            if not self.is_open:
                raise StudyError("The study is closed; open it again to compute runs.")
            if self._ending.worker is None:
                self._ending.worker = WorkerRunner(self.store)
            return self._ending.worker

    @property
    def runners(self) -> tuple[Runner, ...]:
        """The runners that there are by now, the worker process first."""
        return tuple(r for r in (self._ending.worker, self._inline) if r is not None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker process has nothing to do; return whether that is so."""
        worker = self._ending.worker
        return True if worker is None else worker.wait(timeout)

    def attach(self, name: str, model: LoadedModel) -> None:
        """Use a model that is in memory as the base model of this name."""
        with self._lock:
            self._loaded[name] = model
            if self._engine is not None:
                self._engine.attach(name, model)

    # Its end

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._finalizer.alive

    def close(self) -> None:
        """End the worker process, if there is one, and remove a temporary folder."""
        self._finalizer()


class _Ending:
    """What must be let go of when a workspace ends, apart from it so that it can end."""

    def __init__(self, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
        self.worker: WorkerRunner | None = None
        self._temporary = temporary

    def release(self) -> None:
        if self.worker is not None:
            self.worker.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def only_progress(on_progress: Callable[[Progress], None] | None) -> OnEvent | None:
    """Return what hears of events and forwards their progress; None for None."""
    if on_progress is None:
        return None
    forward = on_progress

    def on_event(event: Any) -> None:
        if event.kind == "progress":
            forward(Progress(event.stage, event.done, event.total, event.detail))

    return on_event
