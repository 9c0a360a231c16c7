"""A folder that appears complete or not at all, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.atomic_files import aside_of, is_leftover
from workbench.errors import ExportError, WorkbenchError

MARK = "export.json"
"""The file by which a folder is known as an export, and so may be replaced."""

PROGRAM = "workbench"
"""The mark's field with the version that wrote it: others write files of that name too."""

FileTest = Callable[[Path], bool]

_SPARE_BYTES = 1 << 20
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def _is_export(folder: Path) -> bool:
    try:
        about = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and PROGRAM in about and "tensor_bytes" in about


def check_target(
    path: str | os.PathLike[str],
    n_bytes: int,
    *,
    overwrite: bool,
    is_ours: FileTest = _is_export,
) -> Path:
    """Return the real folder to export to, after making sure that it can be written.

    What killed exports to the same place left behind is removed. Of a link it is the folder that
    it leads to, since that is what is written aside and renamed.

    Parameters
    ----------
    path : str or path
    n_bytes : int
        Bytes that will be written.
    overwrite : bool
        Whether an export that is there may be replaced.
    is_ours : callable
        Whether a folder is what may be replaced. Default: an export.

    Raises
    ------
    ExportError
        If the path is a file, a folder with something else in it, an export that may not be
        replaced, or the disk has too little room.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    with _said(target):
        if target.exists() and not target.is_dir():
            raise ExportError(f"{target} is a file; an export is a folder. Give another path.")
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean(target)
        _check_replaceable(target, overwrite, is_ours)
        free = shutil.disk_usage(target.parent).free
    if free < n_bytes + _SPARE_BYTES:
        raise ExportError(
            f"The disk with {target.parent} has {free / 1e6:,.1f} MB free and the export needs"
            f" {n_bytes / 1e6:,.1f} MB. Free some space, or give a path on another disk."
        )
    return target


def _check_replaceable(target: Path, overwrite: bool, is_ours: FileTest) -> None:
    """Raise ExportError if a folder holds something that may not be replaced."""
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise ExportError(
            f"{target} exists already. Give another path, or overwrite=True to replace it once the"
            " new export is complete."
        )
    if not is_ours(target):
        holds = "something else"
        if is_ours is _is_export:
            holds = f"no export of the workbench (no {MARK} of its own)"
        raise ExportError(
            f"{target} is not empty and holds {holds}, so it is not replaced. Give another path, or"
            " remove the folder yourself."
        )


@contextlib.contextmanager
def published(target: Path, *, overwrite: bool, is_ours: FileTest = _is_export) -> Iterator[Path]:
    """Give a folder to fill beside the target; it takes the target's place if nothing is raised.

    Its files are on the disk before that, and what was there before stays until then.

    Parameters
    ----------
    target : Path
        As :func:`check_target` returned it.
    overwrite : bool
        Whether an export that is there by then may be replaced.
    is_ours : callable
        As for :func:`check_target`.

    Raises
    ------
    ExportError
        If the disk is full, the folder cannot be written, or something else has taken the place
        meanwhile.
    """
    with _said(target):
        building = aside_of(target.with_name(f"{target.name}.export"))
        building.mkdir()
    try:
        with _said(target):
            yield building
            _sync(building)
            # Again, because writing a large model takes a while.
            _check_replaceable(target, overwrite, is_ours)
            _take_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def _said(target: Path) -> Iterator[None]:
    """Raise what the operating system says as an ExportError that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except WorkbenchError:  # some are OSErrors too
        raise
    except OSError as error:
        raise ExportError(_words(target, error.errno, error.strerror or str(error))) from error
    except SafetensorError as error:
        text = str(error)
        full = "os error 28" in text or "No space left" in text
        raise ExportError(_words(target, errno.ENOSPC if full else None, text)) from error


def _words(target: Path, number: int | None, text: str) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk with {target.parent} is full, so nothing was exported to {target}. Free"
            " some space, or give a path on another disk."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{target.parent} cannot be written to ({text}). Give a path in a folder of yours."
    return f"Nothing can be exported to {target}: {text}."


def _take_place(building: Path, target: Path) -> None:
    """Put a complete folder in the target's place; the target is never missing on Linux."""
    if not target.exists() or not any(target.iterdir()):
        if target.exists() and os.name == "nt":  # which cannot rename onto a folder
            target.rmdir()
        os.replace(building, target)
    elif not _exchange(building, target):
        # The name says whose place it had: if this process ends here, the next export puts it back.
        old = target.with_name(f"{building.name.removesuffix('.tmp')}.old.tmp")
        os.replace(target, old)
        os.replace(building, target)
        shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):  # not on every file system
        _sync_path(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; return False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _clean(target: Path) -> None:
    """Remove what killed exports left; put a folder back that one had taken away to replace."""
    aside = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]{{8}}-\d+-[0-9a-f]{{8}}(\.old)?\.tmp")
    for path in list(target.parent.iterdir()):
        found = aside.fullmatch(path.name)
        if not found or not is_leftover(path.with_name(path.name.replace(".old.tmp", ".tmp"))):
            continue
        if found[1] and not target.exists():
            os.replace(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring all files to the disk, readable for whoever may read the folder."""
    readable = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(readable)  # some libraries write through private temporary files
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())


def _sync_path(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
