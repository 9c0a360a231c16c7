"""Tests of the terminal's commands that keep order among runs."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tests.toy import toy_study
from workbench.cli.commands import app
from workbench.errors import ConfigError
from workbench.recipes import RTN


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study"
    with toy_study(path) as study:
        study.sweep([RTN(8, group_size=8), RTN(2, group_size=8)])
    return path


def run(*arguments, **options):
    given = [str(a) for a in arguments]
    return CliRunner().invoke(app, given, env={"COLUMNS": "200"}, **options)


def test_runs_are_named_found_hidden_and_deleted(study):
    named = run("edit", study, "--run", "RTN 2-bit g8", "--name", "two", "--tag", "x", "--star")
    assert named.exit_code == 0, named.output
    assert "two" in run("table", study, "--tag", "x").output
    assert "RTN 8-bit" not in run("table", study, "--starred").output
    run("edit", study, "--run", "two", "--hide", "--untag", "x")
    assert "RTN 2-bit" not in run("table", study).output
    assert "RTN 2-bit" in run("table", study, "--all").output
    kept = run("delete", study, "--run", "two", input="n\n")
    assert kept.exit_code == 1
    assert "frees 0." in kept.output
    gone = run("delete", study, "--run", "two", "--yes")
    assert gone.exit_code == 0, gone.output
    assert "RTN 2-bit" not in run("table", study, "--all").output
    assert isinstance(run("edit", study, "--run", "dense").exception, ConfigError)


def test_the_disk_is_told_and_cleaned(study):
    told = run("disk", study)
    assert "weights" in told.output
    assert "MB freed" in run("disk", study, "--clean", "weights,statistics").output
    assert isinstance(run("disk", study, "--clean", "journal").exception, ConfigError)


def test_studies_are_listed(study):
    assert str(study) in run("studies", study.parent).output
    assert "No study" in run("studies", study / "task").output
