"""The worker process of a study, started by a WorkerRunner.

Its command is ``python -m workbench.study.running.worker FOLDER``.

It reads one command per line from its standard input and writes one event per line to what was
its standard output; whatever libraries print goes to standard error, the study's ``worker.log``.
It ends when its standard input closes, because then nobody is there any more to tell.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import IO, Any

from workbench.progress import Monitor
from workbench.recipes.recipe import Recipe
from workbench.study.running.sweep import Event, Job, Throttle, execute_job, progress_event


class Worker:
    """Computes the jobs that it is told to.

    Parameters
    ----------
    commands, events : text streams
    """

    def __init__(self, commands: IO[str], events: IO[str]) -> None:
        self._commands = commands
        self._events = events
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()

    def listen(self) -> None:
        """Read commands until the stream closes, then end the process at once.

        The journal and the files stand a process that is ended at any moment.
        """
        try:
            for line in self._commands:
                command = json.loads(line)
                if command["do"] == "cancel":
                    self._cancelled.add(command["job"])
                else:
                    self._jobs.put(command)
        finally:
            os._exit(0)

    def work(self, folder: str) -> None:
        """Compute jobs for ever."""
        from workbench.storage.store import Store
        from workbench.study.running.engine import Engine, in_words

        engine = Engine(Store.open(folder))
        while True:
            command = self._jobs.get()
            text = command["recipe"]
            recipe = None if text is None else Recipe.from_json(text)
            job = Job(command["job"], command["model"], recipe)
            engine.expect([(name, Recipe.from_json(text)) for name, text in command["upcoming"]])
            monitor = self._monitor(job)
            try:
                execute_job(engine, job, self._emit, monitor)
            except Exception as error:  # such as a study that was deleted meanwhile
                self._emit(job.event("failed", error=in_words(error)))

    def _monitor(self, job: Job) -> Monitor:
        throttle = Throttle(lambda progress: self._emit(progress_event(job, progress)))
        return Monitor(throttle, lambda: job.number in self._cancelled)

    def _emit(self, event: Event) -> None:
        self._events.write(event.to_json() + "\n")
        self._events.flush()


def main() -> None:
    """Take over standard input and output, and work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Nothing else may read the commands or write among the events, not even native libraries;
    # and on Windows a library that looks at standard input while it is read would wait for ever.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    worker = Worker(commands, events)
    threading.Thread(target=worker.listen, name="commands", daemon=True).start()
    worker.work(sys.argv[1])


if __name__ == "__main__":
    main()
