"""The SQLite file of a study: its schema, connections and rows, and who is alive to own one.

A rollback journal and a busy timeout, because studies live on network drives and several
processes write to one; every connection is opened for one operation and closed after it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
import platform
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from workbench.atomic_files import FileIdentity, identity_of
from workbench.errors import ConfigError, DiskFullError, StudyError
from workbench.fields import printable
from workbench.processes import identity, is_same
from workbench.recipes.recipe import Recipe
from workbench.records import Annotation, Measurement, RunRecord, RunState

SCHEMA_VERSION = 6
BUSY_SECONDS = 30.0
STALE_SECONDS = 60.0
"""A run of another computer is given up when its heartbeat did not change for so long."""
LOST_SECONDS = 24 * 3600.0
"""Or, at first sight, when it is older than this by the clocks, which may differ."""

INTERRUPTED = (
    "The process that computed it ended before it was finished. Run the same recipe again."
)

DAMAGED = (
    "Its row in the journal is damaged, so what is written there is not shown. Run the same recipe"
    " again, or delete the run."
)

DECISIVE = (
    *("id", "model", "recipe", "state", "parent", "size_bytes", "artifact", "facts", "seconds"),
    *("error", "created"),
)
"""Columns of the table ``runs`` that a record is made of; the others say who computes it."""

_MEASURED = (
    *("metric", "value", "unit", "n", "stderr", "part", "spread", "how", "conditions", "samples"),
    "version",
)

_CHANGED = "UPDATE changes SET count = count + 1"
_TOUCHED = f"{_CHANGED}; UPDATE runs SET digest = NULL, revision = (SELECT count FROM changes)"
_DIFFERS = "({}) IS NOT ({})".format(
    *(", ".join(f"{row}.{name}" for name in DECISIVE) for row in ("OLD", "NEW"))
)

_TRIGGERS = (
    f"CREATE TRIGGER run_added AFTER INSERT ON runs"
    f" BEGIN {_TOUCHED} WHERE position = NEW.position; END",
    f"CREATE TRIGGER run_changed AFTER UPDATE ON runs WHEN {_DIFFERS}"
    f" BEGIN {_TOUCHED} WHERE position = NEW.position; END",
    f"CREATE TRIGGER run_deleted AFTER DELETE ON runs BEGIN {_CHANGED}; END",
    *(
        f"CREATE TRIGGER measurements_{event.lower()} AFTER {event} ON measurements"
        f" BEGIN {_TOUCHED} WHERE id = {row}.run; END"
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
    ),
    *(
        f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN {_CHANGED}; END"
        for table in ("meta", "models")
        for event in ("INSERT", "UPDATE", "DELETE")
    ),
)
"""They see every write, whoever makes it."""

_DIGESTS_AND_CHANGES = (
    "CREATE TABLE changes (count INTEGER NOT NULL)",
    "INSERT INTO changes VALUES (1)",
    "ALTER TABLE runs ADD COLUMN revision INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE runs ADD COLUMN digest TEXT",
    "ALTER TABLE meta ADD COLUMN digest TEXT",
    "ALTER TABLE models ADD COLUMN digest TEXT",
    "CREATE TABLE files (name TEXT PRIMARY KEY, digest TEXT NOT NULL)",
    "CREATE INDEX runs_by_revision ON runs(revision)",
    "CREATE INDEX runs_unsealed ON runs(position) WHERE digest IS NULL",
    "CREATE INDEX runs_running ON runs(position) WHERE state = 'running'",
    *_TRIGGERS,
)
"""What version 4 added: what changed since a count, and whether a row is what was written.

A row whose digest is NULL is sealed at the end of the transaction that wrote it, see
:meth:`Journal.writing`.
"""

_ANNOTATION_TRIGGERS = tuple(
    f"CREATE TRIGGER annotations_{event.lower()} AFTER {event} ON annotations BEGIN {_CHANGED};"
    f" UPDATE runs SET revision = (SELECT count FROM changes) WHERE id = {row}.run; END"
    for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
)

_ANNOTATIONS = (
    """CREATE TABLE annotations (
        run TEXT PRIMARY KEY REFERENCES runs(id) ON DELETE CASCADE,
        content TEXT NOT NULL
    )""",
    """CREATE TABLE deletions (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL,
        model TEXT NOT NULL,
        recipe TEXT NOT NULL,
        label TEXT NOT NULL,
        created TEXT NOT NULL,
        deleted TEXT NOT NULL,
        freed_bytes INTEGER NOT NULL
    )""",
    *_ANNOTATION_TRIGGERS,
)
"""What version 6 added: what the user says of runs, and which were deleted."""

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE models (
        position INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL
    )""",
    """CREATE TABLE runs (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        recipe TEXT NOT NULL,
        state TEXT NOT NULL,
        parent TEXT,
        size_bytes INTEGER,
        artifact TEXT,
        facts TEXT NOT NULL DEFAULT '{}',
        seconds TEXT NOT NULL DEFAULT '{}',
        error TEXT,
        created TEXT NOT NULL,
        claim TEXT,
        host TEXT,
        pid INTEGER,
        pid_started REAL,
        heartbeat REAL,
        process TEXT
    )""",
    """CREATE TABLE measurements (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
        metric TEXT NOT NULL,
        value REAL,
        unit TEXT NOT NULL,
        n INTEGER NOT NULL,
        stderr REAL,
        part TEXT NOT NULL,
        created TEXT NOT NULL,
        spread REAL,
        how TEXT NOT NULL DEFAULT '',
        conditions TEXT NOT NULL DEFAULT '',
        samples TEXT NOT NULL DEFAULT '[]',
        version INTEGER NOT NULL DEFAULT 1
    )""",
    "CREATE INDEX measurements_of_run ON measurements(run)",
    """CREATE TABLE artifacts (
        digest TEXT PRIMARY KEY,
        size_bytes INTEGER NOT NULL,
        last_used REAL NOT NULL
    )""",
    *_DIGESTS_AND_CHANGES,
    *_ANNOTATIONS,
)

_UPGRADES = {
    1: (  # how something was measured, and where
        "ALTER TABLE measurements ADD COLUMN spread REAL",
        "ALTER TABLE measurements ADD COLUMN how TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE measurements ADD COLUMN conditions TEXT NOT NULL DEFAULT ''",
    ),
    2: (  # the single times, which percentiles follow from
        "ALTER TABLE measurements ADD COLUMN samples TEXT NOT NULL DEFAULT '[]'",
    ),
    3: (  # by which definition of its metric a number was computed; digests, and what changed
        "ALTER TABLE measurements ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
        *_DIGESTS_AND_CHANGES,
    ),
    4: (  # which process computes a run, told apart by what no clock changes
        "ALTER TABLE runs ADD COLUMN process TEXT",
    ),
    5: _ANNOTATIONS,
}
"""What turns a journal of one version into the next one."""


@dataclass(frozen=True)
class Owner:
    """The process that owns a running row; a process id alone may be used again by another.

    Attributes
    ----------
    host : str
    pid : int
    process : str or None
        See :func:`workbench.processes.identity`; None in rows of earlier versions.
    started : float
        When the process was created, seconds since 1970, which decides for those.
    """

    host: str
    pid: int
    process: str | None
    started: float

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        pid = os.getpid()
        return cls(platform.node(), pid, identity(pid), psutil.Process().create_time())

    def is_alive(self, heartbeat: float) -> bool:
        """Return whether the process still exists, as far as can be known from here.

        Parameters
        ----------
        heartbeat : float
            When the process last wrote to the row; decides for processes of other computers.
        """
        if self.host != platform.node():
            return _beats(self, heartbeat)
        if self.process is not None:
            return is_same(self.pid, self.process)
        try:
            process = psutil.Process(self.pid)
            # Linux computes the creation time from a boot time that the clock's drift moves.
            same = abs(process.create_time() - self.started) < 5.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


_SEEN: dict[Owner, tuple[float, float]] = {}
"""Of processes of other computers: the heartbeat seen last, and when by the monotonic clock."""


def _beats(owner: Owner, heartbeat: float) -> bool:
    """Return whether a process of another computer may be alive.

    Two computers' clocks may differ, and either may be set while a run is computed. So a heartbeat
    is compared with itself, as long as this process has looked at it.
    """
    if time.time() - heartbeat > LOST_SECONDS:
        return False
    before, since = _SEEN.get(owner, (math.nan, 0.0))
    if before != heartbeat:
        _SEEN[owner] = (heartbeat, time.monotonic())
        return True
    return time.monotonic() - since < STALE_SECONDS


class Journal:
    """The study's SQLite file.

    Parameters
    ----------
    path : Path
        The file; :meth:`create` makes it, the other methods expect it to exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Write the schema, unless the file has it already; safe when two processes do so."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            version, tables = _version(db)
            if version == 0 and tables == 0:
                for statement in _SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.check()

    def check(self) -> None:
        """Raise StudyError unless the file is a journal that this version reads."""
        if not self.path.is_file():
            raise StudyError(f"{self.path.parent} is not a study: it has no {self.path.name}.")
        _check_rollback(self.path)
        with self._transaction("BEGIN") as db:
            version, tables = _version(db)
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            programs = db.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"
            ).fetchall()
        for kind, name, sql in programs:
            if sql not in (
                *_TRIGGERS,
                *_ANNOTATION_TRIGGERS,
            ):  # it would be run by other statements, and may never end
                raise StudyError(
                    f"The journal {self.path} holds a {kind} ({name[:40]!r}), which no study has."
                    " Do not open a study that you do not trust."
                )
        if found != "ok":
            raise StudyError(self._explain(sqlite3.DatabaseError(f"malformed: {found}")))
        if version > SCHEMA_VERSION:
            raise StudyError(
                f"The study in {self.path.parent} was written by a newer version (journal version"
                f" {version}, this one reads up to {SCHEMA_VERSION}). Upgrade"
                " compression-workbench to open it."
            )
        if version == 0:
            what = "an unfinished study" if tables == 0 else "not a study"
            raise StudyError(
                f"{self.path.parent} is {what}: {self.path.name} has none of a study's tables."
                " Start a study with Study(model, task, path=...)."
            )
        if version < SCHEMA_VERSION:
            try:
                self._upgrade()
            except StudyError as error:
                if not _is_read_only(error.__cause__):  # such a study is read as it is
                    raise

    def _upgrade(self) -> None:
        """Bring the file to this version; safe when two processes do so."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            _upgrade(db)

    def identity(self) -> FileIdentity:
        """Return what changes when the file is written to."""
        return identity_of(self.path)

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Return a context with a connection that sees one consistent state."""
        return self._transaction("BEGIN")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the only connection that may write; its end seals what was written, and commits."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            _upgrade(db)  # one that was read-only when it was opened
            yield db
            _seal(db)

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(
                sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            ) as db:
                db.row_factory = sqlite3.Row
                db.text_factory = _text
                db.execute("PRAGMA foreign_keys = ON")
                db.execute("PRAGMA trusted_schema = OFF")
                db.execute(begin)
                try:
                    yield db
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except IndexError as error:  # a column that every version has is called something else
            raise StudyError(self._explain(sqlite3.DatabaseError("malformed schema"))) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of sqlite3's own words
            kind = DiskFullError if "full" in str(error) else StudyError
            raise kind(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        folder, words = self.path.parent, str(error)
        if not folder.exists():
            return f"The study's folder {folder} is not there any more: it was moved or deleted."
        if _is_read_only(error):
            return (
                f"The study in {folder} cannot be written: the folder or its journal is read-only"
                " for you. Copy the folder to a place that you can write to, and open the copy."
            )
        if "locked" in words or "busy" in words:
            return (
                f"The study in {folder} stayed locked by another process for {BUSY_SECONDS:.0f} s."
                " Close the other notebook or terminal, or try again."
            )
        damage = "not a database" in words or "malformed" in words
        if damage or isinstance(error, UnicodeDecodeError):
            return (
                f"The journal {self.path} is damaged and cannot be read ({words}). Restore the"
                " folder from a copy, or give another path to start a new study."
            )
        if "full" in words:
            return f"The disk with {folder} is full; free some space and run it again."
        return f"The journal {self.path} cannot be used: {words}."


_ROLLBACK_MAGIC = bytes.fromhex("d9d505f920a163d7")


def _check_rollback(path: Path) -> None:
    """Refuse a rollback journal that names another file: SQLite would delete that one.

    Only transactions over several databases have such a name, and a study has one database.
    """
    rollback = path.with_name(f"{path.name}-journal")
    with contextlib.suppress(OSError), rollback.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - len(_ROLLBACK_MAGIC), 0))
        if size > len(_ROLLBACK_MAGIC) and stream.read() == _ROLLBACK_MAGIC:
            raise StudyError(
                f"{rollback} names another file, which opening the study could delete. Do not open"
                " a study that you do not trust; if it is yours, remove that file."
            )


def _text(found: bytes) -> str:
    """Decode a text; one that is damaged is told by its row's digest."""
    return found.decode(errors="replace")


def _is_read_only(error: BaseException | None) -> bool:
    return "readonly" in str(error) or "unable to open" in str(error)


def _version(db: sqlite3.Connection) -> tuple[int, int]:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    return version, db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _upgrade(db: sqlite3.Connection) -> None:
    found = _version(db)[0]
    for version in range(found, SCHEMA_VERSION):
        for statement in _UPGRADES[version]:
            db.execute(statement)
    if found < SCHEMA_VERSION:  # else another process was first, perhaps a newer one
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _seal(db)


def _seal(db: sqlite3.Connection) -> None:
    """Give every row that was just written the digest of what it says."""
    for row in db.execute("SELECT * FROM runs WHERE digest IS NULL").fetchall():
        measured = db.execute(
            "SELECT * FROM measurements WHERE run = ? ORDER BY position", (row["id"],)
        ).fetchall()
        db.execute(
            "UPDATE runs SET digest = ? WHERE position = ?",
            (_digest_of(row, measured), row["position"]),
        )


def _digest_of(row: sqlite3.Row, measured: Sequence[sqlite3.Row]) -> str:
    values = [[row[name] for name in DECISIVE]]
    values += [[one[name] for name in _MEASURED] for one in measured]
    return digest_of(values)


def digest_of(value: object) -> str:
    """Return the digest of JSON-ready data, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def is_damaged(row: sqlite3.Row, measured: Sequence[sqlite3.Row]) -> bool:
    """Return whether a row of ``runs`` and its measurements differ from what was written."""
    if "digest" not in row.keys() or row["digest"] is None:  # noqa: SIM118 - an older journal
        return False
    try:
        return bool(row["digest"] != _digest_of(row, measured))
    except TypeError:  # a text turned into bytes
        return True


def is_abandoned(row: sqlite3.Row) -> bool:
    """Return whether a row says that it is being computed, by a process that is gone."""
    if row["state"] != RunState.RUNNING.value:
        return False
    process = row["process"] if "process" in row.keys() else None  # noqa: SIM118
    owner = Owner(row["host"], row["pid"], process, row["pid_started"])
    return not owner.is_alive(row["heartbeat"])


def record_of(
    row: sqlite3.Row, measured: Sequence[sqlite3.Row], said: str | None = None
) -> RunRecord:
    """Return a row of the table ``runs`` with its measurements as a record.

    ``said`` is its row of the table ``annotations``, if there is one.

    A damaged row becomes a failed run, so that the others are shown.

    Raises
    ------
    StudyError
        If not even its recipe can be read.
    """
    if is_damaged(row, measured):
        return _damaged(row)
    abandoned = is_abandoned(row)
    try:
        recipe = Recipe.from_json(row["recipe"])
    except ConfigError as error:
        raise StudyError(
            f"Run {row['id']} has a recipe that this version does not know ({error}). Upgrade"
            " compression-workbench to open the study."
        ) from error
    return RunRecord(
        id=row["id"],
        model=printable(row["model"]),
        recipe=recipe,
        state=RunState.INTERRUPTED if abandoned else RunState(row["state"]),
        parent=row["parent"],
        measurements=tuple(_measurement(one) for one in measured),
        size_bytes=row["size_bytes"],
        facts=json.loads(row["facts"]),
        seconds=json.loads(row["seconds"]),
        error=INTERRUPTED if abandoned else row["error"],
        created=row["created"],
        annotation=annotation_of(said),
    )


def annotations_of(
    db: sqlite3.Connection, where: str = "", values: tuple[object, ...] = ()
) -> dict[str, str]:
    """Return rows of the table ``annotations`` by their run's id."""
    if db.execute("PRAGMA user_version").fetchone()[0] < 6:  # a read-only one that is older
        return {}
    found = db.execute(f"SELECT run, content FROM annotations {where}", values).fetchall()
    return {row["run"]: row["content"] for row in found}


def annotation_of(said: str | None) -> Annotation:
    """Return what a row of ``annotations`` says, nothing of a damaged one: no number needs it."""
    with contextlib.suppress(TypeError, ValueError, AttributeError, RecursionError):
        found = json.loads(said or "{}")
        return Annotation(
            name=printable(str(found.get("name", ""))),
            tags=tuple(printable(str(tag)) for tag in found.get("tags", ())),
            note=str(found.get("note", "")),
            starred=bool(found.get("starred", False)),
            hidden=bool(found.get("hidden", False)),
        )
    return Annotation()


def insert_measurements(db: sqlite3.Connection, run: str, rows: Iterable[Measurement]) -> None:
    """Append rows to the table ``measurements``."""
    for measurement in rows:
        stderr, spread = measurement.stderr, measurement.spread
        db.execute(
            "INSERT INTO measurements (run, metric, value, unit, n, stderr, part, created, spread,"
            " how, conditions, samples, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run, measurement.metric, float(measurement.value), measurement.unit),
                *(int(measurement.n), None if stderr is None else float(stderr)),
                *(measurement.part, now(), None if spread is None else float(spread)),
                *(measurement.how, measurement.conditions),
                json.dumps([float(f"{value:.6g}") for value in measurement.samples]),
                measurement.version,
            ),
        )


def _damaged(row: sqlite3.Row) -> RunRecord:
    try:
        return RunRecord(
            id=str(row["id"]),
            model=str(row["model"]),
            recipe=Recipe.from_json(row["recipe"]),
            state=RunState.FAILED,
            error=DAMAGED,
        )
    except (ConfigError, TypeError) as error:
        raise StudyError(
            f"The row of run {row['id']!r} in the journal is damaged, and so is its recipe"
            f" ({error}). Restore the study's folder from a copy, or delete the run:"
            f" study.delete({row['id']!r})."
        ) from error


def measurements_of(
    db: sqlite3.Connection, where: str = "", values: tuple[object, ...] = ()
) -> dict[str, list[sqlite3.Row]]:
    """Return rows of the table ``measurements`` by their run's id, oldest first."""
    found: dict[str, list[sqlite3.Row]] = {}
    for row in db.execute(f"SELECT * FROM measurements {where} ORDER BY position", values):
        found.setdefault(row["run"], []).append(row)
    return found


def _measurement(row: sqlite3.Row) -> Measurement:
    known = row.keys()  # a read-only journal may be an older one
    return Measurement(
        metric=row["metric"],
        value=math.nan if row["value"] is None else row["value"],  # SQLite has no NaN
        unit=row["unit"],
        n=row["n"],
        stderr=row["stderr"],
        part=row["part"],
        samples=tuple(json.loads(row["samples"])) if "samples" in known else (),
        **{name: row[name] for name in ("spread", "how", "conditions", "version") if name in known},
    )


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
