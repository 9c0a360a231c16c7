"""Paths that a folder states about itself: they stay in it, and no link in it leads out.

Studies, models, routers and tasks are handed around, and an archive keeps symbolic links. So a name
that was read from a folder is resolved here before anything is opened or deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from workbench.errors import ConfigError, UnsafePathError

_DEEPEST = 6
"""Levels of folders that are looked through; nothing that is read lies deeper."""


def within(root: Path, *names: str) -> Path:
    """Return the path of a stored name in a folder.

    Parameters
    ----------
    root : Path
        The folder that must not be left. It may be a link itself: that is the user's own path.
    *names : str
        One name per level, each without separators.

    Raises
    ------
    UnsafePathError
        If a name is no plain one, a link on the way leads out of the folder, or what is there is
        neither a file nor a folder.
    """
    path = root
    for name in names:
        plain = isinstance(name, str) and name not in ("", ".", "..")
        if not plain or any(mark in name for mark in "/\\:\0"):
            raise UnsafePathError(
                f"{root} names a file {name!r}, which is no plain name: it could lie outside of"
                " the folder, so it is not opened. Do not use a folder that you do not trust."
            )
        path = path / name
    _check(path, os.path.realpath(root), root)
    return path


def check_folder(root: Path, *, boundary: Path | None = None, depth: int = _DEEPEST) -> None:
    """Make sure that everything in a folder is a file or a folder, and that no link leads out.

    Parameters
    ----------
    root : Path
    boundary : Path, optional
        The folder that links may lead into. Default: ``root``.
    depth : int
        Levels to look through.

    Raises
    ------
    UnsafePathError
        With the first entry that is something else.
    """
    limit = os.path.realpath(boundary or root)
    waiting = [(Path(root), depth)]
    while waiting:
        folder, left = waiting.pop()
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folder) as found,
        ):
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    if left > 1:
                        waiting.append((Path(entry.path), left - 1))
                elif not entry.is_file(follow_symlinks=False):
                    _check(Path(entry.path), limit, root)


def remove(root: Path, path: Path) -> None:
    """Delete a file or a folder below ``root``; of a link, only the link.

    What is gone already or in use stays as it is.

    Raises
    ------
    UnsafePathError
        If the path lies outside of the folder.
    """
    _check(path.parent, os.path.realpath(root), root)
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # which follows no link below it
        else:
            path.unlink()


def writable_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that a user's path means, ``~`` included, if it may be replaced.

    Raises
    ------
    ConfigError
        If something else than a regular file is there: a device, a pipe or a folder.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip() or "\0" in str(path):
        said = repr(path) if isinstance(path, str) else f"A {type(path).__name__}"
        raise ConfigError(f"{said} is no path of a file; give one, such as 'report.html'.")
    try:
        found = Path(path).expanduser()
        mode = found.stat().st_mode
    except RuntimeError as error:
        raise ConfigError(f"{str(path)!r} names a home folder that is not known.") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"{str(path)!r} is no path that this system can write to.") from error
    except OSError:
        return found
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file (a device or a pipe)"
        raise ConfigError(f"{found} is {what}; give the path of a file to write.")
    return found


def readable_file(path: Path) -> Path:
    """Return the path, unless reading it could wait for ever.

    Raises
    ------
    UnsafePathError
        If it is there and is neither a file nor a folder.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UnsafePathError(
                f"{path} is no regular file (a device or a pipe), and reading it could wait for"
                " ever. Give the path of a file."
            )
    return path


def _check(path: Path, limit: str, root: Path) -> None:
    real = os.path.realpath(path)
    if not (real + os.sep).startswith(limit.rstrip(os.sep) + os.sep):
        raise UnsafePathError(
            f"{_shown(path, root)} in {root} leads to {real}, outside of the folder. It is not"
            " followed, because a folder from somebody else could reach your files so. If the link"
            " is yours, put a copy of what it leads to in its place."
        )
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnsafePathError(
            f"{_shown(path, root)} in {root} cannot be used: {error.strerror or error}."
        ) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsafePathError(
            f"{_shown(path, root)} in {root} is no regular file (a device or a pipe); remove it."
        )


def _shown(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(root))
    return str(path)
