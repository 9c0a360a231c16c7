"""Compute one job with an engine, whichever process it is in, and tell what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import CancelledError
from workbench.progress import Monitor
from workbench.records import RunState
from workbench.study.running.runner import Job, OnEvent

if TYPE_CHECKING:
    from workbench.study.running.engine import Engine, Execution


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
