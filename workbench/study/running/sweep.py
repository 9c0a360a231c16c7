"""Where runs execute: in this process, or in one worker process that can be cancelled and killed.

Both runners take a list of jobs (recipes, or predictions to make ready), compute them one after the
other and tell what happens as :class:`Event` records. The queue lives here, never in the worker, so
nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Protocol

from workbench.errors import CancelledError, StudyError
from workbench.progress import Monitor, Progress
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.storage.store import Store

if TYPE_CHECKING:
    from workbench.study.running.engine import Engine, Execution

GRACE_SECONDS = 2.0
"""A cancelled run has so long to stop by itself before its process is ended."""

LOG_BYTES = 1_000_000

MOST_UPCOMING = 64
"""So many waiting jobs are told to the worker with each job, to be solved together with it."""

FINAL = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """One thing that happened to one job. JSON-ready by :meth:`to_json`.

    Attributes
    ----------
    kind : str
        In this order for each job: ``"queued"``, ``"started"``, ``"progress"`` (any number of
        times), then one of ``"finished"``, ``"failed"`` and ``"cancelled"``. After the last job of
        the queue comes ``"idle"``, whose ``job`` is the last one's.
    job : int
        Number of the job, increasing within one runner.
    model : str
        Name of the base model.
    recipe : str
        JSON of the recipe; the base model's own run has an empty one. ``""`` where predictions
        are made ready.
    label : str
        The recipe in words.
    run : str or None
        The run's id; None before it has started, and where predictions are made ready.
    stage, done, total, detail
        Of ``"progress"``, see :class:`workbench.progress.Progress`.
    error : str or None
        Of ``"failed"`` and ``"cancelled"``: why, for people.
    cached : bool
        Of ``"finished"``: the run was there already.
    waiting : int
        Jobs that wait behind this one.
    """

    kind: str
    job: int = 0
    model: str = ""
    recipe: str = ""
    label: str = ""
    run: str | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    detail: str = ""
    error: str | None = None
    cached: bool = False
    waiting: int = 0

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Return the event that :meth:`to_json` wrote."""
        return cls(**json.loads(line))


OnEvent = Callable[[Event], None]

Wanted = tuple[str, "Recipe | None"]
"""A base model's name and a recipe, or None to make its predictions ready."""


@dataclass(eq=False)
class Job:
    """A recipe (or a table of predictions: None) that waits for its turn, or is being computed."""

    number: int
    model: str
    recipe: Recipe | None
    on_event: OnEvent | None = None
    run: str | None = None
    has_started: bool = False
    cancelled: bool = False
    was_sent_twice: bool = False

    def event(self, kind: str, **values: Any) -> Event:
        """Return an event about this job."""
        return Event(
            kind,
            self.number,
            self.model,
            "" if self.recipe is None else self.recipe.to_json(),
            "predictions" if self.recipe is None else self.recipe.label,
            **({"run": self.run} | values),
        )


class Runner(Protocol):
    """Where jobs are computed."""

    def submit(self, jobs: Sequence[Wanted], on_event: OnEvent | None = None) -> list[int]:
        """Add jobs, pairs of a base model's name and a recipe; return their numbers."""

    def cancel(self) -> None:
        """Stop the job that is being computed; the next one starts."""

    def cancel_all(self) -> None:
        """Stop the job that is being computed and forget those that wait."""

    def close(self) -> None:
        """Stop everything and let go of processes; the runner cannot be used again."""


def execute_job(engine: Engine, job: Job, emit: OnEvent, monitor: Monitor) -> Execution | None:
    """Compute one job with an engine and emit its events, the final one included.

    Returns what came of the run; None where predictions were made ready, which is no run.
    """
    from workbench.study.running.engine import run_id

    if job.recipe is None:
        _tabulate(engine, job, emit, monitor)
        return None
    job.run = run_id(engine.store, job.model, job.recipe)
    emit(job.event("started"))
    execution = engine.execute(job.model, job.recipe, monitor=monitor)
    record = execution.record
    if record.state is RunState.DONE:
        emit(job.event("finished", cached=execution.cached))
    elif record.state is RunState.FAILED:
        emit(job.event("failed", error=record.error))
    else:
        emit(job.event("cancelled", error=record.error or "Cancelled."))
    return execution


def _tabulate(engine: Engine, job: Job, emit: OnEvent, monitor: Monitor) -> None:
    from workbench.study.running.engine import in_words

    emit(job.event("started"))
    try:
        engine.tabulate(job.model, monitor=monitor)
    except CancelledError:
        emit(job.event("cancelled", error="Cancelled; the same again goes on where it stopped."))
    except Exception as error:  # there is no run to record it on
        emit(job.event("failed", error=in_words(error)))
    else:
        emit(job.event("finished"))


def with_baselines(
    store: Store, jobs: Sequence[Wanted], queued: Sequence[Job] = ()
) -> list[Wanted]:
    """Put the base model's own run before the first job of each base model that lacks one."""
    measured = {
        record.model
        for record in store.records()
        if not record.recipe.steps and record.state is RunState.DONE
    }
    measured.update(job.model for job in queued if job.recipe == Recipe())
    result: list[Wanted] = []
    for model, recipe in jobs:
        if model not in measured and recipe != Recipe():
            result.append((model, Recipe()))
        measured.add(model)
        result.append((model, recipe))
    return result


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
                    [(other.model, other.recipe) for other in waiting if other.recipe is not None]
                )
                execution = self._execute(job, _noting(len(waiting), emit))
                if execution is not None:
                    self.executions.append(execution)
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


def progress_event(job: Job, progress: Progress) -> Event:
    """Return a progress report as an event of a job."""
    return job.event("progress", **asdict(progress))


# Threads that spin while they wait for each other slow every process down where several share the
# cores, as in a classroom; where a process is alone, waiting passively costs nothing.
_WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


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
        self._process: subprocess.Popen[str] | None = None
        self._is_warm = False
        self._numbers = 0
        self._closed = False
        self._events: queue.SimpleQueue[tuple[OnEvent | None, Event] | None] = queue.SimpleQueue()
        self._quiet = threading.Condition(self._lock)
        self._undelivered = 0
        self._readers: list[threading.Thread] = []
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
        """
        with self._lock:
            if self._closed:
                raise StudyError("The study is closed; open it again to compute runs.")
            queued = [*self._waiting, *([self._current] if self._current else [])]
            numbers = []
            for model, recipe in with_baselines(self._store, jobs, queued):
                self._numbers += 1
                job = Job(self._numbers, model, recipe, on_event)
                self._waiting.append(job)
                numbers.append(job.number)
                self._emit(job, job.event("queued"))
            self._next()
        return numbers

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
            _send(process, {"do": "cancel", "job": job.number})
            timer = threading.Timer(GRACE_SECONDS, self._end_process, (job, process))
            timer.daemon = True
            timer.start()

    def cancel_all(self) -> None:
        """Stop the current job and forget those that wait."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                self._emit(job, job.event("cancelled", error="Cancelled before it started."))
            self.cancel()

    def close(self) -> None:
        """Stop everything and end the worker; returns when it is gone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.cancel_all()
            process = self._process
            if process is not None:
                with contextlib.suppress(OSError):
                    assert process.stdin is not None
                    process.stdin.close()  # which ends the worker
        if process is not None:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._readers:
            if thread is not threading.current_thread():
                thread.join(GRACE_SECONDS)
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
        if self._process is not None and self._process.poll() is None:
            if _send(self._process, message):
                return
            self._process = None  # it ended while it had nothing to do
        self._process = process = self._start()
        self._is_warm = False
        _send(process, message)  # if this fails, its end is noticed by its reader

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with _open_log(self._store) as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workbench.study.running.worker", str(self._store.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=_WORKER_ENVIRONMENT | os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        reader = threading.Thread(
            target=self._read, args=(process,), name="wb-worker-reader", daemon=True
        )
        self._readers = [thread for thread in self._readers if thread.is_alive()] + [reader]
        reader.start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in process.stdout:
                try:
                    event = Event.from_json(line)
                except (ValueError, TypeError):
                    continue
                self._receive(process, event)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._bury(process)

    def _receive(self, process: subprocess.Popen[str], event: Event) -> None:
        with self._lock:
            job = self._current
            if process is not self._process or job is None or event.job != job.number:
                return
            job.run = event.run
            job.has_started = self._is_warm = True
            if event.kind in FINAL:
                self._finish(job, event)
            else:
                self._emit(job, replace(event, waiting=len(self._waiting)))

    def _bury(self, process: subprocess.Popen[str]) -> None:
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

    def _settle(self, job: Job, process: subprocess.Popen[str]) -> Event:
        stopped = job.cancelled or self._closed
        state = RunState.CANCELLED if stopped else RunState.FAILED
        words = "Cancelled." if stopped else _how_it_ended(process.returncode, self._store)
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

    def _end_process(self, job: Job, process: subprocess.Popen[str]) -> None:
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


def _send(process: subprocess.Popen[str], message: dict[str, Any]) -> bool:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
    except (OSError, ValueError):
        return False
    return True


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
