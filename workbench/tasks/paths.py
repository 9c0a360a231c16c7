"""Which files the user's strings name, and which endings say that a file is a table or a text."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from workbench.errors import DataError
from workbench.stored_paths import readable_file
from workbench.tasks.encodings import COMPRESSED

TEXT_FILES = (".txt", ".text", ".md", ".rst", ".py", ".tex", ".html", ".raw", ".tokens", ".log")
TABLE_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
"""Each but the last two may be packed: ``.csv.gz``, ``.jsonl.xz`` and the like."""

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
    known = str(source).lower().endswith(TEXT_FILES) or table_suffix(source) is not None
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


def table_suffix(name: str | Path) -> str | None:
    """Return the ending that says what kind of table a file is, None if it says none."""
    lower = str(name).lower()
    for packed in COMPRESSED:
        if lower.endswith(packed):
            suffix = Path(lower.removesuffix(packed)).suffix
            return suffix if suffix in TABLE_FILES[:-2] else None
    suffix = Path(lower).suffix
    return suffix if suffix in TABLE_FILES else None
