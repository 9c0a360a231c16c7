"""The user's tables as a task's parts: splits that have names, and how each table was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from workbench.errors import DataError
from workbench.tasks.data import Report, Row, read_rows
from workbench.tasks.encodings import COMPRESSED
from workbench.tasks.splits import PARTS
from workbench.tasks.tables import Reading

READING = 2
"""Version of how tables are read; it is stored with a task, beside the rows as they were read.

1: before it was stored. Labels that are equal as integers came in any order, a task's own metric
got them as integers, and words were runs of ``\\w``. 2: labels are text as written.
"""

POOL = "training"
_NAMES = {
    "train": POOL,
    "training": POOL,
    "calibration": "calibration",
    "calib": "calibration",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "evaluation": "evaluation",
    "eval": "evaluation",
    "test": "evaluation",
    "testing": "evaluation",
}

T = TypeVar("T")


class Tables:
    """The tables that a task is made of.

    Parameters
    ----------
    source : object
        A table to split, a mapping of names to tables (such as a ``datasets.DatasetDict``), or
        None.
    given : mapping of part to table or None
        Parts given explicitly; they count before those of the same name in ``source``.
    reading : Reading

    Attributes
    ----------
    pool : object or None
        The table to split.
    parts : dict of str to object
        The others by part.
    reports : list of Report
        How each table was read, in the order of reading.

    Raises
    ------
    DataError
        If two names stand for one part.
    """

    def __init__(self, source: Any, given: Mapping[str, Any], reading: Reading) -> None:
        self.reading = reading
        self.reports: list[Report] = []
        self.notes: list[str] = []
        self.pool = source
        self.parts = {part: table for part, table in given.items() if table is not None}
        named = _named_tables(source)
        if named is not None:
            self.pool = None
            self._take(named)

    def _take(self, named: Mapping[Any, Any]) -> None:
        found: dict[str, list[Any]] = {}
        unknown = []
        for name in named:
            part = _NAMES.get(str(name).strip().lower())
            if part is None:
                unknown.append(str(name))
            else:
                found.setdefault(part, []).append(name)
        # "eval" beside a "test" is what choices are made by
        both = found.get("evaluation", [])
        if len(both) == 2 and "validation" not in found:
            evals = [name for name in both if str(name).strip().lower().startswith("eval")]
            if len(evals) == 1:
                both.remove(evals[0])
                found["validation"] = evals
                self.notes.append(
                    f"the split {str(evals[0])!r} is taken as the validation part, since there is"
                    f" {str(both[0])!r}, too."
                )
        for part, names in found.items():
            if len(names) > 1:
                shown = " and ".join(repr(str(name)) for name in names)
                place = "calibration" if part == POOL else part
                raise DataError(
                    f"The splits {shown} both stand for the {place} part; give the one that is"
                    f" meant by name, as in {place}=data[{str(names[0])!r}]."
                )
        if not found:
            shown = ", ".join(map(repr, unknown))
            raise DataError(
                f"None of the splits {shown} is known; name them train, validation and test, or"
                " give each by name: calibration=, validation= and evaluation=."
            )
        for part in PARTS:
            if part not in found:
                continue
            if part in self.parts:
                unknown.append(str(found[part][0]))
            else:
                self.parts[part] = named[found[part][0]]
        if POOL in found:
            self.pool = named[found[POOL][0]]
        elif set(self.parts) == {"evaluation"}:
            self.pool = self.parts.pop("evaluation")
            self.notes.append(
                f"there is only the split {str(found['evaluation'][0])!r}, so all parts are split"
                " from it."
            )
        if unknown:
            self.notes.append(f"the split {', '.join(map(repr, unknown))} is not used.")

    def rows(self, table: Any, **columns: Any) -> list[Row]:
        """Return the rows of one table, see :func:`read_rows`."""
        return read_rows(table, **columns, reading=self.reading, report=self.reports)

    def all_rows(self, **columns: Any) -> tuple[list[Row], dict[str, list[Row]]]:
        """Return the rows to split, and those of the parts that were given."""
        parts = {part: self.rows(table, **columns) for part, table in self.parts.items()}
        return [] if self.pool is None else self.rows(self.pool, **columns), parts

    def described(self) -> dict[str, Any]:
        """Return how the tables were read, JSON-ready, for the task to store."""
        return {
            "version": READING,
            "on_bad_rows": self.reading.on_bad_rows,
            "tables": [report.to_dict() for report in self.reports],
        }

    def findings(self) -> list[str]:
        """Return what was detected or left out, as sentences."""
        return self.notes + [text for report in self.reports for text in report.findings()]

    def name(self, otherwise: str) -> str:
        """Return a name for the task: that of the file it is made of."""
        named = self.pool if self.pool is not None else self.parts.get("evaluation")
        if not isinstance(named, (str, Path)):
            return otherwise
        path = Path(named)
        return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def _named_tables(source: Any) -> Mapping[Any, Any] | None:
    """Return a mapping of names to tables, None if the source is another thing."""
    if not isinstance(source, Mapping) or not source:
        return None
    return source if all(_is_whole_table(value) for value in source.values()) else None


def _is_whole_table(value: Any) -> bool:
    """Return whether a value is a table or a file of one, not a column."""
    if isinstance(value, (str, Path)):
        return True
    if isinstance(value, Mapping):
        columns = value.values()
        return bool(columns) and all(
            hasattr(v, "__len__") and not isinstance(v, str) for v in columns
        )
    if hasattr(value, "columns") or hasattr(value, "column_names"):
        return True
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)
