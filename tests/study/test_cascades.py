"""Tests of cascades and their router in a real study of a tiny classifier."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from workbench import Router
from workbench.errors import ConfigError, DataError, ExportError, StudyError, UnsafePathError
from workbench.records import Measurement
from workbench.selection.cascades.signals import margin
from workbench.selection.cost import CostModel


def test_the_running_router_does_what_was_predicted(study, small, tmp_path, monkeypatch):
    dense = study.baseline()
    found = study.cascade([small, dense], signal="margin")
    router = found.router()
    rows = study.task.rows["evaluation"]
    answers = router([row.text for row in rows])
    right = [a.label == row.label for a, row in zip(answers, rows, strict=True)]
    kept = np.mean([a.tier == 0 for a in answers])
    assert np.mean(right) == pytest.approx(found.accuracy, abs=0.01)
    assert kept == pytest.approx(found.kept, abs=0.01)
    assert found.cost_unit == "MB"

    again = Router.load(router.save(tmp_path / "router"))
    assert again([row.text for row in rows]) == answers
    assert sum(p.is_dir() for p in (tmp_path / "router").iterdir()) == 1  # one base for both
    with pytest.raises(ConfigError, match="list of texts"):
        router("one text")
    assert router([]) == []
    with pytest.raises(ExportError, match="exists already"):
        router.save(tmp_path / "router")
    router.save(tmp_path / "router", overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ExportError, match="holds something else, so it is not replaced"):
        router.save(tmp_path / "thesis", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".tmp") == ["router", "thesis"]
    assert not list(tmp_path.glob("*.tmp"))
    served = router.measure([row.text for row in rows[:30]])
    assert served.percentiles.p95 >= served.percentiles.p50 > 0
    assert served.percentiles.p99 is None

    asked, clock = [], []
    logs = router._log_probabilities
    monkeypatch.setattr(
        router, "_log_probabilities", lambda model, texts: asked.append(model) or logs(model, texts)
    )
    router.measure([rows[0].text], clock=lambda: clock.append(len(asked)) or 0.0)
    assert asked[: clock[0]] == list(router.models)  # all are warm before the first is timed


def test_a_cascade_says_who_wins_and_draws_itself(study, small):
    found = study.cascade([small, study.runs[-1], study.baseline()], signal=margin)
    assert "best single model" in str(found)
    assert len(found.plot().data) == 3
    with pytest.raises(ConfigError, match="signal of your own"):
        found.router().save("nowhere")


def test_a_run_is_no_two_tiers(study, small):
    with pytest.raises(ConfigError, match="given twice"):
        study.cascade([small, small.id])


def test_costs_of_a_cascade_are_measured_ones(study, small):
    runs = [small, study.baseline()]
    with pytest.raises(StudyError, match=r"study\.measure"):
        study.cascade(runs, cost="latency")
    for run, ms in zip(runs, (1.0, 4.0), strict=True):
        study._workspace.store.add_measurements(
            run.id, [Measurement("latency_ms", ms, "ms", 7, part="")]
        )
    found = study.cascade(runs)
    assert found.cost_unit == "ms"
    assert found.found.costs == (1.0, 4.0)
    assert found.found.evaluation.latency_ms == pytest.approx(found.found.evaluation.cost)
    assert "no less than asking the last" not in str(found)
    back = study.cascade(runs[::-1])  # the dear one first
    assert "no less than asking the last model alone" in str(back)
    dollars = study.cascade(runs, cost=CostModel(price_per_hour_usd=3.6, utilisation=1.0))
    assert dollars.found.costs == pytest.approx((1e-6, 4e-6))
    assert found.table()["p95_ms"].isna().all()  # as of runs that an earlier version measured


def test_the_time_of_a_token_is_not_that_of_a_query(study, small, monkeypatch):
    timed = (Measurement("first_token_ms", 9.0, "ms", 7), Measurement("latency_ms", 1.0, "ms", 7))
    records = [
        replace(record, measurements=(*record.measurements, *timed)) for record in study.records
    ]
    monkeypatch.setattr(study._workspace, "records", lambda: records)
    runs = [small, study.baseline()]
    by_size = study.cascade(runs)
    assert by_size.cost_unit == "MB"
    assert by_size.found.evaluation.latency_ms is None
    with pytest.raises(StudyError, match="time of a token"):
        study.cascade(runs, cost="latency")
    dollars = study.cascade(runs, cost=CostModel(3.6, utilisation=1.0, new_tokens=1))
    assert dollars.found.costs == pytest.approx((9e-6, 9e-6))


def test_times_of_two_machines_are_neither_added_nor_compared(study, small):
    runs, other = [small, study.baseline()], study.runs[-1]
    for run, ms, where in zip([*runs, other], (1.0, 4.0, 0.5), ("a", "a", "b"), strict=True):
        timed = Measurement("latency_ms", ms, "ms", 7, part="", conditions=where)
        study._workspace.store.add_measurements(run.id, [timed])
    assert study.cascade(runs, cost="latency").found.single != other.label  # as fast only there
    assert study.cascade(runs, cost="size").found.evaluation.latency_ms is not None
    by_size = study.cascade([other, study.baseline()], cost="size")
    assert by_size.found.evaluation.latency_ms is None
    assert "on average" not in str(by_size)


def test_percentiles_follow_from_the_times_that_were_kept(study, small):
    runs = [small, study.baseline()]
    for run, times in zip(runs, ((1.0,) * 100, (4.0,) * 100), strict=True):
        timed = Measurement(
            "query_ms", times[0], "ms", 100, part="", conditions="here", samples=times
        )
        study._workspace.store.add_measurements(run.id, [timed])
    found = study.cascade(runs, cost="size")
    at, table = found.found.evaluation, found.table().set_index("what")
    assert at.percentiles.p99 == (5.0 if at.shares[0] < 0.99 else 1.0)
    assert table.loc["cascade", "p99_ms"] == at.percentiles.p99
    assert list(table["p95_ms"])[1:3] == [1.0, 4.0]
    assert "p99" in str(found)
    assert "p99" in found.plot().data[0].customdata[0][1]
    elsewhere = Measurement(
        "query_ms", 9.0, "ms", 1, part="", conditions="there", samples=(9.0,) * 100
    )
    study._workspace.store.add_measurements(
        small.id, [elsewhere]
    )  # times of two machines do not add up
    assert study.cascade(runs, cost="size").table()["p95_ms"].isna().all()


def test_a_damaged_router_is_refused(tmp_path):
    with pytest.raises(DataError, match="no router"):
        Router.load(tmp_path)
    described = {
        "version": 1,
        "labels": ["a"],
        "thresholds": [0.5],
        "signal": "margin",
        "sequence_length": 8,
        "tiers": [{"base": "../..", "weights": None}] * 2,
    }
    (tmp_path / "router.json").write_text(json.dumps(described))
    with pytest.raises(UnsafePathError, match="no plain name"):
        Router.load(tmp_path)
    described["tiers"] = [{"base": "gone", "weights": None}] * 2
    (tmp_path / "router.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="lacks its model"):
        Router.load(tmp_path)
