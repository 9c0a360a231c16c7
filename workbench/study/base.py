"""What every part of a study builds on: its folder, its models, and what computes for it."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from workbench.errors import ConfigError, StudyError
from workbench.progress import Progress
from workbench.recipes.recipe import Recipe
from workbench.records import Metric, RunRecord
from workbench.storage.store import Store
from workbench.study.handles import Run
from workbench.tasks.metrics import recorded_metrics
from workbench.tasks.output import Output, recorded_output

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel
    from workbench.prediction.cost_table import CostTable
    from workbench.study.running.engine import Engine
    from workbench.study.running.sweep import InlineRunner, OnEvent, WorkerRunner
    from workbench.study.study import Study
    from workbench.tasks import Task
    from workbench.tasks.outcomes import Outcomes

Self = TypeVar("Self", bound="StudyBase")


class StudyBase:
    """Base models, a task and the runs on them, as they are in the folder."""

    _given_task: Task | None

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
    def fingerprints(self) -> tuple[str, ...]:
        """Of the task, then of the base models: what its runs are of."""
        models = self._store.models().values()
        return (self._store.meta("task")["fingerprint"], *(d["fingerprint"] for d in models))

    @property
    def task(self) -> Task:
        """The task, loaded from the study's own snapshot if need be."""
        return self._get_engine().task

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics; the first one decides where none is named."""
        return recorded_metrics(self._store.meta("task"))

    @property
    def output(self) -> Output:
        """What the task answers: labels, choices, tokens or text."""
        return recorded_output(self._store.meta("task")["saved"])

    @property
    def metric(self) -> Metric:
        """The task's first metric."""
        return self.metrics[0]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, oldest first, those of the base models included."""
        return tuple(self._handle(record.id) for record in self._store.records())

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """What the journal says about all runs, oldest first."""
        return self._store.records()

    def baseline(self, model: str | None = None) -> Run | None:
        """Return the run of a base model itself, None if it has not been computed."""
        name = self._name(model)
        found = [r for r in self._store.records() if r.model == name and not r.recipe.steps]
        return self._handle(found[0].id) if found else None

    # Ending

    @property
    def is_open(self) -> bool:
        """Whether it can compute in its worker process: it was not closed."""
        return self._finalizer.alive

    def close(self) -> None:
        """End the worker process, if there is one, and remove a temporary study's folder."""
        self._finalizer()

    def __enter__(self: Self) -> Self:
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
        count = len(self._store.records())
        return f"<Study of {models} on {task}, {count} run{'s' * (count != 1)}, in {where}>"

    # Parts

    def _get_engine(self) -> Engine:
        from workbench.study.running.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._store, task=self._given_task, models=self._models)
            return self._engine

    def _get_inline(self) -> InlineRunner:
        from workbench.study.running.sweep import InlineRunner

        with self._lock:
            if self._inline is None:
                self._inline = InlineRunner(self._get_engine())
            return self._inline

    def _get_worker(self) -> WorkerRunner:
        from workbench.study.running.sweep import WorkerRunner

        with self._lock:
            if not self._finalizer.alive:
                raise StudyError("The study is closed; open it again to compute runs.")
            if self._resources.worker is None:
                self._resources.worker = WorkerRunner(self._store)
            return self._resources.worker

    def _compute(
        self, recipes: list[Recipe], model: str | None, on_event: OnEvent | None
    ) -> list[Run]:
        from workbench.study.running.engine import run_id

        name = self._name(model)
        self._get_inline().submit([(name, recipe) for recipe in recipes], on_event)
        known = {record.id for record in self._store.records()}
        ids = [run_id(self._store, name, recipe) for recipe in recipes]
        return [self._handle(id) for id in ids if id in known]

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

    def _handle(self, id: str) -> Run:
        return Run(cast("Study", self), id)

    def _handle_of(self, record: RunRecord | None) -> Run | None:
        return None if record is None else self._handle(record.id)

    def _outcomes(self, record: RunRecord) -> Outcomes | None:
        with contextlib.suppress(StudyError):
            return self._store.outcomes(record.id)
        return None


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


def only_progress(on_progress: Callable[[Progress], None] | None) -> OnEvent | None:
    if on_progress is None:
        return None
    forward = on_progress

    def on_event(event: Any) -> None:
        if event.kind == "progress":
            forward(Progress(event.stage, event.done, event.total, event.detail))

    return on_event
