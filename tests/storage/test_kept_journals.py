"""Studies that earlier versions wrote are opened, shown, chosen from and continued.

``journals/version-N.zip`` is a study's folder as the code of journal version N left it, on toy
models of random weights: 2 of a text classifier, the others of language modelling; 3, 4 and 5
have a training. Their statistics are left out, which are collected again.
"""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

import pytest

from workbench.errors import StudyError
from workbench.recipes import AWQ, RTN
from workbench.records import Measurement, RunState
from workbench.storage.journal import SCHEMA_VERSION
from workbench.storage.store import JOURNAL_NAME, Store
from workbench.study import Study
from workbench.study.running.engine import run_id

JOURNALS = Path(__file__).parent / "journals"
FIRST_METRIC = {1: "perplexity", 2: "accuracy", 3: "perplexity", 4: "perplexity", 5: "perplexity"}


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


def test_its_journal_is_upgraded_and_takes_what_came_later(kept: tuple[int, Path]) -> None:
    _, folder = kept
    opened = Store.open(folder)
    run = next(record for record in opened.records() if record.recipe.steps)
    assert run.parent is not None
    assert run.measurements
    assert opened.meta("task")["name"]
    timed = Measurement(
        "query_ms", 2.5, "ms", 3, part="", spread=0.1, how="packed int4", conditions="here",
        samples=(2.5, 2.0, 3.25),
    )  # fmt: skip
    opened.add_measurements(run.id, [timed])
    again = Store.open(folder).record(run.id)
    assert again is not None
    assert again.measurements == (*run.measurements, timed)
    with sqlite3.connect(folder / JOURNAL_NAME) as db:
        assert not db.execute("SELECT * FROM runs WHERE digest IS NULL").fetchall()


def test_its_journal_is_read_where_it_cannot_be_written(
    kept: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, folder = kept

    def refuse(self: object) -> None:
        cause = sqlite3.OperationalError("attempt to write a readonly database")
        raise StudyError("read-only") from cause

    with monkeypatch.context() as patched:
        patched.setattr("workbench.storage.journal.Journal._upgrade", refuse)
        store = Store.open(folder)
        found = store.records()
        assert store.snapshot() is store.snapshot()
        assert version_of(folder) == version
    assert len(found) == 5
    assert found == Store.open(folder).records(), "as it is read after the upgrade"


def test_another_reason_why_it_is_not_upgraded_is_said(
    kept: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, folder = kept
    monkeypatch.setattr("workbench.storage.journal._UPGRADES", {version: ("no SQL",)})
    with pytest.raises(StudyError, match="cannot be used"):
        Store.open(folder)
