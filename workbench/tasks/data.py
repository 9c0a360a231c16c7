"""Read the user's data: texts and tables from files, objects and strings, with errors that help."""

from __future__ import annotations

import difflib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.atomic_files import aside_of
from workbench.errors import DataError
from workbench.stored_paths import readable_file
from workbench.tasks.outcomes import EXPANDED_BYTES, EXPANSION, check_expansion

if TYPE_CHECKING:
    import pandas

TEXT_FILES = (".txt", ".text", ".md", ".rst", ".py", ".tex", ".html", ".raw", ".tokens", ".log")
TABLE_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")

_PATH_LIKE = re.compile(
    r"^(~|\.{0,2}[/\\]|[A-Za-z]:\\|\w+://)|^\S*[/\\]\S*$|^\S+\.[A-Za-z0-9]{1,8}$"
)


def existing_path(source: str | Path, *, table: bool = False) -> Path | None:
    """Return the file or folder that a string names, None if the string is text.

    A string of several lines or more than 1,000 characters is text. A string that looks like a
    path (it has a separator and no space, or ends like a file name) must exist. ``table`` says
    that a table is wanted, which no string can be.

    Raises
    ------
    DataError
        If it looks like a path, or is a ``Path``, and does not exist.
    """
    if isinstance(source, str) and (len(source) > 1000 or "\n" in source or "\0" in source):
        return None
    path = Path(source).expanduser()
    try:
        if path.exists() and str(source).strip():
            return readable_file(path)
    except OSError:  # such as a name that is too long
        return None
    known = str(source).lower().endswith((*TEXT_FILES, *TABLE_FILES))
    if isinstance(source, Path) or known or _PATH_LIKE.match(source):
        raise DataError(_missing(path, source, table))
    return None


def _missing(path: Path, source: str | Path, table: bool) -> str:
    if "://" in str(source):
        return (
            f"{str(source)!r} is an address; nothing is downloaded here. Download the file and"
            " give its path."
        )
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {str(source)!r}: the folder {str(folder)!r} does not exist."
    names = sorted(p.name for p in folder.iterdir())
    near = difflib.get_close_matches(path.name, names, 1, 0.6)
    hint = f" Did you mean {str(folder / near[0])!r}?" if near else ""
    other = "a table in memory" if table else "a text of more than one line to use the text itself"
    return (
        f"There is no file {str(source)!r} (looked in {str(folder.resolve())!r}).{hint} Give the"
        f" path of an existing file, or {other}."
    )


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return a text file's content.

    Raises
    ------
    DataError
        If the file is not text in this encoding.
    """
    if not isinstance(encoding, str):
        raise DataError(
            f"encoding={encoding!r} is not accepted; give a name, such as "
            '"utf-8" (the default), "latin-1" or "utf-16".'
        )
    try:
        return path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(path, encoding, error)) from error
    except LookupError as error:
        raise DataError(
            f"encoding={encoding!r} is no encoding that Python knows; give a name such as"
            ' "utf-8", "latin-1" or "utf-16".'
        ) from error
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    return (
        f"{str(path)!r} is not text in {encoding} (byte {error.object[error.start]:#04x} at"
        f" position {error.start:,}). Save it as UTF-8, or give its encoding, such as"
        ' encoding="latin-1" or encoding="utf-16".'
    )


def read_texts(source: Any, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """Return (name, text) of every text in a source of plain text.

    Parameters
    ----------
    source : str, Path, or iterable of them
        A text file, a folder (its .txt and .md files), a text, or several of these. A table is
        refused.
    encoding : str
        Of the files.

    Raises
    ------
    DataError
        If a path does not exist, a file is empty or not text, or the source is of another type.
    """
    if isinstance(source, (str, Path)):
        return _read_one(source, "text", encoding)
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
        texts.extend(_read_one(item, f"text {number}", encoding))
    if not texts:
        raise DataError("The list of texts is empty; give at least a few paths or strings.")
    return texts


def _read_one(source: str | Path, name: str, encoding: str) -> list[tuple[str, str]]:
    path = existing_path(source)
    if path is None:
        text = str(source)
        if not text.strip():
            raise DataError(f"{name.capitalize()} is empty; give text or the path of a text file.")
        return [(name, text)]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".md") and p.is_file())
        if not files:
            raise DataError(
                f"The folder {str(path)!r} has no .txt or .md file; give the paths of the files."
            )
        return [pair for file in files for pair in _read_one(file, name, encoding)]
    if path.suffix.lower() in TABLE_FILES:
        raise DataError(
            f"{str(path)!r} is a table, not text. Give one column's texts, as in"
            f' LanguageModeling({_reader(path)}["text"].tolist()), or use'
            f' TextClassification({str(path)!r}, text="text", label="label") to predict labels.'
        )
    text = read_text(path, encoding)
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
    encoding: str = "utf-8",
    more: Sequence[str] = (),
) -> list[Row]:
    """Return the labelled rows of a table.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame, datasets.Dataset or a mapping of columns
        A file ends in .csv, .tsv, .jsonl, .ndjson, .json (a list of records) or .parquet.
    text, label : str
        Columns.
    document : str, optional
        Column of the cluster; without it every row is its own.
    encoding : str
        Of a CSV or JSON file.
    more : sequence of str
        Columns that are kept beside, as text.

    Raises
    ------
    DataError
        If the source cannot be read, lacks a column, or has rows without text or label.
    """
    frame, name = _read_frame(source, encoding)
    if len(frame) == 0 or len(frame.columns) == 0:
        raise DataError(f"{name} has no rows; give a table with labelled texts.")
    text_values = _column(frame, "text", text, name)
    label_values = _column(frame, "label", label, name)
    document_values = [] if document is None else _column(frame, "document", document, name)
    texts = [_as_text(value) for value in text_values]
    labels = [_as_label(value) for value in _named(source, label_values, label)]
    for column, values in ((text, texts), (label, labels)):
        empty = [i for i, value in enumerate(values) if not value.strip()]
        if empty:
            shown = ", ".join(str(i + 1) for i in empty[:5]) + ("…" if len(empty) > 5 else "")
            raise DataError(
                f"{name}: {len(empty)} of {len(frame)} rows have nothing in the column"
                f" {column!r} (row {shown}). Fill them in or remove them, for example with"
                f" data.dropna(subset=[{column!r}])."
            )
    clusters = (
        [_as_label(value) for value in document_values]
        if document is not None
        else [""] * len(frame)
    )
    beside = [
        [(column, str(v)) for v in _column(frame, "columns", column, name)] for column in more
    ]
    rows = zip(texts, labels, clusters, strict=True)
    return [Row(*values, tuple(kept[i] for kept in beside)) for i, values in enumerate(rows)]


def _column(frame: pandas.DataFrame, role: str, column: Any, name: str) -> list[Any]:
    """Return a column's values; a number's text finds the column that has the number as name."""
    columns = [str(c) for c in frame.columns]
    shown = ", ".join(repr(c) for c in columns[:12]) + (" …" if len(columns) > 12 else "")
    if not isinstance(column, (str, int)) or isinstance(column, bool):
        raise DataError(
            f"{role}={column!r} is not accepted; give the name of a column. {name} has {shown}."
        )
    column = str(column)
    places = [place for place, known in enumerate(columns) if known == column]
    if len(places) > 1:
        raise DataError(
            f"{name} has {len(places)} columns called {column!r}; rename or remove all but one, for"
            " example with data.loc[:, ~data.columns.duplicated()]."
        )
    if places:
        return list(frame.iloc[:, places[0]].tolist())
    other = (
        next((mark for mark in ";\t|" if mark in columns[0]), None) if len(columns) == 1 else None
    )
    if other is not None:
        raise DataError(
            f"{name} has one column, {columns[0][:80]!r}, so its columns seem to be separated by"
            f" {other!r}. Read it with data = pandas.read_csv(…, sep={other!r}) and give data."
        )
    near = difflib.get_close_matches(column, columns, 1, 0.5)
    lower = {c.lower().strip(): c for c in columns}
    best = lower.get(column.lower().strip()) or (near[0] if near else None)
    hint = f" Did you mean {best!r}?" if best else f" Say which one, as in {role}={columns[0]!r}."
    raise DataError(f"{name} has no column {column!r}; it has {shown}.{hint}")


def _read_frame(source: Any, encoding: str) -> tuple[pandas.DataFrame, str]:
    import pandas

    if isinstance(source, pandas.DataFrame):
        return source, "The DataFrame"
    if isinstance(source, (str, Path)):
        path = existing_path(source, table=True)
        if path is None or path.is_dir():
            raise DataError(
                f"{str(source)[:80]!r} is not a table; give the path of a {', '.join(TABLE_FILES)}"
                " file, a pandas DataFrame or a Hugging Face dataset."
            )
        return _read_file(path, encoding), repr(str(path))
    if hasattr(source, "column_names") and hasattr(source, "to_pandas"):
        return source.to_pandas(), "The dataset"
    if isinstance(source, Mapping) or (
        isinstance(source, Sequence) and all(isinstance(item, Mapping) for item in source)
    ):
        try:
            return pandas.DataFrame(source), "The data"
        except ValueError as error:
            raise DataError(f"The columns given are not a table: {error}.") from error
    raise DataError(
        f"A {type(source).__name__} is not a table; give the path of a {', '.join(TABLE_FILES)}"
        " file, a pandas DataFrame or a Hugging Face dataset."
    )


def _read_file(path: Path, encoding: str) -> pandas.DataFrame:
    import pandas

    suffix = path.suffix.lower()
    if suffix not in TABLE_FILES:
        raise DataError(
            f"{str(path)!r} is not a kind of table that is read; give a {', '.join(TABLE_FILES)}"
            " file, or read it with pandas and give the DataFrame."
        )
    if suffix == ".parquet":
        try:
            return pandas.read_parquet(path)
        except ImportError as error:
            raise DataError(
                "Parquet files need pyarrow: pip install 'compression-workbench[data]', or give a"
                " CSV file."
            ) from error
        except (ValueError, OSError) as error:
            raise DataError(f"{str(path)!r} is not a Parquet file: {error}.") from error
    content = read_text(path, encoding)
    if not content.strip():
        raise DataError(f"The file {str(path)!r} is empty; give a table with labelled texts.")
    if suffix == ".json":
        return _read_json(path, content)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path, content)
    try:
        # all as text: "None", "NA" and "007" are labels like any other
        return pandas.read_csv(
            io.StringIO(content),
            sep="\t" if suffix == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
        )
    except ValueError as error:  # pandas' ParserError is one
        raise DataError(
            f"{str(path)!r} cannot be read as {suffix[1:]}: {error}. Check the separator and the"
            " quotes, or read it with pandas and give the DataFrame."
        ) from error


def _read_json(path: Path, content: str) -> pandas.DataFrame:
    import pandas

    advice = (
        'give a list of records, such as [{"text": "…", "label": "…"}], or read it with pandas'
        " and give the DataFrame."
    )
    try:
        data = json.loads(content)
    except json.JSONDecodeError as error:
        lines = content.split("\n")
        more = error.msg == "Extra data" and all(_is_object(x) for x in lines if x.strip())
        hint = " It looks like JSON lines: name the file .jsonl." if more else ""
        raise DataError(
            f"{str(path)!r} cannot be read as json: line {error.lineno}, column {error.colno}:"
            f" {error.msg}.{hint or ' Correct it there, or ' + advice}"
        ) from error
    records = isinstance(data, list) and all(isinstance(item, dict) for item in data)
    if not records and not isinstance(data, dict):
        raise DataError(f"{str(path)!r} holds no table ({_kind_of(data)}); {advice}")
    try:
        return pandas.DataFrame(data)
    except ValueError as error:  # columns of unequal length, or no lists
        raise DataError(f"{str(path)!r} holds no table ({error}); {advice}") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        wrong = next((item for item in value if not isinstance(item, dict)), None)
        return f"a list with {str(json.dumps(wrong))[:40]} in it"
    return str(json.dumps(value))[:40]


def _read_json_lines(path: Path, content: str) -> pandas.DataFrame:
    import pandas

    rows = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            wrong = None if isinstance(row, dict) else f"{line.strip()[:40]} is not an object"
        except json.JSONDecodeError as error:
            wrong = f"{error.msg}, at character {error.pos + 1}"
        if wrong:
            raise DataError(
                f"{str(path)!r} cannot be read as {path.suffix[1:]}: line {number}: {wrong}. Every"
                ' line must be one object, such as {"text": "…", "label": "…"}; correct it, or'
                " remove the line."
            )
        rows.append(row)
    return pandas.DataFrame(rows)


def _named(source: Any, values: list[Any], label: str) -> list[Any]:
    """Return the labels; a Hugging Face dataset's ClassLabel codes become their names."""
    features = getattr(source, "features", None) if hasattr(source, "column_names") else None
    names = getattr((features or {}).get(label), "names", None)
    if names:
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in values]
    return values


def _is_missing(value: Any) -> bool:
    return value is None or (value != value) is True or str(value) == "<NA>"


def _as_text(value: Any) -> str:
    return "" if _is_missing(value) else str(value)


def _as_label(value: Any) -> str:
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas makes floats of integers
        return str(int(value))
    return str(value).strip()


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
