"""``kill -9`` at random moments of a sweep loses no finished run and leaves the study usable.

A nursery process has everything imported and forks a child per trial, so that a kill falls into
the sweep itself and twenty of them take seconds; each child is a process that sweeps the study.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.toy import toy_study
from workbench.recipes import GPTQ, RTN, Step
from workbench.records import RunRecord, RunState
from workbench.storage.store import JOURNAL_NAME, Store
from workbench.study import Study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the nursery forks")

KILLS = 20
PER_TRIAL = 3

NURSERY = """
import os, sys, time
import torch
import workbench.compression.compress, workbench.runtime.measure.evaluate
import workbench.storage.artifacts, workbench.tasks
import tests.tiny
from tests.study.running.test_kill import recipes
from workbench.study import Study
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        study = Study.open(sys.argv[1])
        print(os.getpid(), flush=True)
        study.sweep(recipes(int(line)))
        time.sleep(60)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


def recipes(trial: int) -> list[Step]:
    """Return the recipes of a trial: those of all before it, and some new ones."""
    grid: list[Step] = [RTN(4, group_size=g) for g in range(8, 8 + 2 * KILLS + 4)]
    grid = [step for g, rtn in enumerate(grid) for step in (rtn, GPTQ(3, group_size=8 + g))]
    return grid[: PER_TRIAL * (trial + 1)]


def finished(path: Path) -> dict[str, tuple[RunRecord, bytes, bytes | None]]:
    """Return every finished run with the bytes of its outcomes and weights."""
    store = Store.open(path)
    found = {}
    for record in store.records():
        if record.state is RunState.DONE:
            digest = record.facts["artifact"]
            weights = None if digest is None else (path / "artifacts" / f"{digest}.safetensors")
            outcomes = (path / "outcomes" / f"{record.id}.npz").read_bytes()
            found[record.id] = (record, outcomes, weights and weights.read_bytes())
    return found


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = toy_study(tmp_path / "study")
    study.run([])
    return study


@pytest.fixture
def nursery(study: Study) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(study.path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def wait_for(path: Path, state: RunState, more_than: int = 0) -> None:
    """Return as soon as the journal has more runs in a state than so many."""
    store = Store.open(path)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if sum(record.state is state for record in store.records()) > more_than:
            return
    raise AssertionError(f"no run was {state.value}")


def test_kill_at_twenty_random_moments(study: Study, nursery: subprocess.Popen[str]) -> None:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    chance = random.Random(0)
    kept = finished(study.path)
    interrupted = 0
    for trial in range(KILLS):
        nursery.stdin.write(f"{trial}\n")
        nursery.stdin.flush()
        pid = int(nursery.stdout.readline())
        # At any moment, start and end of the sweep included; early in a run; just after one. The
        # last two are waited for, so that they happen however fast or busy the machine is.
        if trial % 4 == 0:
            time.sleep(chance.uniform(0, 1.2))
        elif trial % 4 == 2:
            wait_for(study.path, RunState.DONE, more_than=len(kept))
            time.sleep(chance.uniform(0, 0.1))
        else:
            wait_for(study.path, RunState.RUNNING)
            time.sleep(chance.uniform(0, 0.01))
        psutil.Process(pid).kill()
        assert nursery.stdout.readline() == "gone\n"

        store = Store.open(study.path)
        states = [record.state for record in store.records()]
        assert set(states) <= {RunState.DONE, RunState.INTERRUPTED}
        interrupted += states.count(RunState.INTERRUPTED)
        now = finished(study.path)
        assert {run: now[run] for run in kept} == kept  # byte for byte what they were
        kept = now
        with sqlite3.connect(study.path / JOURNAL_NAME) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(Study.open(study.path).table()) == len(states)

    assert interrupted, "no kill fell into a run; the moments are badly chosen"
    assert len(kept) > 1, "no run was ever finished; the moments are badly chosen"

    again = Study.open(study.path)
    assert not list(study.path.rglob("*.tmp"))  # what the killed ones left was removed
    computed: set[str] = set()
    runs = again.sweep(
        recipes(KILLS - 1),
        on_event=lambda e: (
            computed.add(e.run or "") if e.kind == "finished" and not e.cached else None
        ),
    )
    assert {run.state for run in runs} == {RunState.DONE}
    assert len(runs) == PER_TRIAL * KILLS
    assert computed.isdisjoint(kept)
    assert computed | set(kept) == {run.id for run in again.runs}
    final = finished(study.path)
    assert {run: final[run] for run in kept} == kept
    for run in runs[::7]:
        assert run.model().size_bytes == run.size_bytes
