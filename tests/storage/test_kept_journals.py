"""Studies that earlier versions wrote are opened, shown, chosen from and continued.

``journals/version-N.zip`` is a study's folder as the code of journal version N left it, on toy
models of random weights: 2 of a text classifier, the others of language modelling; 3 and 4 have a
training. Their statistics are left out, which are collected again.
"""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

import pytest

from workbench.recipes import AWQ, RTN
from workbench.records import RunState
from workbench.storage.journal import SCHEMA_VERSION
from workbench.storage.store import JOURNAL_NAME
from workbench.study import Study
from workbench.study.running.engine import run_id

JOURNALS = Path(__file__).parent / "journals"
FIRST_METRIC = {1: "perplexity", 2: "accuracy", 3: "perplexity", 4: "perplexity"}


def version_of(folder: Path) -> int:
    with sqlite3.connect(folder / JOURNAL_NAME) as db:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


@pytest.fixture(params=FIRST_METRIC)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    version: int = request.param
    with zipfile.ZipFile(JOURNALS / f"version-{version}.zip") as archive:
        archive.extractall(tmp_path / "study")
    assert version_of(tmp_path / "study") == version
    return version, tmp_path / "study"


def test_there_is_a_study_of_every_earlier_version() -> None:
    assert sorted(FIRST_METRIC) == list(range(1, SCHEMA_VERSION))
    kept = {path.name for path in JOURNALS.glob("*.zip")}
    assert kept == {f"version-{n}.zip" for n in FIRST_METRIC}


def test_it_is_opened_shown_chosen_from_and_continued(kept: tuple[int, Path]) -> None:
    version, folder = kept
    study = Study.open(folder)
    assert version_of(folder) == SCHEMA_VERSION
    table = study.table()
    assert len(table) == 5
    assert set(table["state"]) == {"done"}
    assert table[FIRST_METRIC[version]].notna().all()
    assert len(study.plot().data) > 0
    choice = study.choose(0.5)
    assert choice.run is not None
    assert choice.run.id in table.index
    again = [run_id(study._workspace.store, r.model, r.recipe) for r in study.records]
    assert again == list(table.index), "what was computed is found again"
    codes = study.model(study.runs[1])
    assert len(codes.weights) == 12 if version == 2 else 14
    made = study.run(RTN(3, group_size=8))
    assert made.state is RunState.DONE
    assert made.record.facts["device"]
    assert study.run(AWQ(4, group_size=8)).state is RunState.DONE
    assert len(study.table()) == 7
