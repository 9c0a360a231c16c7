"""What a backend is, and how its process is started, followed and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from workbench import child_process
from workbench.errors import CompressionError
from workbench.models.loaded import LoadedModel
from workbench.progress import Monitor
from workbench.recipes import Step

POLL_SECONDS = 0.3


class Backend(ABC):
    """A program that compresses a whole model by itself.

    ``version`` changes whenever what is asked of it changes.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def apply(
        self,
        model: LoadedModel,
        step: Step,
        windows: Sequence[Sequence[int]],
        monitor: Monitor,
    ) -> LoadedModel:
        """Return the compressed model; the given one is not changed.

        Parameters
        ----------
        model : LoadedModel
            Not compressed yet.
        step : Step
        windows : sequence of sequences of int
            The tokens that the workbench's own solvers would see.
        monitor : Monitor
            Reports the backend's name as stage; may cancel, which ends the process.

        Raises
        ------
        CompressionError
            If the program is not installed, or fails; its last words are in the message.
        """


def run_process(command: Sequence[str | Path], what: str, monitor: Monitor) -> None:
    """Run a program to its end, in its own process, and raise what it says if it fails.

    Nothing is written to its standard input, which closes when this process ends, however it does:
    a program that runs for long reads it to know.

    Parameters
    ----------
    command : sequence of str or Path
    what : str
        The stage that is reported.
    monitor : Monitor
        May cancel; the process is then ended.
    """
    with tempfile.TemporaryFile() as log:
        # Its own log, since the notebook's or the worker's standard output is not for it.
        process = child_process.start(command, log=log)
        try:
            monitor.report(what, 0, 1, "in its own process")
            while True:
                try:
                    code = process.wait(POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    monitor.check()
        finally:
            child_process.end(process)
        if code:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 2000))
            words = log.read().decode(errors="replace").strip()
            raise CompressionError(f"{what} failed (exit code {code}). Its last words:\n{words}")
    monitor.report(what, 1, 1)


def interpreter(variable: str) -> Path:
    """Return the Python that an environment variable names; by default this process's own."""
    return Path(os.environ.get(variable) or sys.executable)
