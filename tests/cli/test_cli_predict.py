"""Tests of the terminal's predictions: what is said to be predicted, what is run, what is kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.test_cli import run
from tests.toy import toy_study
from workbench.cli import tables
from workbench.cli.progress import show_stages
from workbench.prediction.cost_table import CostTable
from workbench.prediction.predict import Prediction
from workbench.progress import Progress
from workbench.recipes import GPTQ, RTN, Mixed
from workbench.recipes.recipe import Recipe
from workbench.records import Metric
from workbench.study import Study
from workbench.study.predictions import cost_table

GRID = tuple(method(bits, group_size=8) for method in (GPTQ, RTN) for bits in (2, 3, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a study whose predictions are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.prediction.tabulate.GRID", GRID)
        study = toy_study(tmp_path_factory.mktemp("predict") / "study")
        study.tabulate()
        yield study.path


def test_predict_prints_a_row_per_recipe_and_runs_nothing(monkeypatch, capsys, folder):
    arguments = ("--methods", "gptq,rtn+correction", "--bits", "2,3", "--group-sizes", "8")
    assert run(monkeypatch, "predict", folder, *arguments) == 0
    said, header, *rows = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert said.startswith("Predicted, not measured")
    assert header.split()[:3] == ["recipe", "size", "(MB)"]
    wanted = ["GPTQ 2-bit g8", "GPTQ 3-bit g8", "RTN 2-bit g8 →", "RTN 3-bit g8 →"]
    assert all(row.startswith(start) for row, start in zip(rows, wanted, strict=True))
    assert all(re.search(r"[\d.]+ to [\d.]+", row) for row in rows[:2])
    assert all("run it to know" in row for row in rows[2:])
    assert len(Study.open(folder).runs) == 1


def test_frontier_prints_mixed_recipes_too(monkeypatch, capsys, folder):
    assert run(monkeypatch, "frontier", folder) == 0
    out = capsys.readouterr().out
    assert "Predicted, not measured" in out
    assert "Mixed" in out
    sizes = [float(found) for found in re.findall(r"  (0\.\d\d)  ", out)]
    assert sizes == sorted(sizes)


def test_sensitivity_prints_and_writes_a_heatmap(monkeypatch, capsys, folder, tmp_path):
    page = tmp_path / "heat.html"
    arguments = ("--bits", "2,4", "--group-sizes", "8", "--html", page)
    assert run(monkeypatch, "sensitivity", folder, *arguments) == 0
    out = capsys.readouterr().out
    assert "not measured" in out
    assert "model.layers.1.mlp.down_proj" in out
    assert "GPTQ 2-bit g8" in page.read_text()
    assert run(monkeypatch, "sensitivity", folder, "--methods", "sparsegpt") == 2
    assert "no costs by layer" in capsys.readouterr().err


def test_fit_says_what_was_measured_and_how_to_get_it(monkeypatch, capsys, folder):
    assert run(monkeypatch, "fit", folder, "--bits-per-weight", "4.5", "--verify", "0") == 0
    label, said, code = capsys.readouterr().out.splitlines()
    assert said.startswith("Not run: ")
    assert "predicted mean_loss" in said
    assert f"{label}: " not in said
    assert code.startswith("The recipe in Python: wb.")
    assert run(monkeypatch, "fit", folder, "--bits-per-weight", "4.5", "--verify", "1") == 0
    label, said, model, code = capsys.readouterr().out.splitlines()
    assert said.startswith("Measured: ")
    assert "bytes, mean_loss" in said
    study = Study.open(folder)
    (fitted,) = study.runs[1:]
    assert f".model({fitted.id!r})" in model
    assert label == fitted.label
    assert fitted.recipe.code() in code


def test_ctrl_c_keeps_what_is_tabulated(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("workbench.prediction.tabulate.GRID", GRID)
    study = toy_study(tmp_path / "study")
    saved = CostTable.save

    def interrupt(table: CostTable, path: Path) -> None:
        saved(table, path)
        if len(table.columns) >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CostTable, "save", interrupt)
        assert run(monkeypatch, "frontier", study.path) == 130
    out = capsys.readouterr().out
    assert "the same command goes on" in " ".join(out.split())
    assert 2 <= len(cost_table(study._workspace, "tiny").columns) < len(GRID)
    assert run(monkeypatch, "frontier", study.path) == 0
    assert len(cost_table(study._workspace, "tiny").columns) == len(GRID)


def test_long_recipes_are_cut_and_numbers_are_not(monkeypatch, capsys):
    step = Mixed([GPTQ(b) for b in (2, 3, 4)], {name: i for i, name in enumerate("abc")})
    recipe = Recipe.of(step)
    found = Prediction(recipe, 3_456_789, 0.0123, None, "accuracy", 0.9, (0.88, 0.92))
    text = io.StringIO()
    console = Console(file=text, width=70, force_terminal=True, no_color=True)
    monkeypatch.setattr(tables, "output", lambda: console)
    tables.print_predictions([found], Metric("accuracy"), 3)
    assert "learned from 0 of 3 measured runs" in text.getvalue()
    (row,) = [line for line in text.getvalue().splitlines() if "Mixed" in line]
    assert "…" in row
    for number in ("3.46", "0.9", "0.88 to 0.92", "0.0123"):
        assert number in row
    capsys.readouterr()


def test_stages_are_shown_on_a_terminal_only():
    for terminal in (True, False):
        shown = io.StringIO()
        with show_stages(Console(file=shown, width=80, force_terminal=terminal)) as on_progress:
            on_progress(Progress("calibrate", 1, 7))
        assert ("calibrate" in shown.getvalue()) == terminal
