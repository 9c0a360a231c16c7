"""Runs execute in this process, in the thread that asks for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from workbench.errors import DiskFullError
from workbench.progress import Monitor
from workbench.study.running.jobs import execute_job
from workbench.study.running.runner import (
    MOST_UPCOMING,
    Event,
    Job,
    OnEvent,
    Wanted,
    progress_event,
    with_baselines,
)

if TYPE_CHECKING:
    from workbench.study.running.engine import Engine, Execution


class InlineRunner:
    """Computes jobs in this process, in the thread that submits them.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cancel_current = threading.Event()
        self._cancel_all = threading.Event()
        self._numbers = 0
        self._lock = threading.Lock()
        self.executions: list[Execution] = []
        """What came of the jobs of the last :meth:`submit`, baselines included."""

    def submit(self, jobs: Sequence[Wanted], on_event: OnEvent | None = None) -> list[int]:
        """Compute the jobs and return when the last one has ended."""
        with self._lock:
            self._cancel_all.clear()
            self.executions = []
            emit = on_event or (lambda event: None)
            waiting: deque[Job] = deque()
            for model, recipe in with_baselines(self._engine.store, jobs):
                self._numbers += 1
                waiting.append(Job(self._numbers, model, recipe, on_event))
            numbers = [job.number for job in waiting]
            for job in waiting:
                emit(job.event("queued", waiting=len(waiting)))
            while waiting:
                job = waiting.popleft()
                self._cancel_current.clear()
                if self._cancel_all.is_set():
                    emit(job.event("cancelled", error="Cancelled before it started."))
                    continue
                self._engine.expect(
                    [
                        (other.model, other.recipe)
                        for other in islice(waiting, MOST_UPCOMING)
                        if other.recipe is not None
                    ]
                )
                execution = self._execute(job, _noting(len(waiting), emit))
                if execution is not None:
                    self.executions.append(execution)
                    if isinstance(execution.error, DiskFullError):  # nor would the next one fit
                        self._cancel_all.set()
            if numbers:
                emit(Event("idle", numbers[-1]))
            return numbers

    def cancel(self) -> None:
        """Stop the current job at its next report; call it from another thread or a callback."""
        self._cancel_current.set()

    def cancel_all(self) -> None:
        """Stop the current job at its next report, and compute none of those that wait."""
        self._cancel_all.set()
        self._cancel_current.set()

    def close(self) -> None:
        """Stop everything."""
        self.cancel_all()

    def _execute(self, job: Job, emit: OnEvent) -> Execution | None:
        monitor = Monitor(lambda p: emit(progress_event(job, p)), self._cancel_current.is_set)
        return execute_job(self._engine, job, emit, monitor)


def _noting(waiting: int, emit: OnEvent) -> OnEvent:
    return lambda event: emit(replace(event, waiting=waiting))
