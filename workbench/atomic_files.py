"""Names beside a file or folder to write to first, and how to tell what a killed process left."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import platform
import re
import time
from pathlib import Path

from workbench.processes import identity
from workbench.stored_paths import remove, writable_file

_COUNT = itertools.count(int.from_bytes(os.urandom(2), "big"))

FileIdentity = tuple[int, int, int] | None
"""Inode, size and time of change in nanoseconds of a file; None where there is none."""


def identity_of(path: Path) -> FileIdentity:
    """Return what tells a file from the one that takes its place, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def aside_of(path: Path) -> Path:
    """Return a name beside ``path``, in a folder that is made if it is not there, to write to.

    It says which process of which computer writes there; a process id alone is used again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pid, number = os.getpid(), next(_COUNT) & 0xFFFF
    return path.with_name(f"{path.stem}.{host_tag()}-{pid}-{_tag(identity(pid))}{number:04x}.tmp")


def is_leftover(path: Path) -> bool:
    """Return whether the process that was writing to a name of :func:`aside_of` is gone.

    What another computer writes is taken to be abandoned after a day.
    """
    found = re.search(r"\.([0-9a-f]{8})-(\d+)-([0-9a-f]{4})[0-9a-f]{4}\.tmp$", path.name)
    if found is None:
        return False
    if found[1] == host_tag():
        alive = identity(int(found[2]))
        return alive is None or (alive != "" and _tag(alive) != found[3])
    return age_seconds(path) > 24 * 3600


def remove_leftovers(folder: Path, *patterns: str) -> None:
    """Remove what killed processes left in a folder under names of :func:`aside_of`.

    Parameters
    ----------
    folder : Path
        It need not be there.
    *patterns : str
        Of names that earlier versions wrote to; removed when they are a day old.
    """
    for path in list(folder.glob("*.tmp")):
        if is_leftover(path):
            remove(folder, path)
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if min(map(age_seconds, [path, *path.glob("*")])) > 24 * 3600:
                remove(folder, path)


def write_file(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file of the user's: aside first, then in the place of what was there.

    Parameters
    ----------
    path : str or path
        ``~`` is the home folder; folders on the way are made.
    text : str

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If something else than a regular file is there.
    OSError
        If it cannot be written; nothing is left behind.
    """
    target = writable_file(path)
    aside = aside_of(target)
    for other in list(target.parent.glob(f"{glob.escape(target.stem)}.*.tmp")):
        if is_leftover(other):
            remove(target.parent, other)
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def age_seconds(path: Path) -> float:
    """Return how long ago a file or folder was changed; 0 if it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def host_tag() -> str:
    """Return eight hexadecimal digits that tell this computer from others."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _tag(process: str | None) -> str:
    return hashlib.sha256((process or "").encode()).hexdigest()[:4]
