"""The first rows of the user's data, and which columns look like what."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.app.parts.rows import rows_html
from workbench.errors import DataError
from workbench.tasks import columns

if TYPE_CHECKING:
    import pandas as pd

PREVIEWED = 200


def read_rows(path: Path, **reading: Any) -> pd.DataFrame:
    """Return the first rows of a table.

    Parameters
    ----------
    path : Path
    **reading
        Fields of :class:`~workbench.tasks.tables.Reading`; what is left out is detected.

    Raises
    ------
    DataError
        If there is no file, or it has too few columns or rows.
    Exception
        Whatever the reader raises on a broken file.
    """
    import pandas as pd

    from workbench.tasks.tables import Reading, read_file

    if not path.is_file():
        raise DataError(f"There is no file {path}; give the path of a table, or upload one.")
    table = read_file(path, Reading(**reading))
    shown = {name: table.texts(place)[:PREVIEWED] for place, name in enumerate(table.columns)}
    frame = pd.DataFrame(
        {
            name: [value if isinstance(value, str) else "" for value in values]
            for name, values in shown.items()
        },
        dtype=object,
    )
    if len(frame.columns) < 2:
        raise DataError(
            f"{path.name} has {len(frame.columns)} column; a table needs two, one with the"
            " texts and one with what is wanted of them."
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
    """Return the column that looks like the texts."""
    return columns.guess_text(_texts(frame))


def guess_label(frame: pd.DataFrame) -> str:
    """Return the column that looks like the labels."""
    return columns.guess_label(_texts(frame))


def guess_summary(frame: pd.DataFrame) -> str:
    """Return the column that looks like summaries."""
    return columns.guess_summary(_texts(frame))


def guess_fields(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that look like what is written out of the texts."""
    return columns.guess_fields(_texts(frame))


def guess_pair(frame: pd.DataFrame) -> tuple[str, str, str]:
    """Return the columns that look like two texts and the score of their likeness."""
    return columns.guess_pair(_texts(frame))


def _texts(frame: pd.DataFrame) -> dict[str, list[str]]:
    return {str(name): frame[name].fillna("").astype(str).tolist() for name in frame.columns}
