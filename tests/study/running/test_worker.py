"""The worker process: the same results as here, failures, cancelling, and its own death."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.toy import toy_study
from workbench.errors import StudyError
from workbench.recipes import GPTQ, RTN
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study import Study
from workbench.study.running.runner import Event
from workbench.study.running.worker import WorkerRunner

RECIPES = [Recipe.of(RTN(bits, group_size=8)) for bits in (2, 3, 4, 5, 6, 8)]
LONG = 120
"""Seconds after which a worker that says nothing is broken; never waited for otherwise."""


def jobs(*recipes: Recipe) -> list[tuple[str, Recipe]]:
    return [("tiny", recipe) for recipe in recipes]


class Collector:
    """Collects events and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: str, stage: str = "", label: str = "") -> Event:
        def found() -> Event | None:
            for event in self.events:
                if event.kind == kind and stage in ("", event.stage) and label in ("", event.label):
                    return event
            return None

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, LONG), self.events
            event = found()
            assert event is not None
            return event

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "progress"]


@pytest.fixture(scope="module")
def behaviour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that says what the toy metric does."""
    path = tmp_path_factory.mktemp("toy") / "behaviour"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_BEHAVIOUR", str(path))
        yield path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, behaviour: Path) -> Iterator[Study]:
    """A study whose worker, once warm, serves all tests that leave it alive."""
    with toy_study(tmp_path_factory.mktemp("shared") / "study") as study:
        study.run([])
        yield study


@pytest.fixture
def study(shared: Study, behaviour: Path) -> Study:
    behaviour.write_text("")
    for run in shared.runs[1:]:
        run.delete()
    return shared


@pytest.fixture
def worker(study: Study) -> WorkerRunner:
    return study._workspace.worker


@pytest.fixture
def own(tmp_path: Path, behaviour: Path) -> Iterator[Study]:
    """A study of the test's own, for what ends it."""
    behaviour.write_text("")
    with toy_study(tmp_path / "study") as study:
        study.run([])
        yield study


def states(study: Study) -> list[RunState]:
    return [run.state for run in study.runs]


def test_a_worker_computes_the_same_as_this_process(
    study: Study, worker: WorkerRunner, behaviour: Path, tmp_path: Path
) -> None:
    behaviour.write_text("print")  # what libraries print must not get between the events
    collector = Collector()
    recipes = [RECIPES[0], *(Recipe.of(GPTQ(bits, group_size=8)) for bits in (3, 4))]
    numbers = worker.submit(jobs(*recipes), collector)
    assert worker.wait(LONG)
    assert collector.kinds() == ["queued"] * 3 + ["started", "finished"] * 3 + ["idle"]
    assert numbers == [event.job for event in collector.events[:3]]
    assert "calibrate" in {event.stage for event in collector.events}
    pid = worker.pid
    log = study._workspace.store.log_path.read_text()
    assert "not an event" in log
    assert "nor is this" in log
    behaviour.write_text("")

    # it stays warm, what is done is not done again, and more can be queued at any time
    again = Collector()
    worker.submit(jobs(RECIPES[0]), again)
    worker.submit(jobs(RECIPES[1]), again)
    assert worker.wait(LONG)
    assert worker.pid == pid
    assert [e.cached for e in again.events if e.kind == "finished"] == [True, False]

    here = toy_study(tmp_path / "here")
    for recipe in recipes:
        mine = here.run(recipe).record
        theirs = study._workspace.store.record(mine.id)
        assert theirs is not None
        for found, expected in zip(theirs.measurements, mine.measurements, strict=True):
            assert found.metric == expected.metric
            # a dense reference that was kept is rounded to 16 bits, which shows in a KL of 1e-5
            tolerance = 0.1 if found.metric == "kl" else 1e-12
            assert found.value == pytest.approx(expected.value, rel=tolerance)
        assert theirs.facts["weights_digest"] == mine.facts["weights_digest"]
        assert theirs.facts.get("solved_together") == (None if recipe is RECIPES[0] else 2)


def test_predictions_yield_to_runs_at_once_and_go_on_after_them(
    study: Study, behaviour: Path
) -> None:
    collector = Collector()
    study.submit_tabulate(on_event=collector)
    collector.wait_for("progress", "predict")
    study.submit(RECIPES[:2], on_event=collector)
    assert study.wait(LONG)
    ended = [(e.label, e.kind) for e in collector.events if e.kind in ("finished", "cancelled")]
    runs = [("RTN 2-bit g8", "finished"), ("RTN 3-bit g8", "finished")]
    assert ended == [("predictions", "cancelled"), *runs, ("predictions", "finished")]
    assert study.plot().view.predicted
    assert study.predict(RTN(4, group_size=16)).kl is not None
    assert not study._workspace.engine._base.calibrators  # this process made no table
    assert states(study) == [RunState.DONE] * 3


def test_jobs_that_wait_are_moved_and_removed_one_by_one(
    study: Study, worker: WorkerRunner
) -> None:
    collector = Collector()
    many = [Recipe.of(GPTQ(3, group_size=g)) for g in (8, 9, 10, 11)]
    first, second, third, last = study.submit(many, on_event=collector)
    collector.wait_for("started")
    assert study.queue == (second, third, last)
    study.move(last, -9)  # further than there is room
    study.move(second, 1)
    assert study.queue == (last, third, second)
    study.cancel(job=third)
    study.cancel(job=999)  # one that is not there
    assert study.queue == (last, second)
    assert worker.wait(LONG)
    ended = [(e.job, e.kind) for e in collector.events if e.kind in ("finished", "cancelled")]
    assert ended == [
        (third, "cancelled"), (first, "finished"), (last, "finished"), (second, "finished")
    ]  # fmt: skip


def test_a_worker_that_dies_over_predictions_is_a_failure(own: Study) -> None:
    collector = Collector()
    own.submit_tabulate(on_event=collector)
    collector.wait_for("progress")
    pid = own._workspace.worker.pid
    assert pid is not None
    psutil.Process(pid).kill()
    assert own.wait(LONG)
    assert "ended" in (collector.wait_for("failed").error or "")
    assert collector.kinds().count("started") == 1
    assert states(own) == [RunState.DONE]


def test_a_failure_in_the_worker_does_not_stop_the_sweep(
    study: Study, worker: WorkerRunner, behaviour: Path
) -> None:
    behaviour.write_text("fail")
    collector = Collector()

    def on_event(event: Event) -> None:
        if event.kind == "failed":
            behaviour.write_text("")
        collector(event)

    worker.submit(jobs(RECIPES[0]), on_event)
    assert worker.wait(LONG)
    worker.submit(jobs(RECIPES[1]), on_event)
    assert worker.wait(LONG)
    assert "MemoryError: cannot allocate 3 TB" in (collector.wait_for("failed").error or "")
    assert states(study) == [RunState.DONE, RunState.FAILED, RunState.DONE]


def test_cancelling_everything(study: Study, worker: WorkerRunner) -> None:
    worker.submit(jobs(RECIPES[-1]))  # warm up
    assert worker.wait(LONG)
    pid = worker.pid
    collector = Collector()
    many = [Recipe.of(GPTQ(bits, group_size=g)) for bits in (2, 3, 4) for g in (8, 9, 10, 11)]
    worker.submit(jobs(*many), collector)
    collector.wait_for("progress", "gptq")
    start = time.monotonic()
    study.cancel()
    assert worker.wait(LONG)
    assert time.monotonic() - start < 3
    ended = [e.kind for e in collector.events if e.kind in ("finished", "failed", "cancelled")]
    assert len(ended) == len(many)
    assert "failed" not in ended
    assert ended.count("cancelled") > len(many) / 2
    assert collector.kinds()[-1] == "idle"
    assert worker.pid == pid  # it stopped by itself, so it stays warm
    assert RunState.RUNNING not in states(study)


def test_a_listener_that_fails_does_not_stop_the_queue(study: Study, worker: WorkerRunner) -> None:
    def on_event(event: Event) -> None:
        raise ZeroDivisionError

    worker.submit(jobs(RECIPES[0]), on_event)
    assert worker.wait(LONG)
    assert states(study) == [RunState.DONE, RunState.DONE]
    assert "ZeroDivisionError" in study._workspace.store.log_path.read_text()


def test_a_run_that_does_not_listen_is_cancelled_within_three_seconds(
    study: Study, worker: WorkerRunner, behaviour: Path
) -> None:
    behaviour.write_text("sleep")
    collector = Collector()
    worker.submit(jobs(*RECIPES[:2]), collector)
    collector.wait_for("progress", "evaluate")
    time.sleep(0.2)  # it sleeps in the metric now
    behaviour.write_text("")
    start = time.monotonic()
    worker.cancel()
    worker.cancel()  # impatience does no harm
    collector.wait_for("cancelled")
    assert time.monotonic() - start < 3
    assert worker.wait(LONG)
    assert states(study) == [RunState.DONE, RunState.CANCELLED, RunState.DONE]


def test_a_worker_that_died_while_idle_is_replaced(study: Study, worker: WorkerRunner) -> None:
    worker.submit(jobs(RECIPES[0]))
    assert worker.wait(LONG)
    assert worker.pid is not None
    psutil.Process(worker.pid).kill()
    worker.submit(jobs(RECIPES[1]))  # at once: it may still be dying
    assert worker.wait(LONG)
    assert states(study) == [RunState.DONE] * 3


@pytest.mark.skipif(os.name == "nt", reason="signals are reported on POSIX only")
def test_a_worker_that_is_killed_is_a_recorded_failure(
    study: Study, worker: WorkerRunner, behaviour: Path
) -> None:
    behaviour.write_text("kill")
    collector = Collector()

    def on_event(event: Event) -> None:
        if event.kind == "failed":
            behaviour.write_text("")
        collector(event)

    worker.submit(jobs(RECIPES[0]), on_event)
    assert worker.wait(LONG)
    failed = collector.wait_for("failed")
    assert failed.error == "The worker process ended (signal 9; probably out of memory)."
    assert failed.run == study.runs[1].id
    assert study.runs[1].error == failed.error
    worker.submit(jobs(*RECIPES[:2]), on_event)
    assert worker.wait(LONG)
    assert collector.kinds()[-1] == "idle"
    assert states(study) == [RunState.DONE] * 3


def test_a_worker_that_dies_before_it_starts_is_a_recorded_failure(
    own: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import os, sys\nif '-m' in sys.orig_argv:\n    print('the last words', file=sys.stderr)\n"
    )
    code += "    sys.stderr.flush()\n    os._exit(7)\n"
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    collector = Collector()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        own.submit(RECIPES[:1], on_event=collector)
    assert own.wait(LONG)
    error = collector.wait_for("failed").error or ""
    assert "exit code 7" in error
    assert "the last words" in error
    assert states(own) == [RunState.DONE, RunState.FAILED]
    assert own.runs[1].error == error


def test_closing_ends_the_worker_and_settles_its_run(own: Study, behaviour: Path) -> None:
    behaviour.write_text("sleep")
    collector = Collector()
    own.submit(RECIPES[:2], on_event=collector)
    collector.wait_for("progress", "evaluate")
    pid = own._workspace.worker.pid
    assert pid is not None
    process = psutil.Process(pid)
    start = time.monotonic()
    own.close()
    assert time.monotonic() - start < 5
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert states(own) == [RunState.DONE, RunState.CANCELLED]
    with pytest.raises(StudyError, match="closed"):
        own.submit(RECIPES[:1])


PARENT = """
import sys, time
from workbench.study import Study
from workbench.recipes import RTN
study = Study.open(sys.argv[1])
study.submit([RTN(4, group_size=8)], on_event=lambda e: print(e.kind, e.stage, flush=True))
while study._workspace.worker.pid is None: time.sleep(0.01)
print("pid", study._workspace.worker.pid, flush=True)
time.sleep(100)
"""


def test_the_worker_ends_with_its_parent(own: Study, behaviour: Path) -> None:
    behaviour.write_text("sleep")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(own.path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = 0
    for line in parent.stdout:
        words = line.split()
        if words[0] == "pid":
            pid = int(words[1])
        if words == ["progress", "evaluate"]:
            break
    worker = psutil.Process(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.wait(5)
    assert states(own) == [RunState.DONE, RunState.INTERRUPTED]
    behaviour.write_text("")
    own.run(RTN(4, group_size=8))
    assert states(own) == [RunState.DONE, RunState.DONE]
