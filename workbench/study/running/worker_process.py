"""The worker process of a study: ``python -m workbench.study.running.worker_process FOLDER``.

A WorkerRunner starts it, sends it jobs and cancels them, and hears its events. Whatever libraries
print goes to standard error, the study's ``worker.log``.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import IO

from workbench.child_process import Inbox, Message, send, take_over_streams
from workbench.progress import Monitor, Throttle
from workbench.recipes.recipe import Recipe
from workbench.study.running.jobs import execute_job
from workbench.study.running.runner import Event, Job, progress_event


class Worker:
    """Computes the jobs that it is told to.

    Parameters
    ----------
    incoming, outgoing : text streams
        Of messages.
    """

    def __init__(self, incoming: IO[str], outgoing: IO[str]) -> None:
        self._inbox = Inbox(incoming, self._cancel)
        self._outgoing = outgoing
        self._cancelled: set[int] = set()

    def work(self, folder: str) -> None:
        """Compute jobs for ever."""
        from workbench.storage.store import Store
        from workbench.study.running.engine import Engine, in_words

        self._inbox.start()
        engine = Engine(Store.open(folder))
        for message in self._inbox:
            text = message["recipe"]
            recipe = None if text is None else Recipe.from_json(text)
            job = Job(message["job"], message["model"], recipe)
            engine.expect([(name, Recipe.from_json(text)) for name, text in message["upcoming"]])
            monitor = self._monitor(job)
            try:
                execute_job(engine, job, self._emit, monitor)
            except Exception as error:  # such as a study that was deleted meanwhile
                self._emit(job.event("failed", error=in_words(error)))

    def _cancel(self, message: Message) -> bool:
        """Note at once, while a job is being computed, that it is cancelled."""
        if message["do"] != "cancel":
            return False
        self._cancelled.add(message["job"])
        return True

    def _monitor(self, job: Job) -> Monitor:
        throttle = Throttle(lambda progress: self._emit(progress_event(job, progress)))
        return Monitor(throttle, lambda: job.number in self._cancelled)

    def _emit(self, event: Event) -> None:
        send(self._outgoing, asdict(event))


if __name__ == "__main__":
    Worker(*take_over_streams()).work(sys.argv[1])
