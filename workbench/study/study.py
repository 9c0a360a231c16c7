"""A study: base models, one task, and every run on them.

Opening one loads neither torch nor a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.fields import words
from workbench.storage.store import Store
from workbench.study.exporting import Exporting
from workbench.study.reporting import Reporting
from workbench.study.viewing import Viewing

if TYPE_CHECKING:
    from workbench.calibration.calibrate import CalibrationOptions
    from workbench.models.load import LoadedModel
    from workbench.tasks import Task


class Study(Viewing, Reporting, Exporting):
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
        _check_base(loaded)
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
        self._given_task = task
        self._default = self._add(loaded, None)
        store.recover()

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
        study = cls.__new__(cls)
        study._setup(store, None)
        if store.meta("task") is None or not store.models():
            raise StudyError(
                f"The study in {store.path} was never started: it has no task or no model. Start"
                " it with Study(model, task, path=...)."
            )
        study._default = next(iter(store.models()))
        if metric is not None:
            from workbench.tasks.metric import use_metric

            use_metric(store.meta("task")["saved"], metric)
        with contextlib.suppress(StudyError):  # one that is read-only can still be looked at
            store.recover()
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
        loaded = _loaded(model)
        _check_base(loaded)
        return self._add(loaded, name)

    def _add(self, model: LoadedModel, name: str | None) -> str:
        from workbench.study.running.engine import describe_model

        models = self._store.models()
        for known, description in models.items():
            if description["fingerprint"] == model.fingerprint and name in (None, known):
                self._attach(known, model)
                return known
        name = words("add_model", "name", name, none_means="its own", most=100)
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


def _loaded(model: Any) -> LoadedModel:
    from workbench.models.load import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, (str, os.PathLike)):
        return load_model(model)
    raise ConfigError(
        f"A {type(model).__name__} is not accepted as a model; give load_model(...), which takes a"
        " reference, or a live transformers model with its tokenizer."
    )


def _check_base(model: LoadedModel) -> None:
    from workbench.models.architectures import refuse_unsupported

    kind = type(model.hf_model).__name__
    refuse_unsupported(repr(model.source.name), model.hf_model.config, kind)
    if model.weights and not _is_a_checkpoint(model):
        raise StudyError(
            f"{model.source.name!r} has weights that were compressed here, and a study starts from"
            " a model that it can load again. Give load_model(...) of the original model, or export"
            " the run and give load_model(...) of that folder."
        )


def _is_a_checkpoint(model: LoadedModel) -> bool:
    """Return whether the codes of a model are those of the checkpoint that it was loaded from."""
    from workbench.models.load import load_model

    source = model.source
    if source.kind not in ("folder", "hub"):
        return False
    found = load_model(source.ref, model.tokenizer, dtype=model.dtype, revision=source.revision)
    return found.fingerprint == model.fingerprint
