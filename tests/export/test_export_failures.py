"""Whatever goes wrong, the old state or a complete export is there, and the message says what."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from tests.toy import CALIBRATION, toy_study, toy_task
from workbench.errors import CancelledError, ExportError
from workbench.export import publish
from workbench.export.hf import HuggingFace
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.study import Run, Study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy_study(tmp_path_factory.mktemp("failures") / "study").run(RTN(4, group_size=8))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def breaking(error: BaseException) -> Callable[..., None]:
    """Return a writer that gets half-way."""

    def write(self: Any, model: Any, folder: Path, monitor: Any = None) -> None:
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise error

    return write


def test_an_existing_folder_stays(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "out", "gptq")
    before = snapshot(tmp_path)
    with pytest.raises(ExportError, match="overwrite=True"):
        run.export(tmp_path / "out", "awq")
    assert snapshot(tmp_path) == before
    run.export(tmp_path / "out", "awq", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert '"awq"' in (tmp_path / "out/config.json").read_text()
    assert not (tmp_path / "out/quantize_config.json").exists()


def test_an_empty_folder_is_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run.export(tmp_path / "out")
    assert load_model(tmp_path / "out").weights == {}


def test_a_folder_of_something_else_is_never_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"no export of the workbench \(no export.json"):
        run.export(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_of_that_name_makes_no_export(run: Run, tmp_path: Path) -> None:
    for text in ('{"rows": 3}', "[]", "no JSON"):
        (tmp_path / "export.json").write_text(text)
        with pytest.raises(ExportError, match="holds no export of the workbench"):
            run.export(tmp_path, overwrite=True)
        assert (tmp_path / "export.json").read_text() == text


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_is_not_replaced(overwrite: bool, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out"

    def appear(progress: Any) -> None:
        target.mkdir(exist_ok=True)
        (target / "thesis.tex").write_text("years of work")

    words = "holds no export" if overwrite else "exists already"
    with pytest.raises(ExportError, match=words):
        run.export(target, overwrite=overwrite, on_progress=appear)
    assert snapshot(tmp_path) == {"out/thesis.tex": b"years of work"}


def test_a_link_stays_a_link(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    assert run.export(link, "gptq").path == tmp_path / "real"
    run.export(link, "awq", overwrite=True)
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
    assert '"awq"' in (tmp_path / "real/config.json").read_text()


def test_the_studys_own_base_model_is_not_replaced(run: Run, tmp_path: Path) -> None:
    folder = run.export(tmp_path / "base", "gptq").path
    own = Study(folder, toy_task(), tmp_path / "study", calibration=CALIBRATION)
    before = snapshot(folder)
    with pytest.raises(ExportError, match="holds the base model"):
        own.run(RTN(3, group_size=8)).export(folder, overwrite=True)
    assert snapshot(folder) == before


def test_a_name_that_the_system_does_not_take(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Nothing can be exported to"):
        run.export(tmp_path / ("x" * 300))


def test_a_file_in_place_of_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportError, match="is a file; an export is a folder"):
        run.export(tmp_path / "out", overwrite=True)
    with pytest.raises(ExportError, match="Nothing can be exported to"):
        run.export(tmp_path / "out" / "inner")
    assert (tmp_path / "out").read_text() == "a file"


def test_too_little_room_is_said_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match=r"0\.0 MB free and the export needs"):
        run.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "is full"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written to"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written to"),
        (OSError(errno.EIO, "Input/output error"), "Nothing can be exported"),
    ],
    ids=str,
)
def test_errors_halfway(
    error: Exception, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.export(tmp_path / "out", "gptq")
    before = snapshot(tmp_path)
    monkeypatch.setattr(HuggingFace, "write", breaking(error))
    with pytest.raises(ExportError, match=words):
        run.export(tmp_path / "out", overwrite=True)
    with pytest.raises(ExportError, match=words):
        run.export(tmp_path / "new")
    assert snapshot(tmp_path) == before


def test_cancelled_halfway(run: Run, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.stage == "prove":
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        run.export(tmp_path / "out", "gptq", on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_other_logits_are_no_export(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer whose codes are in another order is found, and nothing is published."""
    from workbench.tensors.packing import gptq

    original = gptq.pack

    def pack(weight: Any, version: int) -> Any:
        tensors = original(weight, version)
        return tensors | {"qweight": tensors["qweight"].flip(0)}

    monkeypatch.setattr(gptq, "pack", pack)
    rows = len(run.record.measurements)
    with pytest.raises(ExportError, match="gives other logits"):
        run.export(tmp_path / "out", "gptq")
    assert list(tmp_path.iterdir()) == []
    assert len(run.record.measurements) == rows


KILLED = """
import sys, time
from pathlib import Path
from workbench.export.hf import HuggingFace
from workbench.study import Study

original = HuggingFace.write

def write(self, model, folder, monitor=None):
    original(self, model, folder)
    print("written", flush=True)
    time.sleep(60)

HuggingFace.write = write
Study.open(sys.argv[1]).runs[-1].export(sys.argv[2], overwrite=True)
"""


def test_kill_9_halfway(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run.export(target, "gptq")
    before = snapshot(target)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run._workspace.path), str(target)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert snapshot(target) == before
    assert len(list(tmp_path.iterdir())) == 2  # what was being written is there, under its own name
    run.export(target, "awq", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exchange", [True, False], ids=["at once", "in two steps"])
def test_killed_between_any_two_steps_of_replacing(
    exchange: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every system call that renames: one complete export, or one that the next restores."""
    target = tmp_path / "out"
    run.export(target, "gptq")
    if not exchange:
        monkeypatch.setattr(publish, "_exchange", lambda one, other: False)
    before = snapshot(target)
    calls = 0
    rename = os.replace

    class Killed(BaseException):
        pass

    def replace(one: Any, other: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        rename(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(publish.os, "replace", replace)
        patch.setattr(publish.shutil, "rmtree", lambda *args, **options: None)
        if exchange:
            run.export(target, "awq", overwrite=True)
            assert snapshot(target) != before
        else:
            with pytest.raises(Killed):
                run.export(target, "awq", overwrite=True)
            assert not target.exists()
    monkeypatch.setattr(publish, "is_leftover", lambda path: True)
    with pytest.raises(ExportError, match="exists already"):
        run.export(target, "hf")
    if not exchange:
        assert snapshot(target) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_living_process_writes_is_left_alone(run: Run, tmp_path: Path) -> None:
    mine = publish.aside_of(tmp_path / "out.export")
    other = tmp_path / f"out.zip.{mine.name.partition('.')[2]}"
    for folder in (mine, other):
        folder.mkdir()
    run.export(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["out", mine.name, other.name])
    assert time.time() - mine.stat().st_mtime < 60
    shutil.rmtree(mine)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB of its own; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here; the simulated errors above remain")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format", ["hf", "gptq"])
def test_a_disk_that_is_really_full(
    format: str, run: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 0, 10**9)
    with pytest.raises(ExportError, match="MB free and the export needs"):
        run.export(small_disk / "out", format)
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda path: usage)
    (small_disk / "other").write_bytes(bytes(40_000))
    with pytest.raises(ExportError, match=f"The disk with {small_disk} is full"):
        run.export(small_disk / "out", format)
    assert [p.name for p in small_disk.iterdir()] == ["other"]


def test_a_folder_that_is_really_read_only(run: Run, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ExportError, match="Give a path in a folder of yours"):
        run.export(small_disk / "inner" / "out")
