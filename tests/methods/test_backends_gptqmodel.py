"""Steps that another program solves: how it is asked, followed and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.toy import toy_study
from workbench.errors import CancelledError, CompressionError, ConfigError
from workbench.methods.backends import gptqmodel_process as backend
from workbench.methods.backends.base import run_process
from workbench.progress import Monitor
from workbench.recipes import AWQ, GPTQ, RTN, MagnitudePruning, Mixed
from workbench.recipes.recipe import Recipe
from workbench.records import RunState

BY_OTHER = GPTQ(4, group_size=8, backend="gptqmodel")


def test_recipes_without_a_backend_keep_their_ids() -> None:
    assert "backend" not in GPTQ(4).to_dict()
    assert "exportable" not in AWQ(4).to_dict()
    assert Recipe.from_json(Recipe.of(BY_OTHER).to_json()) == Recipe.of(BY_OTHER)
    assert BY_OTHER.label == "GPTQ 4-bit g8 by gptqmodel"
    assert Recipe.of(BY_OTHER).id != Recipe.of(GPTQ(4, group_size=8)).id


def test_what_has_no_meaning() -> None:
    with pytest.raises(ConfigError, match="sequential=True is the workbench's own"):
        GPTQ(4, sequential=True, backend="gptqmodel")
    with pytest.raises(ConfigError, match="of the workbench itself"):
        Mixed([BY_OTHER], {"a": 0})
    with pytest.raises(ConfigError, match="'workbench', 'gptqmodel'"):
        AWQ(4, backend="autoawq")


def test_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backend.PYTHON, raising=False)
    study = toy_study(tmp_path / "study")
    with pytest.raises(CompressionError, match=r"--no-build-isolation .gptqmodel>=7.0,<7.7."):
        study.run(BY_OTHER)
    assert study.runs[-1].state is RunState.FAILED


def test_a_python_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.PYTHON, str(tmp_path / "python"))
    with pytest.raises(CompressionError, match=f"{backend.PYTHON} names, is no Python"):
        toy_study(tmp_path / "study").run(BY_OTHER)


ASKING = """
import sys
from workbench.methods.backends.base import run_process
from workbench.progress import Monitor
run_process(sys.argv[1:], "it", Monitor())
"""


def test_it_ends_when_the_process_that_asked_is_killed(tmp_path: Path) -> None:
    """Hours of computing for nobody, and a copy of the model on the disk, would be left."""
    modules, folder, started = tmp_path / "modules", tmp_path / "asked", tmp_path / "started"
    modules.mkdir()
    folder.mkdir()
    (modules / "gptqmodel.py").write_text(
        f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    request = folder / "request.json"
    request.write_text(json.dumps({"out": str(folder / "out"), "temporary": str(folder)}))
    command = [sys.executable, "-c", ASKING, sys.executable, str(backend.WORKER), str(request)]
    asking = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(modules)})
    until = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    worker = psutil.Process(int(started.read_text()))
    asking.kill()
    asking.wait()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert not folder.exists()


STANDIN = '''
"""Stands in for GPTQModel's program: copies what an export of ours wrote."""
import json, shutil, sys
request = json.loads(open(sys.argv[1]).read())
open({log!r}, "w").write(json.dumps(request))
shutil.copytree({made!r}, request["out"])
'''


def test_its_checkpoint_becomes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = toy_study(tmp_path / "study")
    made = study.run(RTN(4, group_size=8)).export(tmp_path / "made", "gptq").path
    worker, log = tmp_path / "worker.py", tmp_path / "request.json"
    worker.write_text(STANDIN.format(made=str(made), log=str(log)))
    monkeypatch.setattr(backend, "WORKER", worker)
    monkeypatch.setattr(backend, "_check_installed", lambda python: None)
    stages: list[str] = []
    run = study.run(BY_OTHER, on_progress=lambda p: stages.append(p.stage))
    assert "gptqmodel" in stages
    assert run.size_bytes == study.run(RTN(4, group_size=8)).size_bytes
    assert run.record.facts["method_versions"] == {"gptqmodel": 1}
    assert run.record.facts["calibration"]["sequence_length"] == 32
    request: dict[str, Any] = json.loads(log.read_text())
    assert request["device"] == "cpu"
    assert request["options"]["bits"] == 4
    assert request["options"]["act_group_aware"] is True
    assert sum(map(len, request["windows"])) >= 512
    # A sweep solves steps like this one together; the other program's are not among them.
    own, other = study.sweep([GPTQ(3, group_size=8), GPTQ(3, group_size=8, backend="gptqmodel")])
    assert {w.scheme.bits for w in own.model().weights.values()} == {3}  # type: ignore[attr-defined]
    assert {w.scheme.bits for w in other.model().weights.values()} == {4}  # type: ignore[attr-defined]
    with pytest.raises(CompressionError, match="earlier steps have compressed"):
        study.run([MagnitudePruning(0.5), BY_OTHER])


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (GPTQ(5, backend="gptqmodel"), "2, 3, 4, 8 bits"),
        (AWQ(3, backend="gptqmodel"), "4 bits"),
    ],
    ids=str,
)
def test_widths_that_it_does_not_take(step: Any, words: str) -> None:
    with pytest.raises(CompressionError, match=words):
        backend._options(step)


def test_a_failure_says_the_last_words() -> None:
    code = "import sys; print('no kernel for this'); sys.exit(3)"
    with pytest.raises(CompressionError, match=r"exit code 3.*\n.*no kernel for this"):
        run_process([sys.executable, "-c", code], "it", Monitor())


def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    started = time.monotonic()
    monitor = Monitor(is_cancelled=lambda: time.monotonic() - started > 0.3)
    with pytest.raises(CancelledError):
        run_process([sys.executable, "-c", code], "it", monitor)
    assert time.monotonic() - started < 1.4
    time.sleep(max(0.0, started + 2 - time.monotonic()))
    assert not mark.exists()
