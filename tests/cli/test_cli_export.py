"""The terminal's commands formats and export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.toy import toy_study
from workbench.recipes import RTN
from workbench.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = toy_study(tmp_path_factory.mktemp("cli-export") / "study")
    made.run(RTN(4, group_size=8))
    return made


def test_formats_lists_sizes_and_reasons(monkeypatch, capsys, study):
    made = study.runs[-1]
    assert run(monkeypatch, "formats", study.path, "--run", made.id) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert f"{made.export_bytes('gptq') / 1e6:.2f} MB" in lines["gptq"]
    assert "multiple of 32" in lines["gguf"]


def test_export_writes_and_says_where(monkeypatch, capsys, study, tmp_path: Path):
    target = tmp_path / "out"
    arguments = ("export", study.path, target, "--run", study.runs[-1].id, "--format", "awq")
    assert run(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert f"Exported to {target} (awq" in out
    assert str(target / "README.md") in out
    assert json.loads((target / "export.json").read_text())["format"] == "awq"
    assert run(monkeypatch, *arguments) == 2
    assert "overwrite" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--overwrite") == 0


def test_export_of_an_unknown_run(monkeypatch, capsys, study, tmp_path: Path):
    assert run(monkeypatch, "export", study.path, tmp_path / "out", "--run", "nope") == 2
    assert "no run 'nope'" in capsys.readouterr().err


def test_convert_keeps_the_codes_or_says_what_would_be_rounded(
    monkeypatch, capsys, study, tmp_path: Path
):
    study.runs[-1].export(tmp_path / "awq", "awq")
    arguments = ("convert", tmp_path / "awq", tmp_path / "out", "--format", "gptq")
    assert run(monkeypatch, *arguments) == 0
    assert f"Exported to {tmp_path / 'out'} (gptq" in capsys.readouterr().out
    assert run(monkeypatch, *arguments[:2], tmp_path / "no", "--format", "mlx") == 2
    assert "without rounding it again" in capsys.readouterr().err
