"""The first rows of the user's data, and which columns look like what."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.app.parts.rows import rows_html
from workbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PREVIEWED = 200
_LABELS = ("label", "intent", "category", "class", "target")
_SUMMARIES = ("summary", "highlights", "abstract", "headline", "target", "title")
_ANSWERS = ("answer", "answers", "target", "output", "value", "extracted")
_NUMBERS = ("id", "index", "row", "uid", "document")


def read_rows(path: Path) -> pd.DataFrame:
    """Return the first rows of a table.

    Raises
    ------
    DataError
        If there is no file, or it has too few columns or rows.
    Exception
        Whatever the reader raises on a broken file.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError(f"There is no file {path}; give the path of a table, or upload one.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        frame = pd.read_parquet(path).head(PREVIEWED)
    elif suffix in (".jsonl", ".ndjson"):
        frame = pd.read_json(path, lines=True, nrows=PREVIEWED)
    elif suffix == ".json":
        frame = pd.read_json(path).head(PREVIEWED)
    else:
        separator = "\t" if suffix == ".tsv" else ","
        frame = pd.read_csv(path, nrows=PREVIEWED, sep=separator, encoding="utf-8")
    if len(frame.columns) < 2:
        raise DataError(
            f"{path.name} has {len(frame.columns)} column; a table needs two, one with the"
            " texts and one with what is wanted of them. Separate columns by commas (.csv) or tabs"
            " (.tsv)."
        )
    if frame.empty:
        raise DataError(f"{path.name} has no rows; give a table with one row per text.")
    return frame


def table_html(frame: pd.DataFrame) -> str:
    """Return the first four rows as HTML, escaped."""
    heads = [(str(name), "wrap") for name in frame.columns]
    rows = [("", [str(cell)[:120] for cell in row]) for row in frame.head(4).to_numpy()]
    return f'<div class="wb-scroll wb-preview">{rows_html(heads, rows)}</div>'


def text_html(path: Path) -> str:
    """Return the beginning of a text file, or how many files a folder has, as HTML.

    Raises
    ------
    DataError
        If there is neither.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}; give the path of a text file.")
    if path.is_dir():
        return f"<p>{len(list(path.rglob('*.txt')))} text files</p>"
    text = path.read_bytes()[:600].decode("utf-8", errors="replace")
    return f"<pre>{html.escape(text)}</pre>"


def guess_text(frame: pd.DataFrame) -> str:
    """Return the column that looks like the texts: the longest."""
    lengths = _lengths(frame)
    return max(lengths, key=lambda name: lengths[name])


def guess_label(frame: pd.DataFrame) -> str:
    """Return the column that looks like the labels: by its name, or the fewest values."""
    others = _others(frame)
    named = [name for name in others if name.lower() in _LABELS]
    return (named or [min(others, key=lambda name: frame[name].astype(str).nunique())])[0]


def guess_summary(frame: pd.DataFrame) -> str:
    """Return the column that looks like summaries: by its name, or the longest after the texts."""
    others, lengths = _others(frame), _lengths(frame)
    named = [name for name in others if name.lower() in _SUMMARIES]
    return (named or [max(others, key=lambda name: lengths[name])])[0]


def guess_fields(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that look like what is written out of the texts."""
    others = _others(frame)
    named = [name for name in others if name.lower() in _ANSWERS]
    kept = [name for name in others if name.lower() not in _NUMBERS]
    return tuple(named or kept or others)


def _lengths(frame: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(frame[name].astype(str).str.len().mean()) for name in frame.columns}


def _others(frame: pd.DataFrame) -> list[str]:
    text = guess_text(frame)
    return [str(name) for name in frame.columns if str(name) != text]
