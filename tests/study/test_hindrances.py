"""A folder that cannot be written to or was deleted, a full disk, a full memory: said as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from tests.toy import toy_study
from workbench.errors import DiskFullError, NotEnoughMemoryError, StudyError
from workbench.recipes import RTN
from workbench.records import RunState
from workbench.runtime.packed import native
from workbench.storage import artifacts
from workbench.study import Study

ROUNDED = [RTN(bits, group_size=8) for bits in (3, 4, 5)]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with toy_study(tmp_path / "study") as study:
        study.run(RTN(2, group_size=8))
        yield study


@pytest.fixture
def read_only(study: Study) -> Iterator[Study]:
    """The study opened from a folder that nobody can write to, root included."""
    path = study.path
    study.close()
    if os.geteuid():
        for one in (*path.rglob("*"), path):
            one.chmod(one.stat().st_mode & ~0o222)
        undo = ["chmod", "-R", "u+w", str(path)]
    else:
        bound = subprocess.run(["mount", "--bind", str(path), str(path)], capture_output=True)
        if bound.returncode:
            pytest.skip("as root a folder is read-only only where it can be mounted so")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        undo = ["umount", str(path)]
    try:
        with Study.open(path) as opened:
            yield opened
    finally:
        subprocess.run(undo, check=True)


def test_a_read_only_study_is_shown_and_takes_no_job(read_only: Study) -> None:
    before = sorted(read_only.path.rglob("*"))
    for act in (read_only.submit, read_only.run, read_only.sweep):
        with pytest.raises(StudyError, match=r"cannot be\s+written"):
            act([RTN(3, group_size=8)])  # type: ignore[operator]
    assert read_only.queue == ()
    assert read_only.wait(timeout=0.1)  # there is nothing to wait for
    assert len(read_only.table()) == len(read_only.runs) == 2
    assert sorted(read_only.path.rglob("*")) == before


def test_a_folder_that_was_deleted_is_not_called_read_only(study: Study) -> None:
    shutil.rmtree(study.path)
    for act in (study.run, study.submit):
        with pytest.raises(StudyError) as caught:
            act([RTN(3, group_size=8)])  # type: ignore[operator]
        assert "read-only" not in str(caught.value)
        assert "not there any more" in str(caught.value)
    assert study.queue == ()


FULL = (
    SafetensorError("I/O error: No space left on device (os error 28)"),
    OSError(28, "No space left on device"),
)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_said_and_the_rest_of_the_sweep_is_not_tried(
    study: Study, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = []

    def save(path: Path, model: Any) -> str:
        asked.append(path)
        raise error

    monkeypatch.setattr(artifacts, "save_weights", save)
    study.sweep(ROUNDED)
    assert len(asked) == 1
    failed = [record for record in study.records if record.state is RunState.FAILED]
    (error_words,) = [record.error or "" for record in failed]
    assert error_words.startswith("DiskFullError: The disk with")
    assert "is full. Finished runs are kept" in error_words
    with pytest.raises(DiskFullError):
        study.run(ROUNDED[0])
    monkeypatch.undo()
    assert [run.state for run in study.sweep(ROUNDED)] == [RunState.DONE] * 3


def test_a_limit_of_memory_is_called_so(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(path: Path, model: Any) -> str:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(artifacts, "save_weights", save)
    with pytest.raises(NotEnoughMemoryError, match=r"too little memory for this run.*primitive"):
        study.run(RTN(3, group_size=8))


def test_weights_that_are_cut_off_while_their_model_is_used(study: Study) -> None:
    """A mapped file that another program cuts off would end the process when it is read."""
    run = study.runs[-1]
    model = run.model()
    before = {name: weight.dequantize() for name, weight in model.weights.items()}
    (file,) = (study.path / "artifacts").glob("*.safetensors")
    with file.open("r+b") as stream:
        stream.truncate(100)
    for name, weight in model.weights.items():
        assert torch.equal(weight.dequantize(), before[name])
    again = run.model()  # from the recipe: what is there is damaged
    for name, weight in again.weights.items():
        assert torch.equal(weight.dequantize(), before[name])


class TestKernelCache:
    """Compiled kernels are run from a cache, so it must be the user's own."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return tmp_path / "compression-workbench"

    def compiled(self) -> Path:
        compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
        if compiler is None:
            pytest.skip("there is no compiler")
        return native._compile(compiler)

    def test_our_own_is_taken(self, cache: Path) -> None:
        path = self.compiled()
        assert path.parent == cache
        assert cache.stat().st_mode & 0o777 == 0o700
        written = path.stat().st_mtime_ns
        assert self.compiled() == path
        assert path.stat().st_mtime_ns == written

    @pytest.mark.parametrize("what", ["folder", "library"])
    @pytest.mark.parametrize("how", ["link", "others may write", "another owner"])
    def test_what_another_could_have_written_is_not_run(
        self, cache: Path, tmp_path: Path, what: str, how: str
    ) -> None:
        path = self.compiled()
        planted = cache if what == "folder" else path
        if how == "link":
            planted.rename(tmp_path / "elsewhere")
            planted.symlink_to(tmp_path / "elsewhere")
        elif how == "others may write":
            planted.chmod(0o777)
        elif os.geteuid():
            pytest.skip("only root can give a file away")
        else:
            os.chown(planted, 12345, 12345)
        with pytest.raises(RuntimeError, match="not yours alone"):
            self.compiled()
