"""Tests of the terminal's commands that decide."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.toy import toy_study
from workbench.cli.commands import app
from workbench.errors import ConfigError
from workbench.recipes import RTN


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "study"
    with toy_study(path) as study:
        study.sweep([RTN(8, group_size=8), RTN(2, group_size=8)])
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_choose_with_confidence(study):
    found = run("choose", study, "--accuracy", 0.5, "--confidence", 0.95)
    assert found.exit_code == 0, found.output
    assert "surely passes" in " ".join(found.output.split())
    assert "Its model in Python" in found.output
    assert run("choose", study, "--accuracy", 1.5, "--confidence", 0.95).exit_code == 1
    assert run("choose", study, "--accuracy", 0.5).exit_code == 0


def test_choose_by_memory_or_cost_says_what_is_missing(study):
    found = run("choose", study, "--memory-mb", 5)
    assert found.exit_code == 1
    assert "no measured memory" in " ".join(found.output.split())
    asked = run("choose", study, "--cost-per-1k", 1)
    assert isinstance(asked.exception, ConfigError)
    assert "--price-per-hour" in str(asked.exception)


def test_report_writes_a_page(study, tmp_path):
    path = tmp_path / "page.html"
    found = run("report", study, "--html", path, "--question", "Which one?", "--price-per-hour", 1)
    assert found.exit_code == 0, found.output
    assert "Which one?" in path.read_text()
    assert "What it costs" in path.read_text()
    assert isinstance(run("report", study, "--html", "page.pdf").exception, ConfigError)


def test_plan_prints_what_fits_and_draws_it(tmp_path):
    found = run(
        "plan",
        "llama-2-7b",
        "smollm2-135m",
        "--device",
        "card 24 GB",
        "--precision",
        "4-bit",
        "--html",
        tmp_path / "plan.html",
    )
    assert found.exit_code == 0, found.output
    assert "Estimates" in found.output
    assert "llama-2-7b fits on card 24 GB at 4-bit" in found.output
    assert (tmp_path / "plan.html").stat().st_size > 1e6
    assert "mixtral-8x7b" in run("plan", "list").output


def test_plan_takes_a_catalogue(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps([{"name": "toaster", "memory_bytes": 1e6, "bandwidth_bytes_per_s": 1e6}])
    )
    found = run("plan", "smollm2-135m", "--devices", path)
    assert "does not fit on toaster" in found.output
    missing = run("plan", "smollm2-135m", "--device", "toaster")
    assert isinstance(missing.exception, ConfigError)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give --accuracy 0.97"),
        (["--confidence", 0.95], "give --accuracy 0.97"),
        (["--accuracy", 97], "--absolute"),
        (["--accuracy", 97, "--confidence", 0.95], "give 0.97"),
    ],
)
def test_a_bar_without_meaning_is_said_in_the_terminals_words(study, options, says):
    found = run("choose", study, *options)
    assert isinstance(found.exception, ConfigError)
    assert says in str(found.exception)
    assert "relative=" not in str(found.exception)


def test_search_prints_its_trials_and_what_passes(study, monkeypatch):
    from workbench.prediction import tabulate
    from workbench.study import proposals

    monkeypatch.setattr(tabulate, "GRID", (RTN(8, group_size=8), RTN(4, group_size=8)))
    monkeypatch.setattr(tabulate, "WHOLE", ())
    monkeypatch.setattr(proposals, "_TRAININGS", ())
    found = run("search", study, "--accuracy", 0.9, "--minutes", 2)
    assert found.exit_code == 0, found.output
    assert "passes" in found.output
    assert "has a predicted chance" in found.output
    assert "Its model in Python" in found.output
    assert run("search", study, "--accuracy", 1.9, "--minutes", 2).exit_code == 1
    assert isinstance(run("search", study, "--accuracy", 97).exception, ConfigError)
