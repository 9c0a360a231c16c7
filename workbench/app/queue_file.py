"""The queue of a study, kept in its folder, so that it goes on after a kernel has ended."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from workbench.atomic_files import aside_of, host_tag

NAME = "queue.json"
Waiting = Sequence[tuple[str, str]]
"""The base model's name and the recipe's JSON of every job that waits or is computed."""

_IS_ENDING = False


class QueueFile:
    """Written by the kernel whose queue it is; what it says is left once that kernel is gone.

    Parameters
    ----------
    folder : Path
        The study's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        atexit.register(_end)  # what is cancelled because the kernel ends is not taken away

    def write(self, waiting: Waiting) -> None:
        """Take these jobs as those that wait; none removes the file."""
        if _IS_ENDING:
            return
        me = psutil.Process()
        said = {"host": host_tag(), "pid": me.pid, "started": me.create_time(), "jobs": [*waiting]}
        with contextlib.suppress(OSError):  # a study that cannot be written to has no queue
            if not waiting:
                self._path.unlink(missing_ok=True)
                return
            aside = aside_of(self._path)
            aside.write_text(json.dumps(said), encoding="utf-8")
            os.replace(aside, self._path)

    def left(self) -> list[tuple[str, str]]:
        """Return the jobs that a kernel which is gone has left, none while it is there."""
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            jobs = [(str(model), str(recipe)) for model, recipe in said["jobs"]]
            if said["host"] != host_tag() or _is_there(said["pid"], said["started"]):
                return []  # another computer's kernel may be there
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return jobs


def _is_there(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1 and pid != os.getpid()
    except psutil.Error:
        return False


def _end() -> None:
    global _IS_ENDING
    _IS_ENDING = True
