"""Float tensors in files, and folders of them that appear complete or not at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from workbench.atomic_files import aside_of
from workbench.errors import CalibrationError

META = "meta.json"


def mapped_floats(path: Path, shape: Sequence[int], *, shared: bool) -> Tensor:
    """Return the float32 tensor that a file holds, read from it page by page.

    Parameters
    ----------
    path : Path
        Made, full of zeros, if it is not there and ``shared``.
    shape : sequence of int
    shared : bool
        Whether changes of the tensor go to the file.

    Raises
    ------
    CalibrationError
        If the file is to be read, and is not as long as the tensor: what is mapped beyond the end
        of a file ends the process when it is read.
    """
    size = math.prod(shape)
    if not shared:
        found = path.stat().st_size if path.is_file() else 0
        if found != 4 * size:
            raise CalibrationError(
                f"The statistics in {path} are damaged: the file has {found:,} bytes, and"
                f" {4 * size:,} were written. Delete the folder {path.parent}; they are collected"
                " again when they are needed."
            )
    flat = torch.from_file(str(path), shared=shared, size=size, dtype=torch.float32)
    return flat.view(*shape)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, copied out of it, and its metadata.

    safetensors maps what it reads, and a file that another program then cuts off would end the
    process; it compares the header with the file's size when it opens it.

    Raises
    ------
    OSError, SafetensorError
        If the file cannot be read, or is cut off.
    """
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name).clone() for name in names}, dict(file.metadata() or {})


def build_folder(target: Path, build: Callable[[Path], dict[str, Any]]) -> None:
    """Have a folder filled beside its place and renamed, unless it is there already.

    If building fails or is cancelled nothing is left behind. Of two processes that build the same
    at once, each in a folder of its own, the first one's stays.

    Parameters
    ----------
    target : Path
    build : callable
        Fills the folder that it is given, and returns what ``meta.json`` is to say.
    """
    if (target / META).exists():
        return
    building = aside_of(target)
    building.mkdir()
    try:
        meta = build(building)
        (building / META).write_text(json.dumps(meta), encoding="utf-8")
        try:
            building.replace(target)
        except OSError:  # another process was first; its numbers are the same
            if not (target / META).exists():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read_meta(folder: Path) -> dict[str, Any]:
    """Return what a folder's ``meta.json`` says."""
    meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
    return meta
