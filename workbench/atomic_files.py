"""Names beside a file or folder to write to first, and how to tell what a killed process left."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
import uuid
from pathlib import Path

import psutil

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
    """Return a name beside ``path``, in a folder that is made if it is not there, to write to."""
    path.parent.mkdir(exist_ok=True)
    return path.with_name(f"{path.stem}.{host_tag()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def is_leftover(path: Path) -> bool:
    """Return whether the process that was writing to a name of :func:`aside_of` is gone.

    What another computer writes is taken to be abandoned after a day.
    """
    found = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$", path.name)
    if found and found[1] == host_tag():
        return not psutil.pid_exists(int(found[2]))
    return age_seconds(path) > 24 * 3600


def age_seconds(path: Path) -> float:
    """Return how long ago a file or folder was changed; 0 if it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def host_tag() -> str:
    """Return eight hexadecimal digits that tell this computer from others."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
