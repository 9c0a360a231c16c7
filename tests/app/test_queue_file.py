"""Tests of what outlives a kernel: the queue, and which study a notebook showed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.app.fake import FakeStudy, event
from workbench.app import last_study
from workbench.app.journal_watch import JournalWatch
from workbench.app.queue_file import NAME, QueueFile
from workbench.app.workbench import _OPEN, Workbench
from workbench.recipes import GPTQ, RTN
from workbench.recipes.recipe import Recipe
from workbench.storage.store import JOURNAL_NAME

LEAVE = """
import pathlib, sys
from workbench.app.queue_file import QueueFile
QueueFile(pathlib.Path(sys.argv[1])).write([("tiny", sys.argv[2])])
"""


def leave(folder, recipe):
    """Write a queue in a process that then ends."""
    subprocess.run([sys.executable, "-c", LEAVE, str(folder), recipe.to_json()], check=True)


def test_a_queue_is_left_once_its_kernel_is_gone(tmp_path):
    own = QueueFile(tmp_path)
    own.write([("tiny", "{}")])
    said = json.loads((tmp_path / NAME).read_text())
    said["pid"], said["started"] = 1, __import__("psutil").Process(1).create_time()
    (tmp_path / NAME).write_text(json.dumps(said))
    assert own.left() == []  # that process is there
    leave(tmp_path, Recipe.of(RTN(4)))
    assert own.left() == [("tiny", Recipe.of(RTN(4)).to_json())]
    own.write([])
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_text("no json")
    assert own.left() == []


def test_what_waited_when_a_kernel_ended_goes_on_when_the_study_is_opened_again():
    study = FakeStudy()
    leave(study.path, Recipe.of(GPTQ(3)))
    bench = Workbench(study)
    assert study.submitted == []  # it was given: whoever made it decides
    bench.panels.queue.resume()
    assert [recipes for recipes, _ in study.submitted] == [[Recipe.of(GPTQ(3))]]
    assert "1 run goes on" in bench.panels.queue.notice.text


def test_the_queue_is_in_the_file_while_it_is_not_done():
    study = FakeStudy()
    emit = Workbench(study)._session.events.emit
    for number in (1, 2):
        emit(event("queued", RTN(number + 1), job=number))
    emit(event("started", RTN(2), job=1))
    jobs = json.loads((study.path / NAME).read_text())["jobs"]
    assert jobs == [["tiny", Recipe.of(RTN(bits)).to_json()] for bits in (2, 3)]
    emit(event("finished", RTN(2), job=1))
    assert len(json.loads((study.path / NAME).read_text())["jobs"]) == 1
    emit(event("cancelled", RTN(3), job=2, error="Cancelled."))
    assert not (study.path / NAME).exists()


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/here/a.ipynb")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(last_study, "_has_shown", False)


def test_a_notebook_comes_back_to_its_study_after_a_restart(notebook, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    last_study.remember(folder)
    monkeypatch.setattr(last_study, "_has_shown", False)  # a new kernel
    assert last_study.last() is None  # the folder was deleted, or is no study
    (folder / JOURNAL_NAME).touch()
    assert last_study.last() == folder
    monkeypatch.setenv("JPY_SESSION_NAME", "/here/b.ipynb")
    assert last_study.last() is None
    monkeypatch.setenv("JPY_SESSION_NAME", "/here/a.ipynb")
    last_study.remember(folder)
    assert last_study.last() is None  # a further cell of the same kernel begins anew


def test_runs_that_others_write_are_noticed(monkeypatch):
    import time

    from tests.app.fake import record

    monkeypatch.setattr("workbench.app.journal_watch.SECONDS", 0.02)
    study, told = FakeStudy(), []
    (study.path / JOURNAL_NAME).write_text("")
    watch = JournalWatch(study, lambda: told.append(1))
    (study.path / JOURNAL_NAME).write_text("a heartbeat")
    time.sleep(0.3)
    assert told == []
    study.records.append(record("b", 1, 0.8, RTN(3)))
    (study.path / JOURNAL_NAME).write_text("and another run")
    for _ in range(200):
        if told:
            break
        time.sleep(0.02)
    watch.stop()
    assert told == [1]
    assert _OPEN == {}
