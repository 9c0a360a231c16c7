"""A study records where its model is and whether its code is trusted, and keeps to both."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_folder
from tests.toy import CALIBRATION, toy_model, toy_study, toy_task
from workbench.errors import ConfigError, StudyError
from workbench.models.load import load_model
from workbench.models.trusted_code import TRUSTED
from workbench.recipes import RTN
from workbench.study import Study

RTN4 = RTN(4, group_size=8)


def describe(study: Study, **changed: object) -> None:
    """Change what a study says of its model; None leaves a value out."""
    described = study._workspace.store.models()["tiny"] | changed
    kept = {key: value for key, value in described.items() if value is not None}
    study._workspace.store.update_model("tiny", kept)


def test_the_device_is_recorded_with_the_model_and_with_every_run(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "study")
    assert study._workspace.store.models()["tiny"]["device"] == "cpu"
    assert study.run(RTN4).record.facts["device"] == "cpu"


def test_a_study_that_does_not_say_is_opened_and_says_from_then_on(tmp_path: Path) -> None:
    first = toy_study(tmp_path / "study")
    describe(first, device=None)
    assert Study.open(first.path).run(RTN4).record.facts["device"] == "cpu"
    assert "device" not in first._workspace.store.models()["tiny"]
    toy_study(first.path)
    assert first._workspace.store.models()["tiny"]["device"] == "cpu"


def test_nothing_is_computed_elsewhere_unless_that_is_said(tmp_path: Path) -> None:
    first = toy_study(tmp_path / "study")
    first.run([])
    describe(first, device="cuda:1")
    study = Study.open(first.path)
    assert len(study.table()) == 1, "it can be looked at"
    with pytest.raises(StudyError, match="on cuda:1, which this machine lacks; it has cpu"):
        study.run(RTN4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        study.add_model(toy_model())
    assert "computed 'tiny' on cuda:1 so far and does so on cpu" in str(said[0].message)
    assert study._workspace.store.models()["tiny"]["device"] == "cpu"
    assert study.run(RTN4).record.facts["device"] == "cpu"


def test_fewer_devices_of_the_same_kind_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.study.running.engine import _device_here

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert _device_here("m", "ref", "cuda:1") == "cuda"
    assert _device_here("m", "ref", "cuda:0") == "cuda:0"
    assert _device_here("m", "ref", None) == "auto"
    with pytest.raises(StudyError, match="it has cpu, cuda:0"):
        _device_here("m", "ref", "mps:0")


MODELING = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(tmp_path: Path) -> tuple[Path, Path]:
    """Return a model that needs code of its own, and the file that the code makes when it runs."""
    import json

    folder, mark = tiny_folder(tmp_path / "own"), tmp_path / "it-ran"
    (folder / "modeling_own.py").write_text(MODELING.format(mark=str(mark)))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own_llama",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, mark


def test_the_worker_has_the_users_word_for_the_models_code(
    tmp_path: Path, own_code: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED, "")
    folder, _ = own_code
    model = load_model(folder, trust_remote_code=True)
    with Study(model, toy_task(), tmp_path / "study", calibration=CALIBRATION) as study:
        assert study._workspace.store.models()["own"]["source"]["trust_remote_code"] is True
        study.submit([RTN4])
        assert study.wait(120)
        assert [run.record.error for run in study.runs] == [None, None]


def test_a_study_alone_runs_no_code_of_a_model(
    tmp_path: Path, own_code: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED, "")
    folder, mark = own_code
    study = Study(load_model(folder, trust_remote_code=True), toy_task(), tmp_path / "study")
    study.run([])
    mark.unlink()
    monkeypatch.setenv(TRUSTED, "")  # as in another session
    with pytest.raises(ConfigError, match="not done without your word"):
        Study.open(study.path).run(RTN4)
    assert not mark.exists()
    load_model(folder, trust_remote_code=True)
    (folder / "modeling_own.py").write_text("raise SystemExit('changed since')")
    with pytest.raises(ConfigError, match="not done without your word"):
        Study.open(study.path).run(RTN4)


def test_models_are_loaded_without_code_unless_that_is_said(
    own_code: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, mark = own_code
    with pytest.raises((ConfigError, ValueError)):
        load_model(folder)
    assert not mark.exists()
    shutil.rmtree(folder)
