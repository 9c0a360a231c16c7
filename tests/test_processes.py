"""Which process is which, whatever the clock says, and what a killed one left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench import atomic_files
from workbench.processes import identity, is_same


def test_a_process_is_itself_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = identity(process.pid)
    assert known
    assert known != identity()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert identity(process.pid) == known
    assert is_same(process.pid, known)
    assert not is_same(os.getpid(), known)
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert identity(process.pid) is None  # ended, though nobody has asked for its status
    process.communicate()
    assert not is_same(process.pid, known)


def test_what_is_written_aside_says_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [atomic_files.aside_of(tmp_path / "x.json") for _ in range(100)]
    assert len(set(mine)) == 100
    for path in mine[:2]:
        path.touch()
    assert not atomic_files.is_leftover(mine[0])
    monkeypatch.setattr(atomic_files, "identity", lambda pid=None: "another, of the same number")
    assert atomic_files.is_leftover(mine[0])
    (tmp_path / "of-the-user.tmp").touch()
    os.utime(tmp_path / "of-the-user.tmp", (0, 0))
    atomic_files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["of-the-user.tmp"]


def test_a_file_is_replaced_as_a_whole_and_killed_writers_are_cleared(tmp_path: Path) -> None:
    left = atomic_files.aside_of(tmp_path / "r.html")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-"))
    left.touch()
    assert atomic_files.write_file(tmp_path / "r.html", "one").read_text() == "one"
    with pytest.raises(UnicodeEncodeError):
        atomic_files.write_file(tmp_path / "r.html", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "one"
