"""Tables of every kind as columns of text: files, frames, datasets and records in memory.

No value passes through a type that could change it: what is written ``007`` stays so, an integer
beside a missing value stays one, and only what is missing is missing.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import numbers
import re
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.fields import shown
from workbench.tasks.delimited import BadRow, parse
from workbench.tasks.encodings import decode, read_bytes
from workbench.tasks.paths import TABLE_FILES, existing_path, table_suffix

ON_BAD_ROWS = ("error", "skip")
EXACT = 2**53
"""From here on a float does not hold every integer."""


@dataclass(frozen=True)
class Reading:
    """How a table is read; None means that it is detected.

    Attributes
    ----------
    encoding : str, optional
        Of a CSV, TSV or JSON file.
    delimiter, quote : str, optional
        Of a CSV or TSV file; an empty ``quote`` says that quotes are characters like any other.
    header : bool, optional
        Whether the first row of a CSV, TSV or Excel file has the names of the columns.
    sheet : str, optional
        Of an Excel file; by default the first one that is not empty.
    on_bad_rows : {"error", "skip"}
        What is done about a row that cannot be meant: one with too many fields, with nothing in
        a column that is needed, or with half a character. What is skipped is recorded.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    sheet: str | None = None
    on_bad_rows: str = "error"

    def __post_init__(self) -> None:
        if self.on_bad_rows not in ON_BAD_ROWS:
            raise DataError(
                f"on_bad_rows={shown(self.on_bad_rows)} is not accepted; give 'error' or 'skip'."
            )
        if self.header not in (None, True, False):
            raise DataError(
                f"header={shown(self.header)} is not accepted; give True if the first row has"
                " names, False if it is data, or leave it out."
            )


@dataclass
class Table:
    """Named columns of values as they were given.

    Attributes
    ----------
    name : str
        For messages.
    columns : list of str
    n_rows : int
    values : callable
        Returns a column's values by its position.
    lines : list of int, optional
        The line of a file that each row begins at.
    short : dict of int to int
        Of rows that lack fields, how many they have.
    bad : list of BadRow
        What was left out already.
    facts : dict
        How the file was read: encoding, delimiter, quote, header, sheet.
    notes : list of str
        What was detected that is not the usual.
    """

    name: str
    columns: list[str]
    n_rows: int
    values: Callable[[int], list[Any]]
    lines: list[int] | None = None
    short: dict[int, int] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def line(self, row: int) -> int:
        """Return the line of a row in its file, or its number; from 1."""
        return row + 1 if self.lines is None else self.lines[row]

    def texts(self, position: int) -> list[str | Unreadable | None]:
        """Return a column's values as they are written; None where one is missing."""
        values = self.values(position)
        whole = _floats_are_whole(values, self.name, self.columns[position])
        return [as_written(value, whole_floats=whole) for value in values]


@dataclass(frozen=True)
class Unreadable:
    """A value that is no text, and why."""

    why: str


def as_written(value: Any, *, whole_floats: bool = False) -> str | Unreadable | None:
    """Return a value as its author wrote it, None if it is missing.

    Parameters
    ----------
    value : object
    whole_floats : bool
        Whether floats of its column are integers that a missing value beside them made floats.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str):
        return _whole_characters(str(value))
    if isinstance(value, (bool, numbers.Integral)) or type(value).__name__ in ("bool", "bool_"):
        return str(value)
    if isinstance(value, numbers.Real):
        if math.isnan(value):
            return None
        return str(int(float(value))) if whole_floats else str(value)
    if isinstance(value, (decimal.Decimal, datetime.date, datetime.time, uuid.UUID, Path)):
        return str(value)
    return Unreadable(f"a {type(value).__name__}, which is no text")


def _whole_characters(text: str) -> str | Unreadable:
    """Return a text; the two halves of a character (UTF-16) that stand together become one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            code = ord(text[error.start])
            return Unreadable(f"half a character (a lone surrogate, U+{code:04X})")
    return text


def _floats_are_whole(values: Sequence[Any], table: str, column: str) -> bool:
    floats = [v for v in values if isinstance(v, float) and not math.isnan(v)]
    if not floats or not all(v.is_integer() for v in floats):
        return False
    if max(map(abs, floats)) >= EXACT:
        raise DataError(
            f"{table}: the column {column!r} holds integers of 16 digits and more as floats, which"
            " have lost their last digits, so different ones may have become equal. Read it as"
            " text, such as with dtype=str, or as 'Int64'."
        )
    return True


KINDS = ", ".join(TABLE_FILES)


def open_table(source: Any, reading: Reading | None = None, wanted: Sequence[str] = ()) -> Table:
    """Return any table that is accepted.

    Parameters
    ----------
    source : str, Path, data frame (pandas, polars), pyarrow.Table, datasets.Dataset, mapping of
        columns, or sequence of mappings
        A path is of a file that ends as :func:`table_suffix` knows.
    reading : Reading, optional
    wanted : sequence of str
        Columns that will be asked for.

    Raises
    ------
    DataError
        If it is no table, or cannot be read.
    """
    reading = Reading() if reading is None else reading
    if isinstance(source, (str, Path)):
        path = existing_path(source, table=True)
        if path is None or path.is_dir():
            raise DataError(
                f"{str(source)[:80]!r} is not a table; give the path of a {KINDS}"
                " file, a DataFrame or a Hugging Face dataset."
            )
        return read_file(path, reading, wanted)
    found = _in_memory(source)
    if found is None:
        raise DataError(
            f"A {type(source).__name__} is not a table; give the path of a {KINDS}"
            " file, a DataFrame or a Hugging Face dataset."
        )
    return found


def _in_memory(source: Any) -> Table | None:
    home = type(source).__module__.partition(".")[0]
    if hasattr(source, "iloc") and hasattr(source, "columns"):  # pandas
        names = [str(name) for name in source.columns]
        return Table(
            "The DataFrame", names, len(source), lambda i: list(source.iloc[:, i].tolist())
        )
    if home == "polars" and hasattr(source, "columns"):
        frame = source.collect() if hasattr(source, "collect") else source
        return Table(
            "The DataFrame",
            list(frame.columns),
            frame.height,
            lambda i: list(frame.to_series(i).to_list()),
        )
    if home == "pyarrow" and hasattr(source, "column_names"):
        return _of_arrow("The table", source)
    if hasattr(source, "column_names") and hasattr(source, "features"):
        return _of_dataset(source)
    if isinstance(source, Mapping):
        return _of_columns("The data", source)
    if isinstance(source, Sequence) and all(isinstance(item, Mapping) for item in source):
        return _of_records("The data", list(source))
    if hasattr(source, "to_pandas"):
        return _in_memory(source.to_pandas())
    return None


def _of_dataset(source: Any) -> Table:
    if not hasattr(source, "__len__") or source.column_names is None:
        raise DataError(
            f"A {type(source).__name__} is a stream, whose rows cannot be dealt out; give"
            " datasets.Dataset.from_list(list(stream.take(10_000))), or a part of it as a list."
        )
    plain = source.with_format(None)
    names = list(source.column_names)

    def values(position: int) -> list[Any]:
        column = names[position]
        found = list(plain[column])
        labels = getattr((source.features or {}).get(column), "names", None)
        if labels:  # the codes of a ClassLabel; -1 is what has none
            return [
                labels[v] if isinstance(v, int) and 0 <= v < len(labels) else None for v in found
            ]
        return found

    return Table("The dataset", names, len(source), values)


def _of_arrow(name: str, table: Any) -> Table:
    return Table(
        name,
        [str(column) for column in table.column_names],
        table.num_rows,
        lambda i: list(table.column(i).to_pylist()),
    )


def _of_columns(name: str, columns: Mapping[Any, Any]) -> Table:
    found: dict[str, list[Any]] = {}
    for column, values in columns.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise DataError(
                f"The columns given are not a table: {column!r} is a {type(values).__name__}; give"
                " a list of values per column."
            )
        if isinstance(values, Mapping):  # values by row, as pandas writes it
            values = list(values.values())
        if str(column) in found:
            raise DataError(f"{name} has two columns called {str(column)!r}; rename one of them.")
        found[str(column)] = values.tolist() if hasattr(values, "tolist") else list(values)
    lengths = {column: len(values) for column, values in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{column!r} has {n}" for column, n in list(lengths.items())[:6])
        raise DataError(
            f"The columns given are not a table: they are not of one length ({shown} values)."
        )
    names = list(found)
    return Table(name, names, max(lengths.values(), default=0), lambda i: found[names[i]])


def _of_records(name: str, rows: list[Mapping[str, Any]], lines: list[int] | None = None) -> Table:
    names: dict[str, Any] = {}
    for row in rows:
        for key in row:
            names.setdefault(str(key), key)
    keys = list(names.values())
    return Table(
        name, list(names), len(rows), lambda i: [row.get(keys[i]) for row in rows], lines=lines
    )


def read_file(path: Path, reading: Reading, wanted: Sequence[str] = ()) -> Table:
    """Return the table of a file, see :func:`open_table`."""
    suffix, name = table_suffix(path), repr(str(path))
    if suffix is None:
        more = " Save it as .xlsx." if path.suffix.lower() in (".xls", ".ods", ".xlsm") else ""
        raise DataError(
            f"{name} is not a kind of table that is read; give a {KINDS}"
            f" file, or read it with pandas and give the DataFrame.{more}"
        )
    if suffix == ".parquet":
        return _read_parquet(path, name)
    if suffix == ".xlsx":
        return _read_excel(path, name, reading, wanted)
    decoded = decode(read_bytes(path), str(path), reading.encoding)
    if not decoded.text.strip():
        raise DataError(f"The file {name} is empty; give a table with labelled texts.")
    if suffix == ".json":
        table = _read_json(name, decoded.text)
    elif suffix in (".jsonl", ".ndjson"):
        table = _read_json_lines(name, decoded.text, suffix, reading)
    else:
        table = _read_delimited(name, decoded.text, suffix, reading, wanted)
    table.facts = {"encoding": decoded.encoding, **table.facts}
    if decoded.guessed:
        table.notes.insert(
            0,
            f"it is not UTF-8 and was read as {decoded.encoding}, which is a guess"
            " (encoding= says otherwise)",
        )
    return table


def _read_delimited(
    name: str, text: str, suffix: str, reading: Reading, wanted: Sequence[str]
) -> Table:
    found = parse(
        text,
        usual="\t" if suffix == ".tsv" else ",",
        delimiter=reading.delimiter,
        quote=reading.quote,
        header=reading.header,
        wanted=wanted,
    )
    if found.bad and reading.on_bad_rows == "error":
        raise DataError(_bad_lines(name, suffix, found.bad))
    rows = found.rows
    dialect = found.dialect
    facts: dict[str, Any] = {
        "delimiter": dialect.delimiter,
        "quote": dialect.quote,
        "header": found.header,
    }
    if dialect.escape:
        facts["escape"] = dialect.escape
    return Table(
        name,
        found.columns,
        len(rows),
        lambda i: [row[i] for row in rows],
        lines=found.lines,
        short=found.short,
        bad=found.bad,
        facts=facts,
        notes=found.notes,
    )


def _bad_lines(name: str, suffix: str, bad: Sequence[BadRow]) -> str:
    shown = "; ".join(f"line {row.line} {row.why}" for row in bad[:5])
    shown += f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    advice = "put a field that has a delimiter in it between quotes"
    if any("quote" in row.why for row in bad):
        advice = (
            "take out the quotes that stand alone, or double those within a quoted field; with"
            ' quote="" they are read as characters like any other'
        )
    return (
        f"{name} cannot be read as {suffix[1:]}: {shown}. Correct that: {advice}. With"
        ' on_bad_rows="skip" these rows are left out.'
    )


class _Repeated(ValueError):
    """A name that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Repeated(f"the name {twice!r} is there twice")
    return {name: _json_words(value) for name, value in found.items()}


def _json_words(value: Any) -> Any:
    """Return true and false as JSON writes them, also those of a column."""
    if isinstance(value, list):
        return [_json_words(item) for item in value]
    return ("true" if value else "false") if isinstance(value, bool) else value


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _parse_json(text: str) -> Any:
    """Return JSON with its numbers as they are written."""
    return json.loads(
        text,
        parse_int=str,
        parse_float=str,
        parse_constant=_constant,
        object_pairs_hook=_unique,
    )


def _read_json(name: str, content: str) -> Table:
    advice = (
        'give a list of records, such as [{"text": "…", "label": "…"}], or read it with pandas'
        " and give the DataFrame."
    )
    try:
        data = _parse_json(content)
    except json.JSONDecodeError as error:
        lines = content.split("\n")
        more = error.msg == "Extra data" and all(_is_object(x) for x in lines if x.strip())
        hint = " It looks like JSON lines: name the file .jsonl." if more else ""
        raise DataError(
            f"{name} cannot be read as json: line {error.lineno}, column {error.colno}:"
            f" {error.msg}.{hint or ' Correct it there, or ' + advice}"
        ) from error
    except (_Repeated, RecursionError) as error:
        raise DataError(f"{name} cannot be read as json: {error}; {advice}") from error
    if isinstance(data, list) and all(isinstance(item, dict) for item in data):
        return _of_records(name, data)
    if not isinstance(data, dict):
        raise DataError(f"{name} holds no table ({_kind_of(data)}); {advice}")
    try:
        return _of_columns(name, data)
    except DataError as error:
        raise DataError(f"{name} holds no table: {error} Or {advice}") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        wrong = next((item for item in value if not isinstance(item, dict)), None)
        return f"a list with {str(wrong)[:40]} in it"
    return str(value)[:40]


def _read_json_lines(name: str, content: str, suffix: str, reading: Reading) -> Table:
    rows: list[Mapping[str, Any]] = []
    numbers_of: list[int] = []
    bad: list[BadRow] = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _parse_json(line)
            wrong = None if isinstance(row, dict) else f"{line.strip()[:40]} is not an object"
        except json.JSONDecodeError as error:
            wrong = f"{error.msg}, at character {error.pos + 1}"
        except (_Repeated, RecursionError) as error:
            wrong = str(error)
        if wrong is None:
            rows.append(row)
            numbers_of.append(number)
            continue
        if reading.on_bad_rows == "error":
            raise DataError(
                f"{name} cannot be read as {suffix[1:]}: line {number}: {wrong}. Every"
                ' line must be one object, such as {"text": "…", "label": "…"}; correct it, or'
                ' remove the line. With on_bad_rows="skip" such lines are left out.'
            )
        bad.append(BadRow(number, wrong))
    found = _of_records(name, rows, numbers_of)
    found.bad = bad
    return found


def _read_parquet(path: Path, name: str) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "Parquet files need pyarrow: pip install 'compression-workbench[data]', or give a"
            " CSV file."
        ) from error
    try:
        return _of_arrow(name, pyarrow.parquet.read_table(path))
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{name} is not a Parquet file: {error}.") from error


_ZEROS = re.compile(r"0+")


def _read_excel(path: Path, name: str, reading: Reading, wanted: Sequence[str]) -> Table:
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise DataError(
            "Excel files need openpyxl: pip install 'compression-workbench[data]', or save it as"
            " CSV."
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{name} is not an Excel file (.xlsx): {error}.") from error
    try:
        full = {sheet.title: rows for sheet in book.worksheets if (rows := _cells(sheet))}
        everything = [sheet.title for sheet in book.worksheets]
    finally:
        book.close()
    notes = []
    if reading.sheet is not None:
        if reading.sheet not in everything:
            raise DataError(
                f"{name} has no sheet {reading.sheet!r}; it has {', '.join(map(repr, everything))}."
            )
        chosen = reading.sheet
    else:
        if not full:
            raise DataError(f"The file {name} is empty; give a table with labelled texts.")
        chosen = next(iter(full))
        if len(full) > 1:
            others = ", ".join(repr(title) for title in full if title != chosen)
            notes.append(f"its sheet {chosen!r} was read, not {others} (sheet= says otherwise)")
    rows = full.get(chosen, [])
    header = True if reading.header is None else reading.header
    width = max((len(row) for _, row in rows), default=0)
    first = [as_written(value) for value in rows[0][1]] if rows and header else []
    columns = [
        str(first[i])
        if i < len(first) and isinstance(first[i], str)
        else ("" if header else str(i))
        for i in range(width)
    ]
    body = rows[1:] if header else rows
    return Table(
        name,
        columns,
        len(body),
        lambda i: [row[i] if i < len(row) else None for _, row in body],
        lines=[number for number, _ in body],
        facts={"sheet": chosen, "header": header},
        notes=notes,
    )


def _cells(sheet: Any) -> list[tuple[int, list[Any]]]:
    """Return the rows that have anything in them, with their numbers."""
    found = []
    for number, row in enumerate(sheet.iter_rows(), 1):
        values = [_shown(cell) for cell in row]
        while values and values[-1] is None:
            values.pop()
        if values:
            found.append((number, values))
    return found


def _shown(cell: Any) -> Any:
    """Return a cell's value; a number that is shown with leading zeros keeps them."""
    value = cell.value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        zeros = str(getattr(cell, "number_format", "") or "")
        if _ZEROS.fullmatch(zeros):
            return str(value).zfill(len(zeros))
    return value
