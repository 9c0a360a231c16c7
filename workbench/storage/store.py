"""A study's folder: the journal of runs, their per-example outcomes and their compressed weights.

Only the store writes into the folder's journal. Files are written to a temporary name and renamed,
so that whatever is found under its final name is complete, at whatever moment a process was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import math
import os
import platform
import re
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workbench.atomic_files import age_seconds as _age_seconds
from workbench.atomic_files import aside_of as _temporary
from workbench.atomic_files import remove_leftovers
from workbench.errors import ConfigError, StudyError, WorkbenchError
from workbench.fields import printable, whole
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.storage.journal import (
    INTERRUPTED,
    Journal,
    Owner,
    annotation_of,
    annotations_of,
    digest_of,
    insert_measurements,
    is_abandoned,
    is_damaged,
    measurements_of,
    now,
    record_of,
)
from workbench.storage.snapshot import Snapshot, Snapshots
from workbench.stored_paths import check_folder, remove, within

if TYPE_CHECKING:
    from workbench.tasks.outcomes import Outcomes

JOURNAL_NAME = "study.sqlite"
DISK_BUDGET_BYTES = 2_000_000_000
HEARTBEAT_SECONDS = 5.0


class Store:
    """The folder of one study. Use :meth:`create` or :meth:`open` to get one.

    Any number of stores, in any number of processes, may use one folder at the same time.

    Attributes
    ----------
    path : Path
        The folder, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path / JOURNAL_NAME)
        self._snapshots = Snapshots(self, self._journal)

    @classmethod
    def create(cls, path: str | Path, *, disk_budget_bytes: int | None = None) -> Store:
        """Return the store in a folder, which is made a study if it is new or empty.

        Parameters
        ----------
        path : str or Path
            The folder; made with its parents if it does not exist.
        disk_budget_bytes : int, optional
            Limit for the compressed weights that are kept; the least recently used go first and
            are computed again when asked for. Default: what the study has, or 2 GB.

        Raises
        ------
        StudyError
            If the path is a file, a folder of something else, not writable, or damaged.
        UnsafePathError
            If a link in the folder leads out of it.
        ConfigError
            If the budget is not accepted.
        """
        store = cls(_folder(path))
        if disk_budget_bytes is not None:
            disk_budget_bytes = whole("Study", "disk_budget_bytes", disk_budget_bytes, unit="bytes")
        try:
            store.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in store.path.iterdir()}
            others = [name for name in names if name[0] != "." and not name.endswith(".tmp")]
            if others and JOURNAL_NAME not in names:
                raise StudyError(
                    f"{store.path} is not a study and not empty. Give a new or an empty folder, so"
                    " that a study never mixes with other files."
                )
            check_folder(store.path)
            store.check_writable()
        except OSError as error:
            raise StudyError(
                f"No study can be made in {store.path}: {error.strerror or error}. Give a folder"
                " that you can write to."
            ) from error
        store._journal.create()
        if disk_budget_bytes is not None:
            store.set_meta("disk_budget_bytes", disk_budget_bytes)
        return store

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Return the store of an existing study; a read-only one can be read.

        Raises
        ------
        StudyError
            If there is no study, or it is damaged or written by a newer version.
        UnsafePathError
            If a link in the folder leads out of it.
        """
        store = cls(_folder(path))
        if not store.path.exists():
            raise StudyError(
                f"There is no folder {store.path}. Give the path of a study, or start one with"
                " Study(model, task, path=...)."
            )
        check_folder(store.path)
        store._journal.check()
        return store

    def check_writable(self) -> None:
        """Raise OSError unless files can be made in the folder."""
        probe = _temporary(self.path / "probe")
        probe.touch()
        probe.unlink()  # a new folder is empty still, so whoever is killed here can start again

    def require_writable(self) -> None:
        """Raise StudyError unless runs can be recorded in the folder."""
        try:
            self.check_writable()
        except OSError as error:
            raise StudyError(
                f"Nothing can be computed in the study in {self.path}, because its folder cannot be"
                f" written to ({error.strerror or error}). What it holds can be looked at; copy it"
                " to a folder of yours to go on."
            ) from error

    # Where other parts of the study keep their files

    def file(self, *names: str) -> Path:
        """Return a path in the folder by plain names, one per level; it does not lead out.

        Raises
        ------
        UnsafePathError
            If it would, by a name that the journal states or by a link.
        """
        return within(self.path, *names)

    @property
    def task_folder(self) -> Path:
        """Where the task keeps its snapshot of the data."""
        return self.file("task")

    @property
    def statistics_folder(self) -> Path:
        """Where calibration statistics are cached."""
        return self.file("statistics")

    @property
    def log_path(self) -> Path:
        """What the worker process and the libraries in it print."""
        return self.file("worker.log")

    @property
    def _artifacts(self) -> Path:
        return self.file("artifacts")

    @property
    def _outcomes(self) -> Path:
        return self.file("outcomes")

    def checkpoint_path(self, run: str) -> Path:
        """Return where a run keeps the state of its training until it is done."""
        return self.file("checkpoints", f"{run}.safetensors")

    @property
    def disk_budget_bytes(self) -> int:
        """Limit for the compressed weights that are kept, and again for checkpoints."""
        budget = self.meta("disk_budget_bytes")
        return budget if isinstance(budget, int) and budget > 0 else DISK_BUDGET_BYTES

    def model_folder(self, name: str) -> Path:
        """Return where a live model is saved; the name is made safe for every file system."""
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]
        return self.file("models", f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")

    # What the study is about

    def meta(self, key: str) -> Any:
        """Return what :meth:`set_meta` stored, or None."""
        with self._journal.reading() as db:
            row = db.execute("SELECT * FROM meta WHERE key = ?", (key,)).fetchone()
        found = None if row is None else self._described(row, key, row["value"])
        if isinstance(found, dict) and isinstance(found.get("name"), str):
            found["name"] = printable(found["name"])
        return found

    def set_meta(self, key: str, value: Any) -> None:
        """Store JSON-ready data under a key."""
        text = json.dumps(value)
        with self._journal.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO meta (key, value, digest) VALUES (?, ?, ?)",
                (key, text, digest_of([key, text])),
            )

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the base models in the order of their addition: name and description."""
        with self._journal.reading() as db:
            rows = db.execute("SELECT * FROM models ORDER BY position").fetchall()
        return {
            printable(row["name"]): self._described(row, row["name"], row["description"])
            for row in rows
        }

    def _described(self, row: sqlite3.Row, name: str, text: str) -> Any:
        """Return the JSON of a row of ``meta`` or ``models``, which has a digest of both."""
        sealed = row["digest"] if "digest" in row.keys() else None  # noqa: SIM118
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            if sealed is None or sealed == digest_of([name, text]):
                return json.loads(text)
        raise StudyError(
            f"What the journal of {self.path} says about {name!r} is damaged. Restore the folder"
            " from a copy, or give another path to start a new study."
        )

    def add_model(self, name: str, description: dict[str, Any]) -> None:
        """Add a base model; its JSON-ready description says how to load it again."""
        text = json.dumps(description)
        with self._journal.writing() as db:
            try:
                db.execute(
                    "INSERT INTO models (name, description, digest) VALUES (?, ?, ?)",
                    (name, text, digest_of([name, text])),
                )
            except sqlite3.IntegrityError as error:
                raise StudyError(
                    f"The study has a model named {name!r} already; give another name."
                ) from error

    def update_model(self, name: str, description: dict[str, Any]) -> None:
        """Replace the description of a base model that the study has."""
        text = json.dumps(description)
        with self._journal.writing() as db:
            db.execute(
                "UPDATE models SET description = ?, digest = ? WHERE name = ?",
                (text, digest_of([name, text]), name),
            )

    # Runs

    def snapshot(self) -> Snapshot:
        """Return all runs as they are now; the same object as before while nothing has changed.

        What another process wrote is seen, and only rows that were written since are read anew.
        Runs whose process is gone become interrupted.
        """
        return self._snapshots.now()

    def records(self) -> tuple[RunRecord, ...]:
        """Return all runs, oldest first; those whose process is gone become interrupted."""
        return self.snapshot().records

    def record(self, run: str) -> RunRecord | None:
        """Return one run, or None if there is none with this id."""
        with self._journal.reading() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
            measured = measurements_of(db, "WHERE run = ?", (run,))
            said = annotations_of(db, "WHERE run = ?", (run,))
        return None if row is None else record_of(row, measured.get(run, ()), said.get(run))

    def done(self, runs: Sequence[str]) -> frozenset[str]:
        """Return those of some runs that are done, by one question to the journal."""
        places = ", ".join("?" * len(runs))
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT id FROM runs WHERE state = ? AND id IN ({places})",
                (RunState.DONE.value, *runs),
            ).fetchall()
        return frozenset(row["id"] for row in rows)

    def claim(
        self, run: str, *, model: str, recipe: Recipe, parent: str | None = None
    ) -> Claim | None:
        """Make this process the only one that computes a run.

        Returns
        -------
        Claim or None
            None if the run is done, or a living process computes it. A run whose row or outcomes
            are damaged is not done: it is computed again.
        """
        claim = Claim(self, run)
        owner = claim.owner
        with self._journal.writing() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
            if row is not None:
                measured = measurements_of(db, "WHERE run = ?", (run,)).get(run, ())
                intact = not is_damaged(row, measured)
                if intact and row["state"] == RunState.DONE.value and self.has_outcomes(run):
                    return None
                if intact and row["state"] == RunState.RUNNING.value and not is_abandoned(row):
                    return None
                db.execute("DELETE FROM measurements WHERE run = ?", (run,))
            else:
                db.execute(
                    "INSERT INTO runs (id, model, recipe, state, created) VALUES (?, ?, ?, '', '')",
                    (run, model, recipe.to_json()),
                )
            db.execute(
                "UPDATE runs SET model = ?, recipe = ?, state = ?, parent = ?, size_bytes = NULL,"
                " artifact = NULL, facts = '{}', seconds = '{}', error = NULL, created = ?,"
                " claim = ?, host = ?, pid = ?, pid_started = ?, heartbeat = ?, process = ?"
                " WHERE id = ?",
                (
                    *(model, recipe.to_json(), RunState.RUNNING.value, parent, now(), claim.token),
                    *(owner.host, owner.pid, owner.started, time.time(), owner.process, run),
                ),
            )
        return claim

    def settle(self, run: str, pid: int, state: RunState, error: str) -> RunRecord | None:
        """Record what became of a run whose process, on this computer, is known to have ended.

        Returns
        -------
        RunRecord or None
            The run as it is now: unchanged if the process had finished it before it ended.
        """
        with self._journal.writing() as db:
            db.execute(
                "UPDATE runs SET state = ?, error = ?, claim = NULL"
                " WHERE id = ? AND state = ? AND pid = ? AND host = ?",
                (state.value, error, run, RunState.RUNNING.value, pid, platform.node()),
            )
        return self.record(run)

    def add_measurements(self, run: str, measurements: Iterable[Measurement]) -> None:
        """Append what was measured later; earlier values of the same metric are kept."""
        with self._journal.writing() as db:
            # A write that changes nothing: SQLite says only then that a journal is read-only.
            if not db.execute("UPDATE runs SET id = id WHERE id = ?", (run,)).rowcount:
                raise StudyError(f"There is no run {run} in {self.path}; was it deleted?")
            insert_measurements(db, run, measurements)

    def renew_measurements(self, metrics: Iterable[Metric]) -> None:
        """Compute again, from outcomes, what was measured by earlier definitions of its metric.

        Where a run has no outcomes the number becomes NaN, so that no two definitions mix.
        """
        from workbench.tasks.metrics import measurement, score_outcomes

        for metric in metrics:
            if metric.version == 1:
                continue
            old = "metric = ? AND part = 'evaluation' AND version < ?"
            with self._journal.reading() as db:
                rows = db.execute(
                    f"SELECT run, max(n) AS n FROM measurements WHERE {old} GROUP BY run",
                    (metric.name, metric.version),
                ).fetchall()
            for row in rows:
                again = Measurement(
                    *(metric.name, math.nan, metric.unit, row["n"]),
                    how="by an earlier definition; its outcomes are gone",
                    version=metric.version,
                )
                with contextlib.suppress(StudyError):
                    outcomes = self.outcomes(row["run"])
                    found = score_outcomes(metric, outcomes)
                    if found is not None:
                        again = measurement(metric, found.estimate, len(outcomes))
                with self._journal.writing() as db:
                    db.execute(
                        f"DELETE FROM measurements WHERE run = ? AND {old}",
                        (row["run"], metric.name, metric.version),
                    )
                    insert_measurements(db, row["run"], (again,))

    def forget_outcomes(self, run: str, metrics: Iterable[Metric]) -> None:
        """Make the evaluation of a run what is to be done again: NaN, and without outcomes."""
        n = max((m.n for m in self.snapshot().by_id[run].measurements), default=0)
        words = "as texts were read by an earlier version; run the recipe again"
        again = [
            Measurement(m.name, math.nan, m.unit, n, how=words, version=m.version) for m in metrics
        ]
        with self._journal.writing() as db:
            db.execute("DELETE FROM measurements WHERE run = ? AND part = 'evaluation'", (run,))
            insert_measurements(db, run, again)
            db.execute("DELETE FROM files WHERE name LIKE ?", (f"outcomes/{run}.%",))
        for path in self._outcome_files(run):
            remove(self.path, path)

    def _outcome_files(self, run: str) -> list[Path]:
        return [self.outcomes_path(run), *self._outcomes.glob(f"{glob.escape(run)}.*.npz")]

    def annotate(self, run: str, **changes: Any) -> None:
        """Change what the user says of a run: fields of :class:`workbench.records.Annotation`.

        Raises
        ------
        StudyError
            If there is no such run.
        """
        with self._journal.writing() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                raise StudyError(f"There is no run {run} in {self.path}; was it deleted?")
            said = annotations_of(db, "WHERE run = ?", (run,)).get(run)
            # Read within the transaction: what another process says of it meanwhile stays.
            annotation = dataclasses.replace(annotation_of(said), **changes)
            db.execute(
                "INSERT INTO annotations VALUES (?, ?)"
                " ON CONFLICT (run) DO UPDATE SET content = excluded.content",
                (run, json.dumps(dataclasses.asdict(annotation))),
            )

    def delete(self, run: str) -> int:
        """Delete a run, its outcomes, and its weights unless another run has the same.

        The journal keeps that it was there; see :meth:`deletions`.

        Returns
        -------
        int
            The bytes of the files that were removed.

        Raises
        ------
        StudyError
            If there is no such run, it is being computed, or other runs are compared to it.
        """
        with self._journal.writing() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                raise StudyError(f"There is no run {run} in {self.path}; was it deleted before?")
            if row["state"] == RunState.RUNNING.value and not is_abandoned(row):
                raise StudyError(f"Run {run} is being computed; cancel it before you delete it.")
            others = db.execute(
                "SELECT count(*) FROM runs WHERE model = ? AND id != ?", (row["model"], run)
            ).fetchone()[0]
            if others and _is_baseline(row):
                raise StudyError(
                    f"Run {run} is the base model {row['model']!r}, which {others} other runs are"
                    " compared to. Delete those first."
                )
            paths = self._files_of(db, [row])
            freed = sum(map(_size_of, paths))
            said = annotations_of(db, "WHERE run = ?", (run,)).get(run)
            with contextlib.suppress(ConfigError):  # of one that is damaged nothing is known
                label = annotation_of(said).name or Recipe.from_json(row["recipe"]).label
                db.execute(
                    "INSERT INTO deletions (run, model, recipe, label, created, deleted,"
                    " freed_bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (run, row["model"], row["recipe"], label, row["created"], now(), freed),
                )
            db.execute("UPDATE runs SET parent = ? WHERE parent = ?", (row["parent"], run))
            db.execute("DELETE FROM runs WHERE id = ?", (run,))
            db.execute("DELETE FROM files WHERE name LIKE ?", (f"outcomes/{run}.%",))
            if row["artifact"] and self._artifact_path(row["artifact"]) in paths:
                db.execute("DELETE FROM artifacts WHERE digest = ?", (row["artifact"],))
        for path in paths:
            remove(self.path, path)
        return freed

    def would_free(self, runs: Iterable[str]) -> int:
        """Return the bytes of the files that go if these runs are deleted, all of them."""
        with self._journal.reading() as db:
            found = [
                db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone() for run in runs
            ]
            return sum(map(_size_of, self._files_of(db, [row for row in found if row])))

    def _files_of(self, db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Path]:
        """Return the files of some runs that no other run needs."""
        ids = [row["id"] for row in rows]
        places = ", ".join("?" * len(ids))
        paths = []
        for row in rows:
            paths += [*self._outcome_files(row["id"]), self.checkpoint_path(row["id"])]
        for digest in {row["artifact"] for row in rows if row["artifact"]}:
            shared = db.execute(
                f"SELECT 1 FROM runs WHERE artifact = ? AND id NOT IN ({places})", (digest, *ids)
            ).fetchone()
            if not shared:
                paths.append(self._artifact_path(digest))
        return list(dict.fromkeys(paths))

    def deletions(self) -> list[dict[str, Any]]:
        """Return what the journal keeps of runs that were deleted, oldest first."""
        with self._journal.reading() as db:
            if not _has_table(db, "deletions"):
                return []
            rows = db.execute("SELECT * FROM deletions ORDER BY position").fetchall()
        return [{name: row[name] for name in row.keys() if name != "position"} for row in rows]  # noqa: SIM118

    def disk_use(self) -> dict[str, int]:
        """Return the bytes of the folder by what they are for; links are not followed."""
        found = dict.fromkeys(DISK_PARTS, 0)
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = Path(folder, name)
                top = path.relative_to(self.path).parts[0]
                part = _PART_OF.get(top, "other")
                found[part] += _size_of(path)
        return found

    def clean(self, part: str) -> int:
        """Remove files that are made again when they are needed; return their bytes.

        Parameters
        ----------
        part : {"weights", "statistics", "predictions", "checkpoints"}

        Raises
        ------
        StudyError
            If a run is being computed.
        """
        freed = 0
        if any(record.state is RunState.RUNNING for record in self.records()):
            raise StudyError(
                f"A run of {self.path} is being computed, which may need its {part}; wait for it,"
                " or cancel it."
            )
        if part == "weights":
            with self._journal.writing() as db:
                db.execute("DELETE FROM artifacts")
        folder = self.file("artifacts" if part == "weights" else part)
        for path in sorted(folder.glob("*")):
            if path.is_file():
                size = _size_of(path)
                remove(self.path, path)
                freed += 0 if path.exists() else size
        return freed

    def outcomes_path(self, run: str, what: str = "") -> Path:
        """Return the file of a run's outcomes, or of those that were evaluated later."""
        return self.file("outcomes", f"{run}.{what}.npz" if what else f"{run}.npz")

    def outcomes(self, run: str) -> Outcomes:
        """Return the per-example outcomes of a finished run, not to be changed.

        The file is read once for as long as it is the same file.

        Raises
        ------
        StudyError
            If they are missing, or damaged.
        """
        return self._snapshots.memory.outcomes(run)

    def read_outcomes(self, run: str) -> Outcomes:
        """Return what the file of a run's outcomes says; see :meth:`outcomes`."""
        path = self.outcomes_path(run)
        if not path.exists():
            raise StudyError(
                f"Run {run} has no outcomes: it is not finished, or the file {path.name} was"
                " removed from the study. Run the same recipe again."
            )
        return self._read_outcomes(run, path)

    def outcomes_of(self, run: str, what: str) -> Outcomes | None:
        """Return outcomes that were evaluated later, such as of the validation part, or None.

        Those that are damaged are removed, so that they are evaluated again.
        """
        path = self.outcomes_path(run, what)
        if not path.exists():
            return None
        try:
            return self._read_outcomes(run, path)
        except StudyError:
            with contextlib.suppress(OSError):  # in a folder that is read-only
                path.unlink()
            return None

    def has_outcomes(self, run: str) -> bool:
        """Return whether the outcomes of a run are there and undamaged."""
        path = self.outcomes_path(run)
        sealed = self.sealed(path) if path.exists() else None
        if sealed is not None:
            return digest_of_file(path) == sealed
        try:
            self.read_outcomes(run)
        except StudyError:
            return False
        return True

    def _read_outcomes(self, run: str, path: Path) -> Outcomes:
        from workbench.tasks.outcomes import Outcomes

        problem = f"The outcomes of run {run} are damaged: {path}."
        again = (
            " Run the same recipe again, which computes them anew; all other runs are as before."
        )
        if not self.is_as_sealed(path):
            raise StudyError(f"{problem}{again}")
        try:
            return Outcomes.load(path)
        except Exception as error:  # of zipfile, zlib and numpy, which name neither run nor file
            raise StudyError(f"{problem} ({error}){again}") from error

    def keep_outcomes(self, run: str, what: str, outcomes: Outcomes) -> None:
        """Keep outcomes that were evaluated after the run; they go when the run is deleted.

        Raises
        ------
        StudyError
            If there is no such run.
        """
        if self.record(run) is None:
            raise StudyError(f"There is no run {run} in {self.path}; was it deleted?")
        path = self.outcomes_path(run, what)
        temporary = _temporary(path)
        try:
            outcomes.save(temporary)
            self.keep_file(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    # Files that decide, and their digests

    def keep_file(self, temporary: Path, path: Path) -> None:
        """Give a file that was written aside its name, and record its digest; see :meth:`sealed`.

        Parameters
        ----------
        temporary : Path
            In the same folder.
        path : Path
            Within the study; replaced if it is there.
        """
        digest = digest_of_file(temporary)
        with self._journal.writing() as db:
            self._seal(db, path, digest)
            _publish(temporary, path)

    def sealed(self, path: Path) -> str | None:
        """Return the digest that a file had when it was written, None where none was recorded."""
        name = path.relative_to(self.path).as_posix()
        with self._journal.reading() as db:
            if not _has_table(db, "files"):  # a read-only journal of an earlier version
                return None
            row = db.execute("SELECT digest FROM files WHERE name = ?", (name,)).fetchone()
        return None if row is None else row["digest"]

    def is_as_sealed(self, path: Path) -> bool:
        """Return whether a file is what was written, as far as is recorded."""
        sealed = self.sealed(path)
        return sealed is None or sealed == digest_of_file(path)

    def _seal(self, db: sqlite3.Connection, path: Path, digest: str) -> None:
        name = path.relative_to(self.path).as_posix()
        db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, digest))

    # Compressed weights

    def keep_artifact(self, write: Callable[[Path], object]) -> str:
        """Store a file under the digest of its content and return the digest.

        Parameters
        ----------
        write : callable
            Called with the path to write the file to.
        """
        temporary = _temporary(self._artifacts / "weights")
        try:
            write(temporary)
            digest, size = digest_of_file(temporary), temporary.stat().st_size
            path = self._artifact_path(digest)
            if not path.exists():
                _publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        self._register(digest, size)
        return digest

    def artifact(self, digest: str) -> Path | None:
        """Return the file with this digest, or None if it was evicted or is damaged."""
        path = self._artifact_path(digest)
        try:
            if digest_of_file(path) != digest:
                remove(self.path, path)
                return None
        except FileNotFoundError:
            return None
        with contextlib.suppress(StudyError), self._journal.writing() as db:
            db.execute("UPDATE artifacts SET last_used = ? WHERE digest = ?", (time.time(), digest))
        return path

    def _register(self, keep: str, size: int) -> None:
        """Note that a file is there, and evict others until all fit into the budget."""
        budget = self.disk_budget_bytes
        with self._journal.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?)", (keep, size, time.time())
            )
            rows = db.execute("SELECT * FROM artifacts ORDER BY last_used DESC").fetchall()
            total, evicted = 0, []
            for row in sorted(rows, key=lambda row: row["digest"] != keep):
                total += row["size_bytes"]
                if total > budget and row["digest"] != keep:
                    evicted.append(row["digest"])
                    total -= row["size_bytes"]
            db.executemany("DELETE FROM artifacts WHERE digest = ?", [(d,) for d in evicted])
        for digest in evicted:  # one in use on Windows is counted no longer, and kept a while
            remove(self.path, self._artifact_path(digest))

    # Housekeeping

    def recover(self) -> None:
        """Mark runs of processes that are gone as interrupted, and remove what they left."""
        self.give_up_abandoned()
        with self._journal.reading() as db:
            known = {row["digest"] for row in db.execute("SELECT digest FROM artifacts")}
            unfinished = {
                row["id"] for row in db.execute("SELECT id FROM runs WHERE state != 'done'")
            }
        for path in self.file("checkpoints").glob("*.safetensors"):
            if path.stem not in unfinished:
                remove(self.path, path)
        for path in self._artifacts.glob("*.safetensors"):
            if path.stem not in known and _age_seconds(path) > 3600:
                remove(self.path, path)
        for name in ("artifacts", "outcomes", "checkpoints", "task"):
            remove_leftovers(self.file(name), "*.tmp")
        remove_leftovers(self.path, "*.tmp", ".report.html.*")
        for name in ("statistics", "predictions"):
            remove_leftovers(self.file(name), ".*")
        for folder in self.file("models").glob("*"):
            remove_leftovers(folder, ".saving-*")

    def give_up_abandoned(self) -> None:
        """Mark runs whose process is gone as interrupted."""
        with self._journal.writing() as db:
            rows = db.execute("SELECT * FROM runs WHERE state = 'running'").fetchall()
            for row in rows:
                if is_abandoned(row):  # its claim stays: should it live after all, it can finish
                    db.execute(
                        "UPDATE runs SET state = ?, error = ? WHERE id = ?",
                        (RunState.INTERRUPTED.value, INTERRUPTED, row["id"]),
                    )

    def _artifact_path(self, digest: str) -> Path:
        return self.file("artifacts", f"{digest}.safetensors")


class Claim:
    """The right of this process to compute a run; as a context manager it keeps the right alive.

    Leaving the context without :meth:`finish` or :meth:`fail` records the exception that ended it.
    """

    def __init__(self, store: Store, run: str) -> None:
        self.run = run
        self.token = uuid.uuid4().hex
        self.owner = Owner.here()
        self._store = store
        self._ended = threading.Event()

    def __enter__(self) -> Claim:
        threading.Thread(target=self._keep_alive, name=f"heartbeat-{self.run}", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._ended.is_set():
            words = f"{type(error).__name__}: {error}" if error else "It was left unfinished."
            self.fail(RunState.FAILED, words)

    def finish(
        self,
        *,
        size_bytes: int,
        measurements: Iterable[Measurement],
        outcomes: Outcomes,
        artifact: str | None,
        facts: dict[str, Any],
        seconds: dict[str, float],
    ) -> None:
        """Record the run as done, all of it at once.

        Raises
        ------
        StudyError
            If another process took the run over because this one seemed to be gone.
        """
        path = self._store.outcomes_path(self.run)
        temporary = _temporary(path)
        try:
            outcomes.save(temporary)
            digest = digest_of_file(temporary)
            with self._store._journal.writing() as db:
                self._store._seal(db, path, digest)
                self._update(
                    db,
                    RunState.DONE,
                    error=None,
                    size_bytes=size_bytes,
                    artifact=artifact,
                    facts=json.dumps(facts | {"artifact": artifact}, sort_keys=True),
                    seconds=json.dumps(seconds),
                )
                insert_measurements(db, self.run, measurements)
                _publish(temporary, path)  # before the commit: a run that is done has its outcomes
            self._ended.set()
        finally:
            temporary.unlink(missing_ok=True)

    def fail(self, state: RunState, error: str) -> None:
        """Record that the run ended without a result, and why."""
        with contextlib.suppress(_TakenOverError), self._store._journal.writing() as db:
            self._update(db, state, error=error)
        self._ended.set()

    def _update(self, db: sqlite3.Connection, state: RunState, **columns: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        changed = db.execute(
            f"UPDATE runs SET state = ?, claim = NULL, {names} WHERE id = ? AND claim = ?",
            (state.value, *columns.values(), self.run, self.token),
        )
        if changed.rowcount == 0:
            raise _TakenOverError(
                f"Run {self.run} was deleted or taken over by another process while this one"
                " computed it; its result here is dropped."
            )

    def _keep_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(StudyError), self._store._journal.writing() as db:
                db.execute(
                    "UPDATE runs SET heartbeat = ?, state = 'running', error = NULL"
                    " WHERE id = ? AND claim = ? AND state IN ('running', 'interrupted')",
                    (time.time(), self.run, self.token),
                )


class _TakenOverError(StudyError):
    """The row of a claim belongs to somebody else by now."""


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser().absolute()
    if folder.is_file():
        raise StudyError(f"{folder} is a file; a study is a folder. Give the folder's path.")
    return folder


def _publish(temporary: Path, path: Path) -> None:
    """Rename a finished file to its final name, after its bytes are on the disk."""
    with temporary.open("r+b") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _is_baseline(row: sqlite3.Row) -> bool:
    try:
        return not Recipe.from_json(row["recipe"]).steps
    except WorkbenchError:  # damaged, or of a newer version: it can be deleted all the same
        return False


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())


def digest_of_file(path: Path) -> str:
    """Return the sha256 of a file, 64 hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


DISK_PARTS = (
    *("weights", "outcomes", "statistics", "predictions", "checkpoints", "models", "task"),
    *("journal", "other"),
)
"""What the bytes of a study are for."""

CLEANABLE = ("weights", "statistics", "predictions", "checkpoints")
"""What is made again when it is needed."""

_PART_OF = {
    **{name: name for name in DISK_PARTS},
    "artifacts": "weights",
    JOURNAL_NAME: "journal",
}


def _size_of(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
