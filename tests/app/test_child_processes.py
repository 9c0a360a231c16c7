"""No process stays behind when a kernel is ended."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from tests.toy import toy_study

KERNEL = """
import sys, time
import workbench as wb
from workbench.app.workbench import Workbench
from workbench.recipes.recipe import Recipe
bench = Workbench(path=sys.argv[1])
bench._session.submit([Recipe.of(wb.RTN(4, group_size=32))])
run = bench.study.records[0].id
bench._session.inspector.ask("layers", print, print, runs=[run])
print(bench.study._workspace.worker.pid, bench._session.inspector._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("signal", [pytest.param("terminate", marks=pytest.mark.slow), "kill"])
def test_a_kernel_that_is_ended_leaves_no_process_behind(tmp_path, signal):
    with toy_study(tmp_path / "study") as study:
        study.run([])
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(study.path)], stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    left = [psutil.Process(int(pid)) for pid in kernel.stdout.readline().split()]
    assert len(left) == 2
    time.sleep(2)  # they are in the middle of something, such as an import
    assert all(process.is_running() for process in left)
    getattr(kernel, signal)()
    kernel.wait(20)
    _, alive = psutil.wait_procs(left, timeout=20)
    # where nobody waits for orphans they stay as names of processes that have ended
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
