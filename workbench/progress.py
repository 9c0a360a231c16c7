"""Progress and cancellation of long operations, independent of where they are shown."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from workbench.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """One progress report.

    Attributes
    ----------
    stage : str
        What is being done, such as ``"calibrate"``, ``"gptq"`` or ``"evaluate"``.
    done, total : int
        Finished and all units of the stage.
    detail : str
        The unit that was finished last (a layer's name, a part of the data).
    """

    stage: str
    done: int
    total: int
    detail: str = ""


def loss_words(loss: float, validation: float | None = None) -> str:
    """Return how a training says its losses in ``Progress.detail``; see :func:`losses_of`."""
    return f"loss {loss:.4f}" + ("" if validation is None else f", validation {validation:.4f}")


def losses_of(words: str) -> tuple[float | None, float | None]:
    """Return the training's and the validation's loss that :func:`loss_words` wrote, or None."""
    found = [re.search(rf"\b{name} (-?[0-9.]+)", words) for name in ("loss", "validation")]
    loss, validation = (None if one is None else float(one[1]) for one in found)
    return loss, validation


class Monitor:
    """Where a long operation reports to, and asks whether it should stop.

    Parameters
    ----------
    on_progress : callable, optional
        Called with every :class:`Progress`.
    is_cancelled : callable, optional
        Polled at every report; once it returns True, :class:`CancelledError` is raised.
    """

    def __init__(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled

    def report(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Report progress, then raise CancelledError if the user asked to stop."""
        if self._on_progress is not None:
            self._on_progress(Progress(stage, done, total, detail))
        self.check()

    def check(self) -> None:
        """Raise CancelledError if the user asked to stop."""
        if self._is_cancelled is not None and self._is_cancelled():
            raise CancelledError("Cancelled. Finished runs are kept; run the same again to go on.")


class Throttle:
    """Lets progress through at most ten times a second, but every first and last of a stage.

    Parameters
    ----------
    forward : callable
        Called with what passes.
    """

    def __init__(self, forward: Callable[[Progress], None]) -> None:
        self._forward = forward
        self._stage = ""
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Forward a report, or drop it."""
        now = time.monotonic()
        if (
            progress.stage != self._stage
            or progress.done >= progress.total
            or now - self._last >= 0.1
        ):
            self._stage, self._last = progress.stage, now
            self._forward(progress)


def on_terminal() -> Callable[[Progress], None] | None:
    """Return what shows progress on standard error if that is a terminal, else None.

    For what a script may wait for without having asked for it: one line per stage, which grows.
    """
    stream = sys.stderr
    try:
        if not stream.isatty():
            return None
    except (AttributeError, ValueError):  # none at all, one that only takes text, or a closed one
        return None
    written = {"line": ""}

    def show(progress: Progress) -> None:
        line = f"{progress.stage} {progress.done}/{progress.total}"
        ends = "\n" if progress.done >= progress.total else ""
        stream.write(f"\r{line.ljust(len(written['line']))}{ends}")
        stream.flush()
        written["line"] = "" if ends else line

    return show


SILENT = Monitor()
"""A monitor that shows nothing and never cancels."""
