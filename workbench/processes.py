"""Which process is which: told apart by what no change of the clock moves."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import psutil


def identity(pid: int | None = None) -> str | None:
    """Return a text that only this process has on its computer, None if it does not exist.

    A process id is used again, and a creation time in seconds since 1970 moves with the clock on
    Linux, where it is computed from a boot time. There the text is the boot's random id and the
    ticks from boot to the process's start; elsewhere the kernel keeps the creation time as it was.

    Parameters
    ----------
    pid : int, optional
        Default: the process that asks.
    """
    boot = _boot_id()
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if boot:
            return f"{boot}:{_start_ticks(process.pid)}"
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    except (psutil.AccessDenied, PermissionError):
        return ""


def is_same(pid: int, known: str) -> bool:
    """Return whether the process with this id is there and is the one that :func:`identity` told.

    One that may not be looked at is taken to be the same.
    """
    found = identity(pid)
    return found is not None and found in ("", known)


@functools.cache
def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
    return ""


def _start_ticks(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot (field 22 of its stat)."""
    text = Path(f"/proc/{pid}/stat").read_bytes()
    # The command's name, in parentheses, may hold anything; fields are counted from behind it.
    return text.rpartition(b")")[2].split()[19].decode()
