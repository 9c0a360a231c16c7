"""Files that were uploaded, kept beside the notebook; none replaces another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import DataError

FOLDER = Path("uploads")
MOST_BYTES = 8_000_000
"""Jupyter's messages are limited to 10 MB by default."""


def keep_upload(file: Mapping[str, Any]) -> Path:
    """Write an uploaded file below ``uploads`` and return its path.

    One of the same name and content is used as it is; of another content it stays, because a
    study may have been made of it, and the new one gets a number.

    Parameters
    ----------
    file : mapping
        As ipywidgets' FileUpload has it: ``name``, ``size``, ``content``.

    Raises
    ------
    DataError
        If it is too large.
    """
    if file["size"] > MOST_BYTES:
        raise DataError(
            f"{file['name']} has {file['size'] / 1e6:.0f} MB; up to {MOST_BYTES / 1e6:.0f} MB"
            " can be uploaded. Put it beside the notebook and write its path instead."
        )
    FOLDER.mkdir(exist_ok=True)
    content = bytes(file["content"])
    first = FOLDER / Path(file["name"]).name  # never outside of the folder
    path, number = first, 1
    while path.exists() and path.read_bytes() != content:
        number += 1
        path = first.with_name(f"{first.stem}-{number}{first.suffix}")
    path.write_bytes(content)
    return path
