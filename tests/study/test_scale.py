"""A study of many runs is looked at without reading anything twice: counts, no clocks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import workbench as wb
from benchmarks.study_scale import add_run, counting, grow, state_bytes
from workbench.storage import snapshot as snapshot_module
from workbench.storage.store import Store

RUNS = 220


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grown") / "study"
    grow(path, RUNS, 30)
    return path


def test_every_file_is_read_at_most_once_and_a_refresh_reads_what_is_new(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = wb.Requirements(0.97)
    study = wb.Study.open(folder)
    with counting() as read:
        app = wb.Workbench(study)
        frame = study.table()
        study.plot()
        decision = study.choose(bar)
        study.report(tmp_path / "report.html", bar)
    assert len(frame) == RUNS + 1
    assert len(decision.verdicts) == RUNS
    assert set(Counter(read).values()) == {1}
    assert len(read) == RUNS + 1

    store = Store.open(folder)
    base = store.snapshot().baselines["demo"]
    like = next(record for record in store.records() if record.recipe.steps)
    new = add_run(store, like, RUNS, store.outcomes(base.id))
    parsed: list[str] = []
    parse = snapshot_module.record_of
    monkeypatch.setattr(
        snapshot_module, "record_of", lambda row, *m: (parsed.append(row["id"]), parse(row, *m))[1]
    )
    with counting() as read:
        app.refresh()
        study.plot()
        study.choose(bar)
    assert [path.stem for path in read] == [new]
    assert parsed == [new]
    app.close()
    study.close()


def test_what_a_notebook_keeps_does_not_grow_with_the_runs(folder: Path) -> None:
    study = wb.Study.open(folder)
    app = wb.Workbench(study)
    assert state_bytes(app) < 1_000_000
    table = app.panels.table.widget
    assert table.pages == 2
    assert table.html.count("data-id") == 200
    table.page = 1
    assert table.html.count("data-id") == len(study.records) - 200
    label = study.records[-1].label
    table.query = label.lower()
    assert table.html.count("data-id") >= 1
    assert label.split(",")[0] in table.html
    table.query = "no such run"
    assert "0 rows" in table.count
    assert len(app.panels.compare.runs.options) <= 260
    last = [id for _, id in app.panels.compare.runs.options]
    hidden = next(record.id for record in study.records if record.id not in last)
    app.panels.compare._session.selection.set([hidden])
    assert app.panels.compare.runs.value == (hidden,)
    app.close()
    study.close()


def test_a_damaged_file_is_said_and_the_rest_is_shown(folder: Path) -> None:
    store = Store.open(folder)
    run = next(record for record in store.records() if record.recipe.steps)
    path = store.outcomes_path(run.id)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    try:
        study = wb.Study.open(folder)
        decision = study.choose(wb.Requirements(0.97))
        assert f"(run {run.id}) are missing or damaged" in str(decision)
        assert "Run the same recipe again" in str(decision)
        verdict = next(v for v in decision.verdicts if v.run.id == run.id)
        assert verdict.method in ("independent", "")
        figure = study.plot()
        assert run.id in json.dumps(figure.layout.to_plotly_json())
        assert len(study.table()) == len(study.records)
        with pytest.raises(wb.StudyError, match=f"outcomes of run {run.id} are damaged"):
            study.flips(store.snapshot().baselines["demo"].id, run.id, texts=False)
        study.close()
    finally:
        path.write_bytes(content)
