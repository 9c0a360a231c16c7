from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from workbench.training import CheckpointFile


def test_tensors_and_floats_come_back_to_the_last_bit(tmp_path):
    file = CheckpointFile(tmp_path / "deep" / "a.safetensors")
    given = {"x": torch.randn(3, 4), "n": torch.tensor(7.0)}
    assert file.save(given, {"loss": 0.1 + 0.2})
    tensors, meta = file.load()
    assert all(torch.equal(tensors[name], given[name]) for name in given)
    assert meta == {"loss": 0.1 + 0.2}
    file.remove()
    assert file.load() is None
    assert not list(file.path.parent.iterdir())


def test_a_damaged_file_is_no_checkpoint(tmp_path):
    file = CheckpointFile(tmp_path / "a.safetensors")
    file.save({"x": torch.zeros(100)}, {})
    file.path.write_bytes(file.path.read_bytes()[:-50])
    assert file.load() is None
    file.path.write_text("{}")
    assert file.load() is None


def test_a_full_disk_leaves_the_checkpoint_before_and_no_half_one(tmp_path, monkeypatch):
    file = CheckpointFile(tmp_path / "a.safetensors")
    file.save({"x": torch.zeros(3)}, {"n": 1})

    def fails(_tensors, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("workbench.training.checkpoints.save_file", fails)
    with pytest.raises(OSError, match="No space"):
        file.save({"x": torch.ones(3)}, {"n": 2})
    assert file.load()[1] == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_disk_that_is_used_is_bounded(tmp_path):
    for age, name in enumerate("abc"):
        path = tmp_path / f"{name}.safetensors"
        CheckpointFile(path).save({"x": torch.zeros(250)}, {})
        os.utime(path, (age, age))
    file = CheckpointFile(tmp_path / "d.safetensors", most_bytes=2_500)
    assert file.save({"x": torch.zeros(250)}, {})
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["c", "d"]
    assert not file.save({"x": torch.zeros(1000)}, {})
