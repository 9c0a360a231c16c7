"""Runs execute in a worker process, which can be cancelled and killed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import IO

from workbench.child_process import ChildProcess, Message
from workbench.errors import DiskFullError, StudyError
from workbench.records import RunState
from workbench.storage.store import Store
from workbench.study.running.runner import (
    FINAL,
    MOST_UPCOMING,
    Event,
    Job,
    OnEvent,
    Wanted,
    with_baselines,
)

GRACE_SECONDS = 2.0
"""A cancelled run has so long to stop by itself before its process is ended."""

LOG_BYTES = 1_000_000


class WorkerRunner:
    """Computes jobs in one worker process, which is started when it is needed first.

    Events are delivered by one background thread, in order. When the worker dies, the run that it
    computed is recorded as failed, and the next job starts a new worker.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._process: ChildProcess | None = None
        self._is_warm = False
        self._numbers = 0
        self._closed = False
        self._events: queue.SimpleQueue[tuple[OnEvent | None, Event] | None] = queue.SimpleQueue()
        self._quiet = threading.Condition(self._lock)
        self._undelivered = 0
        self._deliverer = threading.Thread(target=self._deliver, name="wb-events", daemon=True)
        self._deliverer.start()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None if there is none."""
        with self._lock:
            return None if self._process is None else self._process.pid

    @property
    def is_idle(self) -> bool:
        """Whether every job has ended and every event was delivered."""
        with self._lock:
            return self._current is None and not self._waiting and not self._undelivered

    def submit(self, jobs: Sequence[Wanted], on_event: OnEvent | None = None) -> list[int]:
        """Add jobs to the queue and return at once.

        Parameters
        ----------
        jobs : sequence of (str, Recipe or None)
            Base model's name and recipe, None to make its predictions ready. The base model's own
            run is added where it is missing.
        on_event : callable, optional
            Called with every :class:`Event` of these jobs, in a background thread.

        Returns
        -------
        list of int
            Their numbers, those of added baselines included.

        Raises
        ------
        StudyError
            If the study is closed, or its folder cannot be written to.
        """
        with self._lock:
            if self._closed:
                raise StudyError("The study is closed; open it again to compute runs.")
            self._store.require_writable()  # the worker could record nothing, nor write its log
            queued = [*self._waiting, *([self._current] if self._current else [])]
            numbers = []
            for model, recipe in with_baselines(self._store, jobs, queued):
                self._numbers += 1
                job = Job(self._numbers, model, recipe, on_event)
                self._waiting.append(job)
                numbers.append(job.number)
                self._emit(job, job.event("queued"))
            self._put_runs_first()
            self._next()
        return numbers

    @property
    def waiting(self) -> tuple[int, ...]:
        """Numbers of the jobs that wait, the next one first."""
        with self._lock:
            return tuple(job.number for job in self._waiting)

    def move(self, number: int, places: int) -> None:
        """Let a job that waits go before (negative) or after so many others."""
        with self._lock:
            jobs = list(self._waiting)
            for place, job in enumerate(jobs):
                if job.number == number:
                    jobs.insert(max(0, place + places), jobs.pop(place))
                    break
            self._waiting = deque(jobs)

    def remove(self, number: int) -> None:
        """Forget a job that waits; one that is being computed is stopped."""
        with self._lock:
            for job in list(self._waiting):
                if job.number == number:
                    self._waiting.remove(job)
                    self._emit(job, job.event("cancelled", error="Removed before it started."))
            if self._current is not None and self._current.number == number:
                self.cancel()

    def _put_runs_first(self) -> None:
        """Let runs go before predictions, also before those that are being made. The lock is held.

        What is stopped goes on afterwards from where it was.
        """
        runs = [job for job in self._waiting if job.recipe is not None]
        tables = [job for job in self._waiting if job.recipe is None]
        job = self._current
        if runs and job is not None and job.recipe is None and not job.cancelled:
            self._numbers += 1
            again = Job(self._numbers, job.model, None, job.on_event)
            tables.append(again)
            self._emit(again, again.event("queued"))
            self.cancel()
        self._waiting = deque([*runs, *tables])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; return whether that is so."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self.is_idle, timeout)

    def cancel(self) -> None:
        """Stop the current job: by a flag, and after two seconds by ending its process."""
        with self._lock:
            job, process = self._current, self._process
            if job is None or process is None or job.cancelled:
                return
            job.cancelled = True
            process.send({"do": "cancel", "job": job.number})
            timer = threading.Timer(GRACE_SECONDS, self._end_process, (job, process))
            timer.daemon = True
            timer.start()

    def cancel_all(self) -> None:
        """Stop the current job and forget those that wait."""
        with self._lock:
            self._forget_waiting("Cancelled before it started.")
            self.cancel()

    def _forget_waiting(self, why: str) -> None:
        """Compute none of the jobs that wait. The lock is held."""
        while self._waiting:
            job = self._waiting.popleft()
            self._emit(job, job.event("cancelled", error=why))

    def close(self) -> None:
        """Stop everything and end the worker; returns when it is gone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.cancel_all()
            process = self._process
        if process is not None:
            process.close(GRACE_SECONDS)
        self._events.put(None)

    # The worker process

    def _next(self) -> None:
        """Send the next job to the worker if it is free. The lock is held."""
        if self._closed or self._current is not None or not self._waiting:
            return
        self._current = job = self._waiting.popleft()
        self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        message = {
            "do": "run",
            "job": job.number,
            "model": job.model,
            "recipe": None if job.recipe is None else job.recipe.to_json(),
            "upcoming": [
                (other.model, other.recipe.to_json())
                for other in islice(self._waiting, MOST_UPCOMING)
                if other.recipe is not None
            ],
        }
        if self._process is not None and self._process.exit_code is None:
            if self._process.send(message):
                return
            self._process = None  # it ended while it had nothing to do
        self._process = ChildProcess(
            "workbench.study.running.worker_process",
            [str(self._store.path)],
            log=_open_log(self._store),
            on_message=self._receive,
            on_end=self._bury,
        )
        self._is_warm = False
        self._process.send(message)  # if this fails, its end is noticed by its reader

    def _receive(self, process: ChildProcess, message: Message) -> None:
        event = Event(**message)
        with self._lock:
            job = self._current
            if process is not self._process or job is None or event.job != job.number:
                return
            job.run = event.run
            job.has_started = self._is_warm = True
            if event.kind in FINAL:
                if (event.error or "").startswith(DiskFullError.__name__):
                    self._forget_waiting("Not started: the disk is full.")
                self._finish(job, event)
            else:
                self._emit(job, replace(event, waiting=len(self._waiting)))

    def _bury(self, process: ChildProcess) -> None:
        """Settle what a process that has ended was doing."""
        with self._lock:
            if process is not self._process:
                return
            job = self._current  # stays the current one, so that no other starts meanwhile
            if job is None:
                self._process = None
                return
            if self._is_warm and not (job.has_started or job.cancelled or job.was_sent_twice):
                self._process = None  # it had ended before it could see this job
                job.was_sent_twice = True
                self._hand_over(job)
                return
        event = self._settle(job, process)
        with self._lock:
            self._process = None
            self._finish(job, event)

    def _settle(self, job: Job, process: ChildProcess) -> Event:
        stopped = job.cancelled or self._closed
        state = RunState.CANCELLED if stopped else RunState.FAILED
        words = "Cancelled." if stopped else _how_it_ended(process.exit_code or 0, self._store)
        try:
            if job.recipe is None:
                pass  # there is no run to record it on
            elif job.run is None and not stopped:  # it ended before it could say which run it is
                from workbench.study.running.engine import run_id

                job.run = run_id(self._store, job.model, job.recipe)
                claim = self._store.claim(job.run, model=job.model, recipe=job.recipe)
                if claim is not None:
                    claim.fail(state, words)
            elif job.run is not None:
                record = self._store.settle(job.run, process.pid, state, words)
                if record is not None and record.state is RunState.DONE:
                    return job.event("finished")
        except Exception as error:  # the study was deleted, or its disk is full
            words = f"{words} It could not be recorded: {error}"
        return job.event("cancelled" if stopped else "failed", error=words)

    def _end_process(self, job: Job, process: ChildProcess) -> None:
        with self._lock:
            if self._current is job and self._process is process:
                process.kill()  # the reader notices, and settles the run

    # Events

    def _finish(self, job: Job, event: Event) -> None:
        self._emit(job, replace(event, waiting=len(self._waiting)))
        self._current = None
        self._next()
        if self._current is None:
            self._emit(job, Event("idle", job.number))

    def _emit(self, job: Job, event: Event) -> None:
        self._undelivered += 1
        self._events.put((job.on_event, event))

    def _deliver(self) -> None:
        while (item := self._events.get()) is not None:
            callback, event = item
            if callback is not None:
                try:
                    callback(event)
                except Exception as error:  # a listener's fault must not stop the queue
                    with contextlib.suppress(OSError), _open_log(self._store) as log:
                        log.write(f"on_event failed at {event.kind}: {error!r}\n")
            with self._quiet:
                self._undelivered -= 1
                self._quiet.notify_all()


def _open_log(store: Store) -> IO[str]:
    path = store.log_path
    mode = "a"
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            mode = "w"
    return path.open(mode, encoding="utf-8", errors="replace")


def _how_it_ended(code: int, store: Store) -> str:
    if code == -9:
        return "The worker process ended (signal 9; probably out of memory)."
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    last = ""
    with contextlib.suppress(OSError):
        lines = store.log_path.read_text(encoding="utf-8", errors="replace").split("\n")
        written = [line.strip() for line in lines if line.strip()]
        last = f" Its last words: {written[-1][:300]}" if written else ""
    return f"The worker process ended ({how}). See {store.log_path.name} in the study.{last}"
