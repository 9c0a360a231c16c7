"""Ask the process that looks into models; see :mod:`workbench.study.inspector`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workbench.child_process import ChildProcess, Message
from workbench.stored_paths import within

OnAnswer = Callable[[Any], None]
OnError = Callable[[str], None]
OnProgress = Callable[[dict[str, Any]], None]

_ENDED = "The process that looks into models ended (probably out of memory). Ask again to retry."


@dataclass(frozen=True)
class _Question:
    answer: OnAnswer
    error: OnError
    progress: OnProgress


class Inspector:
    """One process that answers questions about a study's models, started when first asked.

    Callbacks are called in a background thread.

    Parameters
    ----------
    path : Path
        The study's folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._open: dict[int, _Question] = {}
        self._number = 0

    @property
    def is_busy(self) -> bool:
        """Whether a question has no answer yet."""
        with self._lock:
            return bool(self._open)

    def ask(
        self,
        what: str,
        on_answer: OnAnswer,
        on_error: OnError,
        on_progress: OnProgress = lambda progress: None,
        **arguments: Any,
    ) -> None:
        """Ask one of :data:`workbench.study.inspector.ANSWERS` and return at once."""
        with self._lock:
            if self._process is None or self._process.exit_code is not None:
                self._process = ChildProcess(
                    "workbench.study.inspector",
                    [str(self._path)],
                    log=_open_log(self._path),
                    on_message=self._tell,
                    on_end=self._give_up,
                )
            self._number += 1
            self._open[self._number] = _Question(on_answer, on_error, on_progress)
            # If this fails, the process has ended, which is noticed.
            self._process.send({"number": self._number, "ask": what, "with": arguments})

    def stop(self, told: str = "") -> None:
        """End the process.

        Parameters
        ----------
        told : str
            What those are told whose questions are open, as an error. Default: nothing.
        """
        with self._lock:
            process, self._process = self._process, None
            left = list(self._open.values())
            self._open.clear()
        if process is not None:
            process.close(0.0)
        for question in left if told else ():
            question.error(told)

    def _give_up(self, process: ChildProcess) -> None:
        """Tell those whose questions are open that the process ended."""
        with self._lock:
            if process is not self._process:
                return
            left, self._process = list(self._open.values()), None
            self._open.clear()
        for question in left:
            question.error(_ENDED)

    def _tell(self, process: ChildProcess, said: Message) -> None:
        with self._lock:
            question = self._open.get(said["number"])
            if question is not None and "progress" not in said:
                del self._open[said["number"]]
        if question is None:
            return
        if "progress" in said:
            question.progress(said["progress"])
        elif "error" in said:
            question.error(said["error"])
        else:
            question.answer(said["answer"])


def _open_log(folder: Path) -> IO[str]:
    """Return the file for what libraries print; a study that cannot be written to has none."""
    try:
        return within(folder, "inspector.log").open("w", encoding="utf-8")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")
