"""All runs of a study at one version of its journal, and what is read of them, kept.

Table, plot, choice, report and panels ask the same questions of the same runs. A snapshot answers
them from one reading; the next one takes over whatever has not changed since.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from workbench.atomic_files import FileIdentity, identity_of
from workbench.errors import StudyError
from workbench.records import RunRecord, RunState
from workbench.storage.journal import (
    Journal,
    annotations_of,
    is_abandoned,
    measurements_of,
    record_of,
)

if TYPE_CHECKING:
    import sqlite3

    from workbench.tasks.outcomes import Outcomes

OUTCOME_BYTES = 512_000_000
"""So many bytes of outcomes are kept in memory; of more than that the rest is read when asked."""


class Source(Protocol):
    """What a snapshot reads outcomes from: the store."""

    def read_outcomes(self, run: str) -> Outcomes:
        """Return what the file of a run's outcomes says, or raise StudyError."""

    def outcomes_path(self, run: str, what: str = "") -> Path:
        """Return where they are."""

    def give_up_abandoned(self) -> None:
        """Mark runs whose process is gone as interrupted."""


class Snapshot:
    """The runs of a study at one version of its journal. It never changes.

    Attributes
    ----------
    version : object
        Equal for snapshots of the same content.
    records : tuple of RunRecord
        Oldest first.
    by_id : mapping of str to RunRecord
    by_model : mapping of str to tuple of RunRecord
        By the name of the base model.
    baselines : mapping of str to RunRecord
        The base models' own runs, in whatever state.
    done : tuple of RunRecord
        Those that are finished.
    """

    def __init__(self, version: object, records: tuple[RunRecord, ...], memory: Memory) -> None:
        self.version = version
        self.records = records
        self.by_id: Mapping[str, RunRecord] = MappingProxyType({r.id: r for r in records})
        groups: dict[str, list[RunRecord]] = {}
        baselines: dict[str, RunRecord] = {}
        for record in records:
            groups.setdefault(record.model, []).append(record)
            if not record.recipe.steps:
                baselines.setdefault(record.model, record)
        self.by_model: Mapping[str, tuple[RunRecord, ...]] = MappingProxyType(
            {model: tuple(group) for model, group in groups.items()}
        )
        self.baselines: Mapping[str, RunRecord] = MappingProxyType(baselines)
        self.done = tuple(record for record in records if record.state is RunState.DONE)
        self._memory = memory

    def outcomes(self, record: RunRecord) -> Outcomes | None:
        """Return a run's per-example outcomes, None where there are none or they are damaged.

        A file is read once for as long as it is the same file; see :attr:`damaged`.
        """
        if record.state is not RunState.DONE:
            return None
        with contextlib.suppress(StudyError):
            return self._memory.outcomes(record.id)
        return None

    @property
    def damaged(self) -> Mapping[str, str]:
        """Why outcomes that were asked for could not be read, in words, by the run's id."""
        found = self._memory.damaged
        return {record.id: found[record.id] for record in self.done if record.id in found}


class Memory:
    """The outcomes that were read, or why they could not be; all snapshots share them.

    Parameters
    ----------
    source : Source
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.RLock()
        self._outcomes: dict[str, tuple[Path, FileIdentity, Outcomes | str]] = {}
        self._bytes = 0

    def outcomes(self, run: str) -> Outcomes:
        """Return the outcomes of a run, read anew only from a file that is another one by now.

        Raises
        ------
        StudyError
            If they are missing, or damaged.
        """
        with self._lock:
            known = self._outcomes.get(run)
            # A file that is the same one still lies where it was found to be allowed.
            if known is None or known[1] != identity_of(known[0]):
                self.forget(run)
                path = self._source.outcomes_path(run)
                known = (path, identity_of(path), self._read(run))
                size = _size(known[2])
                if self._bytes + size <= OUTCOME_BYTES:
                    self._bytes += size
                    self._outcomes[run] = known
        if isinstance(known[2], str):
            raise StudyError(known[2])
        return known[2]

    def keep(self, runs: Mapping[str, RunRecord]) -> None:
        """Forget all runs but these."""
        with self._lock:
            for id in [id for id in self._outcomes if id not in runs]:
                self.forget(id)

    @property
    def damaged(self) -> dict[str, str]:
        """Why outcomes could not be read, by the run's id."""
        with self._lock:
            return {run: f for run, (*_, f) in self._outcomes.items() if isinstance(f, str)}

    def forget(self, run: str) -> None:
        """Read a run's outcomes anew when they are asked for."""
        with self._lock:
            if run in self._outcomes:
                self._bytes -= _size(self._outcomes.pop(run)[2])

    def _read(self, run: str) -> Outcomes | str:
        try:
            return self._source.read_outcomes(run)
        except StudyError as error:
            return str(error)


def _size(found: Outcomes | str) -> int:
    return 0 if isinstance(found, str) else sum(c.nbytes for c in found.columns.values())


class Snapshots:
    """Makes snapshots of one journal, each from the one before.

    Parameters
    ----------
    source : Source
    journal : Journal

    Attributes
    ----------
    memory : Memory
    """

    def __init__(self, source: Source, journal: Journal) -> None:
        self._source = source
        self._journal = journal
        self._lock = threading.Lock()
        self.memory = Memory(source)
        self._last: Snapshot | None = None
        self._count = 0
        self._abandoned: frozenset[str] = frozenset()
        self._rows: dict[str, tuple[int, RunRecord]] = {}

    def now(self) -> Snapshot:
        """Return the journal's content as it is now."""
        with self._lock:
            with self._journal.reading() as db:
                found, abandoned = self._read(db)
            if abandoned:
                with contextlib.suppress(StudyError):  # a read-only study is still shown
                    self._source.give_up_abandoned()
            return found

    def _read(self, db: sqlite3.Connection) -> tuple[Snapshot, bool]:
        running = db.execute("SELECT * FROM runs WHERE state = 'running'").fetchall()
        abandoned = frozenset(row["id"] for row in running if is_abandoned(row))
        count = _count(db)
        version = (self._journal.identity() if count is None else count, abandoned)
        if self._last is not None and self._last.version == version:
            return self._last, bool(abandoned)
        if self._last is None or count is None:
            self._rows = _records(db)
        else:
            changed = _records(db, self._count)
            # A run that was or is given up has no new row.
            for id in self._abandoned ^ abandoned:
                changed |= _records(db, None, id)
            for id, (position, record) in sorted(changed.items(), key=lambda item: item[1][0]):
                if id in self._rows and self._rows[id][0] != position:
                    del self._rows[id]  # it was deleted and computed again, and comes last now
                self._rows[id] = (position, record)
            if db.execute("SELECT count(*) FROM runs").fetchone()[0] != len(self._rows):
                kept = {row["id"] for row in db.execute("SELECT id FROM runs")}
                self._rows = {id: row for id, row in self._rows.items() if id in kept}
        self._count, self._abandoned = count or 0, abandoned
        records = tuple(record for _, record in self._rows.values())
        self._last = Snapshot(version, records, self.memory)
        self.memory.keep(self._last.by_id)
        return self._last, bool(abandoned)


def _count(db: sqlite3.Connection) -> int | None:
    """Return how often the journal was written to, None in a read-only one of an older version."""
    if db.execute("PRAGMA user_version").fetchone()[0] < 4:
        return None
    return int(db.execute("SELECT count FROM changes").fetchone()[0])


def _records(
    db: sqlite3.Connection, since: int | None = None, run: str | None = None
) -> dict[str, tuple[int, RunRecord]]:
    """Return position and record of every run, of one, or of those written since a count."""
    where, values = "", tuple[object, ...]()
    if run is not None:
        where, values = "WHERE id = ?", (run,)
    elif since is not None:
        where, values = "WHERE revision > ?", (since,)
    rows = db.execute(f"SELECT * FROM runs {where} ORDER BY position", values).fetchall()
    among = f"WHERE run IN (SELECT id FROM runs {where})" if where else ""
    measured, said = measurements_of(db, among, values), annotations_of(db, among, values)
    return {
        row["id"]: (
            row["position"],
            record_of(row, measured.get(row["id"], ()), said.get(row["id"])),
        )
        for row in rows
    }
