"""Read the user's data: texts and tables from files, objects and strings, with errors that help."""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.atomic_files import aside_of
from workbench.errors import DataError
from workbench.fields import shown
from workbench.tasks.delimited import BadRow
from workbench.tasks.encodings import decode, read_bytes
from workbench.tasks.outcomes import EXPANDED_BYTES, EXPANSION, check_expansion
from workbench.tasks.paths import existing_path, table_suffix
from workbench.tasks.tables import Reading, Table, Unreadable, as_written, open_table


def read_text(path: Path, encoding: str | None = None, notes: list[str] | None = None) -> str:
    """Return a text file's content.

    Parameters
    ----------
    path : Path
    encoding : str, optional
        None: UTF-8, or what the file is likeliest written in.
    notes : list of str, optional
        A sentence is appended to it if the encoding was guessed.

    Raises
    ------
    DataError
        If the file is not text in this encoding.
    """
    found = decode(read_bytes(path), str(path), encoding)
    if found.guessed and notes is not None:
        notes.append(
            f"{str(path)!r} is not UTF-8 and was read as {found.encoding}, which is a guess"
            " (encoding= says otherwise)."
        )
    return found.text


def read_texts(
    source: Any, encoding: str | None = None, notes: list[str] | None = None
) -> list[tuple[str, str]]:
    """Return (name, text) of every text in a source of plain text.

    Parameters
    ----------
    source : str, Path, or iterable of them
        A text file, a folder (its .txt and .md files), a text, or several of these. A table is
        refused.
    encoding : str, optional
        Of the files; None: each one's is detected.
    notes : list of str, optional
        What was guessed is appended to it.

    Raises
    ------
    DataError
        If a path does not exist, a file is empty or not text, or the source is of another type.
    """
    if isinstance(source, (str, Path)):
        return _read_one(source, "text", encoding, notes)
    if is_table(source):
        raise DataError(
            f"A {type(source).__name__} is a table, not text; give one column's texts, as in"
            f" LanguageModeling({column_call(source)}), or use TextClassification(data,"
            ' text="text", label="label") to predict labels.'
        )
    if not isinstance(source, Iterable):
        raise DataError(
            f"A {type(source).__name__} is not text; give the path of a text file, a string, or a"
            " list of paths and strings."
        )
    texts: list[tuple[str, str]] = []
    for number, item in enumerate(source):
        if not isinstance(item, (str, Path)):
            raise DataError(
                f"Item {number} of the list is a {type(item).__name__}; give paths of text files"
                " or strings."
            )
        texts.extend(_read_one(item, f"text {number}", encoding, notes))
    if not texts:
        raise DataError("The list of texts is empty; give at least a few paths or strings.")
    return texts


def _read_one(
    source: str | Path, name: str, encoding: str | None, notes: list[str] | None
) -> list[tuple[str, str]]:
    path = existing_path(source)
    if path is None:
        given = as_written(str(source))
        if isinstance(given, Unreadable):
            raise DataError(f"{name.capitalize()} has {given.why}; give whole characters.")
        text = str(given)
        if not text.strip():
            raise DataError(f"{name.capitalize()} is empty; give text or the path of a text file.")
        return [(name, text)]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".md") and p.is_file())
        if not files:
            raise DataError(
                f"The folder {str(path)!r} has no .txt or .md file; give the paths of the files."
            )
        return [pair for file in files for pair in _read_one(file, name, encoding, notes)]
    if table_suffix(path) is not None:
        raise DataError(
            f"{str(path)!r} is a table, not text. Give one column's texts, as in"
            f' LanguageModeling({_reader(path)}["text"].tolist()), or use'
            f' TextClassification({str(path)!r}, text="text", label="label") to predict labels.'
        )
    text = read_text(path, encoding, notes)
    if not text.strip():
        raise DataError(f"The file {str(path)!r} is empty; give a file with text.")
    return [(path.name, text)]


def is_table(source: Any) -> bool:
    """Return whether an object has named columns: a data frame, a dataset, or a mapping of them."""
    if isinstance(source, Mapping) or hasattr(source, "columns") or hasattr(source, "column_names"):
        return True
    return isinstance(source, Sequence) and len(source) > 0 and isinstance(source[0], Mapping)


def column_call(source: Any) -> str:
    """Return the expression that lists the texts of a table called ``data``."""
    if hasattr(source, "iloc"):
        return 'data["text"].tolist()'
    if isinstance(source, Sequence):
        return '[row["text"] for row in data]'
    return 'list(data["text"])'


def _reader(path: Path) -> str:
    """Return the pandas call that reads a table."""
    name, more = {
        ".tsv": ("csv", ', sep="\\t"'),
        ".jsonl": ("json", ", lines=True"),
        ".ndjson": ("json", ", lines=True"),
    }.get(path.suffix.lower(), (path.suffix.lower()[1:], ""))
    return f"pandas.read_{name}({str(path)!r}{more})"


@dataclass(frozen=True)
class Row:
    """One labelled text.

    ``document`` is the cluster that it belongs to, ``more`` the names and values of other columns
    that results are sliced by.
    """

    text: str
    label: str
    document: str
    more: tuple[tuple[str, str], ...] = ()


def read_rows(
    source: Any,
    *,
    text: str,
    label: str,
    document: str | None,
    encoding: str | None = None,
    more: Sequence[str] = (),
    reading: Reading | None = None,
    report: list[Report] | None = None,
) -> list[Row]:
    """Return the labelled rows of a table.

    Parameters
    ----------
    source : str, Path, data frame, datasets.Dataset, mapping of columns or sequence of records
        See :func:`workbench.tasks.tables.open_table`.
    text, label : str
        Columns, which no row may lack.
    document : str, optional
        Column of the cluster; without it every row is its own.
    encoding : str, optional
        Of a CSV or JSON file, where ``reading`` says none.
    more : sequence of str
        Columns that are kept beside, as text; what is missing there is an empty text.
    reading : Reading, optional
        How the table is read, and what is done about bad rows.
    report : list of Report, optional
        What was detected and left out is appended to it.

    Raises
    ------
    DataError
        If the source cannot be read, lacks a column, or has rows without text or label.
    """
    reading = Reading(encoding=encoding) if reading is None else reading
    wanted = [text, label, *([] if document is None else [document]), *more]
    table = open_table(source, reading, [name for name in wanted if isinstance(name, str)])
    if (table.n_rows == 0 and not table.bad) or not table.columns:
        raise DataError(f"{table.name} has no rows; give a table with labelled texts.")
    values = {"text": _column(table, "text", text)}
    values["label"] = _column(table, "label", label)
    values["document"] = [] if document is None else _column(table, "document", document)
    beside = [(str(name), _column(table, "columns", name)) for name in more]
    used = list({str(text): values["text"], str(label): values["label"]}.items())
    wrong = _wrong_rows(table, used, [*beside, (str(document), values["document"])])
    if wrong and reading.on_bad_rows == "error":
        raise DataError(_wrong_words(table, wrong))
    skipped = {row for rows in wrong.values() for row in rows}
    found = [
        Row(
            _plain(values["text"][i]),
            _plain(values["label"][i]).strip(),
            _plain(values["document"][i]).strip() if document is not None else "",
            tuple((name, _plain(kept[i])) for name, kept in beside),
        )
        for i in range(table.n_rows)
        if i not in skipped
    ]
    if not found:
        raise DataError(f"{table.name}: every row was left out; {_wrong_words(table, wrong)}")
    if report is not None:
        report.append(_report(table, wrong, len(found)))
    return found


def _column(table: Table, role: str, column: Any) -> list[Any]:
    """Return a column's values as text, None or Unreadable.

    A number's text finds the column that has the number as name.
    """
    columns, name = table.columns, table.name
    known = ", ".join(repr(c) for c in columns[:12]) + (" …" if len(columns) > 12 else "")
    if not isinstance(column, (str, int)) or isinstance(column, bool):
        raise DataError(
            f"{role}={shown(column)} is not accepted; give the name of a column. {name} has"
            f" {known}."
        )
    column = str(column)
    places = [place for place, one in enumerate(columns) if one == column]
    if len(places) > 1:
        advice = (
            "data.loc[:, ~data.columns.duplicated()]"
            if table.lines is None
            else f"{column!r} and {column + '_2'!r} in the first line"
        )
        raise DataError(
            f"{name} has {len(places)} columns called {column!r}; rename or remove all but one, for"
            f" example with {advice}. It has {known}."
        )
    if places:
        return list(table.texts(places[0]))
    near = difflib.get_close_matches(column, columns, 1, 0.5)
    lower = {c.lower().strip(): c for c in columns}
    best = lower.get(column.lower().strip()) or (near[0] if near else None)
    hint = f" Did you mean {best!r}?" if best else f" Say which one, as in {role}={columns[0]!r}."
    noted = "".join(f" Note: {note}." for note in table.notes)
    raise DataError(f"{name} has no column {column!r}; it has {known}.{hint}{noted}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _wrong_rows(
    table: Table,
    needed: Sequence[tuple[str, list[Any]]],
    others: Sequence[tuple[str, list[Any]]],
) -> dict[str, list[int]]:
    """Return what is wrong with which rows, in words that follow "3 of 40 rows"."""
    wrong: dict[str, list[int]] = {}
    for column, values in needed:
        for row, value in enumerate(values):
            if value is None or (isinstance(value, str) and not value.strip()):
                wrong.setdefault(f"have nothing in the column {column!r}", []).append(row)
    for column, values in (*needed, *others):
        for row, value in enumerate(values):
            if isinstance(value, Unreadable):
                wrong.setdefault(f"have {value.why} in the column {column!r}", []).append(row)
    return wrong


def _wrong_words(table: Table, wrong: Mapping[str, Sequence[int]]) -> str:
    """Return what is wrong with which rows and lines, and what to do."""
    parts = []
    for why, rows in wrong.items():
        where = f"row {_first(row + 1 for row in rows)}"
        at = ""
        if table.lines is not None:
            at = f", line {_first(table.line(row) for row in rows)} of the file"
        fewer = sum(row in table.short for row in rows)
        short = f"; {fewer} of them have fewer fields than the header" if fewer else ""
        parts.append(f"{len(rows)} of {table.n_rows} rows {why} ({where}){at}{short}")
    columns = [why.rpartition(" ")[2] for why in wrong if "nothing" in why]
    example = f", for example with data.dropna(subset=[{columns[0]}])" if columns else ""
    return (
        f"{table.name}: {'; '.join(parts)}. Fill them in or remove them{example}; with"
        ' on_bad_rows="skip" they are left out.'
    )


def _first(numbers: Iterable[int], most: int = 5) -> str:
    found = list(numbers)
    return ", ".join(map(str, found[:most])) + ("…" if len(found) > most else "")


@dataclass(frozen=True)
class Report:
    """How one table was read.

    Attributes
    ----------
    name : str
    n_rows : int
        Rows that are used.
    facts : dict
        Encoding, delimiter, quote, header, sheet.
    notes : tuple of str
        What was detected that is not the usual.
    skipped : tuple of BadRow
        What was left out, by line of the file.
    """

    name: str
    n_rows: int
    facts: dict[str, Any]
    notes: tuple[str, ...]
    skipped: tuple[BadRow, ...]

    def findings(self) -> list[str]:
        """Return the notes and what was left out as sentences."""
        found = [f"{self.name}: {note}." for note in self.notes]
        if self.skipped:
            reasons = Counter(row.why for row in self.skipped)
            words = "; ".join(
                f"{count} {why} (line {_first(row.line for row in self.skipped if row.why == why)})"
                for why, count in reasons.most_common(5)
            )
            total = self.n_rows + len(self.skipped)
            found.append(f"{self.name}: {len(self.skipped)} of {total} rows are left out: {words}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data; at most 1,000 lines are listed."""
        return {
            "name": self.name,
            "rows": self.n_rows,
            **self.facts,
            "notes": list(self.notes),
            "n_skipped": len(self.skipped),
            "skipped": [[row.line, row.why] for row in self.skipped[:1000]],
        }


def _report(table: Table, wrong: Mapping[str, Sequence[int]], used: int) -> Report:
    skipped = {row.line: row for row in table.bad}
    for why, rows in wrong.items():
        for row in rows:
            skipped.setdefault(table.line(row), BadRow(table.line(row), why))
    ordered = tuple(skipped[line] for line in sorted(skipped))
    return Report(table.name, used, dict(table.facts), tuple(table.notes), ordered)


def write_snapshot(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as gzip JSON lines; equal rows give equal bytes. An existing file is kept."""
    if path.exists():
        return
    unfinished = aside_of(path)
    with (
        unfinished.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream,
    ):
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    unfinished.replace(path)


def read_snapshot(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that :func:`write_snapshot` wrote.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    try:
        most = max(EXPANDED_BYTES, EXPANSION * path.stat().st_size)
        with gzip.open(path, "rb") as stream:
            total = 0
            while line := stream.readline(most + 1 - total):
                total += len(line)
                check_expansion(path, total)
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a row is no object")
                yield row
    except DataError:
        raise
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(
            f"The task's data in {str(path)!r} cannot be read ({error}); give the task again when"
            " opening the study."
        ) from error
