"""Compute runs: load the base model, calibrate once, compress, evaluate, record.

An engine keeps one base model with its statistics and dense predictions in memory, so that every
further configuration costs only its own solving and evaluation. It mutates no model it was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import platform
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.atomic_files import aside_of
from workbench.errors import (
    CancelledError,
    DiskFullError,
    NotEnoughMemoryError,
    StudyError,
    TokenizerMissingError,
    WorkbenchError,
)
from workbench.progress import SILENT, Monitor
from workbench.recipes import Step, Training
from workbench.recipes.recipe import Recipe
from workbench.records import (
    CODES_FACT,
    EVALUATION_FACT,
    EVALUATION_VERSIONS,
    NOTES_FACT,
    RunRecord,
    RunState,
)
from workbench.storage.store import Claim, Store
from workbench.tasks.output import Output, recorded_output
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.calibration.calibrate import CalibrationOptions, Calibrator
    from workbench.compression.compress import Start
    from workbench.compression.joint_solving import SolvedAhead
    from workbench.compression.needs import RecipeNeeds
    from workbench.models.load import LoadedModel
    from workbench.prediction.cost_table import CostTable
    from workbench.runtime.measure.evaluate import Reference
    from workbench.tasks import Task
    from workbench.tasks.outcomes import Outcomes
    from workbench.training import CheckpointFile

EVALUATION: dict[str, Any] = {"part": "evaluation", "version": 1}
"""What every run is evaluated on; ``version`` grows when equal models would score otherwise."""

TRAINED_FORM = 1
"""Of classifiers; grows when equal ones would be trained in another form. Before the first one a
head on mean-pooled features was."""

PREDICTIONS_FOLDER = "predictions"
"""Where a study keeps its tables of costs, within its own folder."""

WAIT_SECONDS = 0.2
"""How often to look whether another process has finished the run that is asked for here."""


@dataclass(frozen=True)
class Execution:
    """What came of asking for a run.

    Attributes
    ----------
    record : RunRecord
    cached : bool
        Whether it was done before, or computed by another process.
    error : Exception or None
        What ended it, if it failed or was cancelled here.
    """

    record: RunRecord
    cached: bool = False
    error: Exception | None = None


@dataclass(eq=False)
class _Base:
    """A base model, ready for the task, with what all its runs share."""

    name: str
    dense: LoadedModel
    reference: Reference
    ahead: SolvedAhead
    recorded_device: str | None
    notes: tuple[str, ...] = ()
    calibrators: dict[CalibrationOptions, Calibrator] = field(default_factory=dict)


def run_id(store: Store, model: str, recipe: Recipe) -> str:
    """Return the id of a run: twelve hexadecimal digits of everything that changes its answer.

    Neither the model nor the task is loaded; for the base model itself torch is not either.
    """
    return run_ids(store, model, [recipe])[0]


def run_ids(store: Store, model: str, recipes: Sequence[Recipe]) -> list[str]:
    """Return the ids of runs of one base model; the journal is read once for all of them."""
    description = _described(store, model)
    shared = {
        "model": description["fingerprint"],
        "stored_dtype": description["stored_dtype"],
        "compute_dtype": description["compute_dtype"],
        "task": store.meta("task")["fingerprint"],
        "evaluation": EVALUATION,
    }
    calibration: dict[str, Any] | None = None
    classifies = recorded_output(store.meta("task")["saved"]) is Output.LABELS
    found = []
    for recipe in recipes:
        parts = {**shared, "recipe": recipe.to_json()}
        if recipe.steps:
            from workbench.compression.needs import RecipeNeeds

            needs = RecipeNeeds.of(recipe)
            parts["methods"] = needs.method_versions
            if classifies and any(isinstance(step, Training) for step in recipe.steps):
                parts["trained_form"] = TRAINED_FORM
            if needs.calibration:
                calibration = calibration or dataclasses.asdict(calibration_options(store))
                parts["calibration"] = calibration
        key = json.dumps(parts, sort_keys=True)
        found.append(hashlib.sha256(key.encode()).hexdigest()[:12])
    return found


def calibration_options(store: Store) -> CalibrationOptions:
    """Return the calibration options of a study."""
    from workbench.calibration.calibrate import CalibrationOptions

    return CalibrationOptions(**(store.meta("calibration") or {}))


def table_path(store: Store, model: str) -> Path:
    """Return where a base model's table of costs is kept; its name holds what changes it."""
    from workbench.calibration import calibrate, gradients
    from workbench.compression.needs import RecipeNeeds
    from workbench.prediction import cost_table, tabulate
    from workbench.prediction.tabulate import GRID, WHOLE

    description = _described(store, model)
    versions: dict[str, int] = {}
    for step in (*GRID, *WHOLE):
        versions |= RecipeNeeds.of(Recipe((step,))).method_versions
    parts = {
        "model": description["fingerprint"],
        "stored_dtype": description["stored_dtype"],
        "compute_dtype": description["compute_dtype"],
        "task": store.meta("task")["fingerprint"],
        "calibration": dataclasses.asdict(calibration_options(store)),
        "methods": versions,
        "versions": [
            calibrate.FORMAT_VERSION,
            gradients.FORMAT_VERSION,
            cost_table.FORMAT_VERSION,
            tabulate.COST_VERSION,
        ],
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return store.file(PREDICTIONS_FOLDER, f"{key}.json")


def describe_model(store: Store, name: str, model: LoadedModel) -> dict[str, Any]:
    """Return what a study records of a base model, and save what cannot be loaded again.

    A live model is written into the study; of others only the tokenizer, for the case that it
    did not come from the same place.
    """
    from workbench.models.layers import find_blocks
    from workbench.models.load import save_model, save_tokenizer

    folder = store.model_folder(name)
    if model.source.kind == "live":
        save_model(model, folder, whole=True)
    elif model.source.kind != "demo":
        save_tokenizer(model.tokenizer, folder)
    return {
        "source": model.source.to_dict(),
        "fingerprint": model.fingerprint,
        "stored_dtype": str(model.stored_dtype).removeprefix("torch."),
        "compute_dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        **({"memory": "streamed"} if model.streaming else {}),
        "n_parameters": model.n_parameters,
        "size_bytes": model.size_bytes,
        "n_blocks": len(find_blocks(model.hf_model)),
    }


def reload_model(store: Store, name: str) -> LoadedModel:
    """Load a study's base model again, and make sure that it is the one that was recorded.

    It is put on the device that was recorded, or another one of its kind if there are fewer here.
    Studies of versions that did not record it take the first CUDA device, else the CPU.

    Raises
    ------
    StudyError
        If what is found under the recorded reference is another model by now, or this machine
        lacks the kind of device that the study computes on.
    ConfigError
        If the model runs Python code that the user does not trust in this process.
    """
    from workbench.models.load import ModelSource, load_again, load_model

    description = _described(store, name)
    source = ModelSource.from_dict(description["source"])
    folder, dtype = store.model_folder(name), description["compute_dtype"]
    ref = str(folder) if source.kind == "live" else source.ref
    device = _device_here(name, ref, description.get("device"))
    memory = description.get("memory", "auto")
    if source.kind == "live":
        model = load_model(folder, device=device, dtype=dtype)
        model.source = source
        found = model.fingerprint
    else:
        try:
            model = load_again(source, device=device, dtype=dtype, memory=memory)
            found = model.fingerprint
        except TokenizerMissingError:
            found = ""
        if found != description["fingerprint"] and folder.is_dir():
            model = load_again(source, folder, device=device, dtype=dtype, memory=memory)
            found = model.fingerprint
    if found != description["fingerprint"]:
        raise StudyError(_changed(name, source.ref))
    return model


def record_device(store: Store, name: str, model: LoadedModel) -> None:
    """Have a study compute where a model is that it was given, and warn where that is new."""
    description = store.models()[name]
    before, now = description.get("device"), str(model.device)
    source = description["source"]
    if model.source.trust_remote_code and source["kind"] == model.source.kind:
        source = source | {"trust_remote_code": True}
    if before == now and source == description["source"]:
        return
    if before is not None and before.split(":")[0] != model.device.type:
        warnings.warn(
            f"The study in {store.path} computed {name!r} on {before} so far and does so on {now}"
            " from now on. Numbers of two kinds of devices differ a little; every run says where"
            " it was computed.",
            stacklevel=5,
        )
    try:
        store.update_model(name, description | {"device": now, "source": source})
    except StudyError:
        if before is not None:  # else it is an older study that can only be looked at
            raise


def _device_here(name: str, ref: str, recorded: str | None) -> str:
    """Return where to put a model that a study recorded on a device."""
    import torch

    from workbench.tensors.devices import available_devices, is_available

    if recorded is None:
        return "auto"
    device = torch.device(recorded)
    if is_available(device):
        return recorded
    if is_available(torch.device(device.type, 0)):
        return device.type
    here = ", ".join(available_devices())
    raise StudyError(
        f"The study computes {name!r} on {recorded}, which this machine lacks; it has {here}."
        " Nothing is computed elsewhere unless you say so, as the numbers differ a little. To go on"
        f' here, give the model again: study.add_model(load_model({ref!r}, device="cpu")).'
    )


class Engine:
    """Computes the runs of one study.

    Parameters
    ----------
    store : Store
    task : Task, optional
        Default: loaded from the study when first needed.
    models : mapping of str to LoadedModel, optional
        Base models that are in memory already, by name; others are loaded when first needed.
    """

    def __init__(
        self,
        store: Store,
        *,
        task: Task | None = None,
        models: Mapping[str, LoadedModel] | None = None,
    ) -> None:
        self.store = store
        self._task = task
        self._models = dict(models or {})
        self._base: _Base | None = None
        self._upcoming: tuple[tuple[str, Recipe], ...] = ()
        self._lock = threading.RLock()

    def expect(self, upcoming: Sequence[tuple[str, Recipe]]) -> None:
        """Say which runs will be asked for after the next one; what they share is done once.

        Parameters
        ----------
        upcoming : sequence of (str, Recipe)
            Base model's name and recipe, in order. Replaces what was said before.
        """
        self._upcoming = tuple(upcoming)

    def attach(self, name: str, model: LoadedModel) -> None:
        """Use a model that is in memory already as the base model of this name."""
        self._models[name] = model

    @property
    def task(self) -> Task:
        """The study's task."""
        if self._task is None:
            from workbench.tasks import task_from_dict

            self._task = task_from_dict(self.store.meta("task")["saved"], self.store.task_folder)
        return self._task

    def execute(self, model: str, recipe: Recipe, *, monitor: Monitor = SILENT) -> Execution:
        """Return a run, computing it unless it is done already.

        What goes wrong while it is computed is recorded on the run and returned, not raised.

        Parameters
        ----------
        model : str
            Name of the base model within the study.
        recipe : Recipe
            Unless it is empty, the base model's own run must be done.
        monitor : Monitor
            Told about every stage; may cancel.

        Raises
        ------
        StudyError
            If the study has no such model, or the journal cannot be written.
        KeyboardInterrupt
            After the run was recorded as cancelled.
        """
        run = run_id(self.store, model, recipe)
        claim, before = None, None
        while claim is None:
            record = self.store.record(run)
            if (
                record is not None
                and record.state is RunState.DONE
                and self.store.has_outcomes(run)
            ):
                return Execution(record, cached=True)
            if before is None:
                before = self._execute_prefix(model, recipe, monitor)
            claim = self.store.claim(
                run, model=model, recipe=recipe, parent=self._parent(model, recipe)
            )
            if claim is None:
                try:
                    monitor.report("wait", 0, 1, "another process computes this run")
                except CancelledError as error:
                    assert record is not None
                    return Execution(record, error=error)
                time.sleep(WAIT_SECONDS)
        failure: Exception | None = None
        with claim:
            try:
                if before is not None and before.record.state is not RunState.DONE:
                    raise before.error or StudyError(
                        f"Its first steps ({before.record.label}) have no result:"
                        f" {before.record.error}"
                    )
                with self._lock:
                    self._compute(claim, model, recipe, monitor)
            except CancelledError as error:
                failure = error
                claim.fail(RunState.CANCELLED, str(error))
            except KeyboardInterrupt:
                claim.fail(RunState.CANCELLED, "Interrupted from the keyboard.")
                raise
            except Exception as error:
                failure = said(
                    error.with_traceback(None), self.store.path
                )  # its frames hold models
                claim.fail(RunState.FAILED, in_words(failure))
        record = self.store.record(run)
        if record is None:
            raise StudyError(f"Run {run} was deleted while it was computed.")
        return Execution(record, error=failure)

    def _execute_prefix(self, model: str, recipe: Recipe, monitor: Monitor) -> Execution | None:
        """Compute the first steps of a recipe as a run of their own, if they end with a training.

        So nothing is trained twice, and every training is a node that others continue from.
        """
        from workbench.compression.needs import RecipeNeeds

        prefix = RecipeNeeds.of(recipe).trained_prefix
        return None if prefix is None else self.execute(model, prefix, monitor=monitor)

    def tabulate(self, model: str, *, monitor: Monitor = SILENT) -> CostTable:
        """Return the complete table of predicted costs of a base model; see ``tabulate``."""
        from workbench.prediction.tabulate import tabulate

        with self._lock:
            base = self._ready(model, monitor)
            calibrator = self._calibrator(base, calibration_options(self.store))
            return tabulate(base.dense, calibrator, table_path(self.store, model), monitor=monitor)

    def model(self, run: str, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a finished run's model with its compressed weights in place.

        Weights that were evicted from the disk are computed again.

        Raises
        ------
        StudyError
            If the run is not done, or computing again gives other weights.
        """
        from workbench.storage.artifacts import load_weights

        record = self.store.record(run)
        if record is None or record.state is not RunState.DONE:
            state = "does not exist" if record is None else f"is {record.state.value}"
            raise StudyError(f"Run {run} {state}, so it has no model; only finished runs have.")
        with self._lock:
            base = self._ready(record.model, monitor)
            if not record.recipe.steps:
                return base.dense.copy()
            return load_weights(self._weights_of(base, record, monitor), base.dense)

    def _weights_of(self, base: _Base, record: RunRecord, monitor: Monitor) -> Path:
        """Return the file with a finished run's weights; evicted ones are computed again."""
        path = self.store.artifact(record.facts["artifact"])
        return self._solve_again(base, record, monitor) if path is None else path

    def _start(self, base: _Base, needs: RecipeNeeds, monitor: Monitor) -> Start | None:
        """Return what the first steps of a recipe left, from the run that stored it."""
        from workbench.compression.compress import Start
        from workbench.storage.artifacts import load_weights

        def stored(prefix: Recipe) -> tuple[RunRecord, LoadedModel]:
            record = self.store.record(run_id(self.store, base.name, prefix))
            if record is None or record.state is not RunState.DONE:  # it was deleted meanwhile
                self.execute(base.name, prefix, monitor=monitor)
                record = self.store.record(run_id(self.store, base.name, prefix))
            if record is None or record.state is not RunState.DONE:
                raise StudyError(
                    f"The first steps ({prefix.label}) have no result; run them again."
                )
            return record, load_weights(self._weights_of(base, record, monitor), base.dense)

        def make_teacher() -> LoadedModel:
            teaching = needs.teaching_prefix
            return stored(teaching)[1] if teaching.steps else base.dense

        prefix = needs.trained_prefix
        if prefix is None:
            return None
        record, model = stored(prefix)
        kept = ("structure", "training", "embeddings", "scales_folded", "scales_stored")
        facts = {name: record.facts[name] for name in kept if name in record.facts}
        return Start(model, len(prefix.steps), make_teacher, facts)

    def _checkpoint(self, needs: RecipeNeeds, run: str) -> CheckpointFile | None:
        if needs.last_training is None:
            return None
        from workbench.training import CheckpointFile

        return CheckpointFile(self.store.checkpoint_path(run), self.store.disk_budget_bytes)

    def outcomes(
        self,
        run: str,
        part: str = "evaluation",
        *,
        task: Task | None = None,
        monitor: Monitor = SILENT,
    ) -> Outcomes:
        """Evaluate a finished run's model once more, on another part or on changed texts.

        Parameters
        ----------
        run : str
            Id of a finished run.
        part : {"evaluation", "validation", "calibration"}
        task : Task, optional
            A task with the same labels; KL is only computed for the study's own.
        monitor : Monitor
            Told after every batch, stage "evaluate"; may cancel there.
        """
        from workbench.runtime.measure.evaluate import evaluate

        with self._lock:
            model = self.model(run, monitor=monitor)
            reference = None
            if task is None and self._base is not None:
                reference = self._base.reference
            found = evaluate(
                model, task or self.task, part=part, reference=reference, monitor=monitor
            )
        return found.outcomes

    def _compute(self, claim: Claim, name: str, recipe: Recipe, monitor: Monitor) -> None:
        from workbench.compression.compress import compress
        from workbench.compression.needs import RecipeNeeds
        from workbench.runtime.measure.evaluate import evaluate
        from workbench.tensors.weights import codes_label

        if recipe.steps:
            self._check_baseline(name)
        seconds: dict[str, float] = {}
        with _timed(seconds, "load"):
            base = self._ready(name, monitor)
        facts: dict[str, Any] = {"versions": _versions(), "device": _place(base.dense)}
        model, artifact = base.dense, None
        if self.task.kind in EVALUATION_VERSIONS:
            facts[EVALUATION_FACT] = EVALUATION_VERSIONS[self.task.kind]
        loaded = codes_label(model.weights.values())
        if loaded is not None and not recipe.steps:
            facts[CODES_FACT] = loaded
        if base.notes:
            facts[NOTES_FACT] = list(base.notes)
        if recipe.steps:
            needs = RecipeNeeds.of(recipe)
            options = calibration_options(self.store)
            calibrator = self._calibrator(base, options)
            if needs.calibration:
                facts["calibration"] = dataclasses.asdict(options)
            with _timed(seconds, "load"):
                start = self._start(base, needs, monitor)
            checkpoint = self._checkpoint(needs, claim.run)
            if start is None and needs.base_statistics:
                with _timed(seconds, "calibrate"):
                    statistics = calibrator.statistics(base.dense, monitor=monitor)
                facts["calibration_tokens"] = statistics.n_tokens
            with _timed(seconds, "compress"):
                base.ahead.expect([recipe.steps[0], *self._first_steps(base)])
                compressed = compress(
                    base.dense,
                    recipe,
                    calibrator,
                    monitor=monitor,
                    ahead=base.ahead,
                    start=start,
                    load_run=partial(self.model, monitor=monitor),
                    checkpoint=checkpoint,
                )
            model = compressed.model
            facts |= compressed.facts
        with _timed(seconds, "evaluate"):
            evaluation = evaluate(
                model,
                self.task,
                part=EVALUATION["part"],
                reference=base.reference,
                monitor=monitor,
            )
        if recipe.steps:
            with _timed(seconds, "save"):
                artifact, facts["weights_digest"] = self._save(model)
        monitor.check()
        claim.finish(
            size_bytes=model.size_bytes,
            measurements=evaluation.measurements,
            outcomes=evaluation.outcomes,
            artifact=artifact,
            facts=facts,
            seconds=seconds,
        )
        if recipe.steps and checkpoint is not None:
            checkpoint.remove()

    def _first_steps(self, base: _Base) -> list[Step]:
        """Return the first steps of the runs of a base model that are still to be computed."""
        recipes = [r for model, r in self._upcoming if model == base.name and r.steps]
        ids = run_ids(self.store, base.name, recipes)
        done = self.store.done(ids)
        return [
            recipe.steps[0]
            for recipe, id in zip(recipes, ids, strict=True)
            if id not in done or recipe.steps[0] in base.ahead
        ]

    def _ready(self, name: str, monitor: Monitor) -> _Base:
        """Return the base model bound to the task; another one that was kept is let go."""
        from workbench.compression.joint_solving import SolvedAhead
        from workbench.runtime.measure.evaluate import Reference

        given = self._models.get(name)
        description = _described(self.store, name)
        if given is not None and given.fingerprint != description["fingerprint"]:
            raise StudyError(_changed(name, given.source.ref))
        if self._base is not None and self._base.name == name:
            if given is None:  # another process may have recorded another device since
                moved = description.get("device") not in (None, self._base.recorded_device)
            else:
                moved = given.device != self._base.dense.device
            if moved:
                self._base = None
        if self._base is None or self._base.name != name:
            self._base = None
            monitor.report("load", 0, 1, name)
            model = given if given is not None else reload_model(self.store, name)
            dense = self._bound(name, model, monitor)
            notes = tuple(self.task.notes(model, dense))
            reference = Reference(dense, self.task)
            recorded = description.get("device")
            self._base = _Base(name, dense, reference, SolvedAhead(), recorded, notes)
            self.task.say(notes)
            monitor.report("load", 1, 1, name)
        return self._base

    def _bound(self, name: str, model: LoadedModel, monitor: Monitor) -> LoadedModel:
        """Bind the model to the task; what was made of it for that is kept in the study."""
        from workbench.models.loaded import Anchors, ClassificationHead

        kinds: dict[str, type[ClassificationHead] | type[Anchors]]
        kinds = {"head": ClassificationHead, "anchors": Anchors}
        called = {"head": "classifier is", "anchors": "anchors are"}
        stem = self.store.model_folder(name).name
        paths = {part: self.store.file("task", f"{stem}.{part}.safetensors") for part in kinds}
        for part, path in paths.items():
            if not path.is_file():
                continue
            if not self.store.is_as_sealed(path):
                raise StudyError(
                    f"The task's {called[part]} damaged: {path} is not as it was written, and"
                    " every run would answer otherwise. Restore the file from a copy of the study;"
                    " or delete it, and it is made again like the first time."
                )
            kept: Any = {part: kinds[part].load(path)}
            model = dataclasses.replace(model, **kept)
        dense = self.task.bind(model, monitor=monitor)
        for part, path in paths.items():
            made = getattr(dense, part)
            if made is not None and made is not getattr(model, part):
                aside = aside_of(path)
                made.save(aside)
                self.store.keep_file(aside, path)
        return dense

    def _calibrator(self, base: _Base, options: CalibrationOptions) -> Calibrator:
        from workbench.calibration.calibrate import Calibrator

        if options not in base.calibrators:
            base.calibrators[options] = Calibrator(
                self.task, options, folder=self.store.statistics_folder
            )
        return base.calibrators[options]

    def _save(self, model: LoadedModel) -> tuple[str, str]:
        """Return the digest of the file, and that of the tensors in it."""
        from workbench.storage.artifacts import save_weights

        contents = []
        digest = self.store.keep_artifact(lambda path: contents.append(save_weights(path, model)))
        return digest, contents[0]

    def _solve_again(self, base: _Base, record: RunRecord, monitor: Monitor) -> Path:
        from workbench.calibration.calibrate import CalibrationOptions
        from workbench.compression.compress import compress
        from workbench.compression.needs import RecipeNeeds

        options = CalibrationOptions(**record.facts.get("calibration", {}))
        calibrator = self._calibrator(base, options)
        start = self._start(base, RecipeNeeds.of(record.recipe), monitor)
        compressed = compress(
            base.dense,
            record.recipe,
            calibrator,
            monitor=monitor,
            start=start,
            load_run=partial(self.model, monitor=monitor),
        )
        digest, contents = self._save(compressed.model)
        path = self.store.artifact(digest)
        if contents != record.facts["weights_digest"] or path is None:
            raise StudyError(
                f"The weights of run {record.id} ({record.label}) were evicted from the disk, and"
                " computing them again gave other ones, so the measurements would not be theirs"
                " (another machine, number of threads or version of torch). Delete the run and run"
                " the recipe again."
            )
        return path

    def _parent(self, model: str, recipe: Recipe) -> str | None:
        """Return the finished run of the recipe's longest prefix."""
        for length in range(len(recipe.steps) - 1, -1, -1):
            run = run_id(self.store, model, recipe.prefix(length))
            record = self.store.record(run)
            if record is not None and record.state is RunState.DONE:
                return run
        return None

    def _check_baseline(self, model: str) -> None:
        record = self.store.record(run_id(self.store, model, Recipe()))
        if record is None or record.state is not RunState.DONE:
            why = "" if record is None or not record.error else f": {record.error}"
            raise StudyError(
                f"The base model {model!r} was not evaluated, so there is nothing to compare"
                f" with{why}"
            )


def said(error: Exception, folder: Path) -> Exception:
    """Return an error of a library about a full disk or too little memory as one that says so.

    Parameters
    ----------
    error : Exception
    folder : Path
        Of the study.
    """
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in _FULL):
        return DiskFullError(
            f"The disk with {folder} is full. Finished runs are kept: free some space, and run the"
            " same again."
        )
    if not isinstance(error, WorkbenchError) and any(words in text for words in _NO_MEMORY):
        return NotEnoughMemoryError(
            "There is too little memory for this run: the machine's, or a limit that is set for"
            f" the process ({text.splitlines()[0][:200]}). Close other programs, or take a smaller"
            " model, shorter texts or a smaller batch."
        )
    return error


_FULL = ("No space left on device", "os error 28", "The disk with ", "disk quota exceeded")
_NO_MEMORY = ("could not create a primitive", "can't allocate memory", "Cannot allocate memory")


def in_words(error: BaseException) -> str:
    """Return an exception's type and message for people, at most 2,000 characters."""
    words = str(error).strip()
    return f"{type(error).__name__}: {words}"[:2000] if words else type(error).__name__


def _described(store: Store, model: str) -> dict[str, Any]:
    models = store.models()
    if model not in models:
        known = ", ".join(map(repr, models)) or "none yet"
        raise StudyError(
            f"The study has no base model named {model!r}; it has {known}. Add it with"
            " study.add_model(...)."
        )
    return models[model]


def _changed(name: str, ref: str) -> str:
    return (
        f"The base model {name!r} ({ref}) is not the one that this study was made with: its"
        " weights, configuration or tokenizer have changed since. Put the original back, or start"
        " a new study; for a model that you changed in memory, start one with"
        " load_model(model.hf_model, model.tokenizer)."
    )


def _place(model: LoadedModel) -> str:
    """Return the device that a model is on and its name, for a run's facts."""
    from workbench.tensors.devices import device_name

    device, name = str(model.device), device_name(model.device)
    return device if name == model.device.type else f"{device} ({name})"


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {
        "workbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    taken = round(time.perf_counter() - start, 3)
    if taken:  # nothing was loaded or calibrated where that was done before
        seconds[stage] = round(seconds.get(stage, 0.0) + taken, 3)
