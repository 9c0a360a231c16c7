"""Tests of trust in a real study of a tiny classifier."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from tests.toy import toy_study
from workbench.errors import ConfigError
from workbench.selection.cascades.signals import margin
from workbench.study import Study


def test_outcomes_of_the_validation_part_are_evaluated_once_and_kept(study, small, monkeypatch):
    found = study.outcomes(small, "validation")
    assert len(found) == len(study.task.rows["validation"]) == 100
    monkeypatch.setattr(study._workspace.engine, "outcomes", None)
    again = study.outcomes(small, "validation")
    assert np.array_equal(found["loss"], again["loss"])
    assert np.array_equal(study.outcomes(small)["loss"], small.outcomes()["loss"])


def test_a_study_that_cannot_be_written_is_looked_into_all_the_same(study, small, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.tasks.outcomes.Outcomes.save", refuse)
        found = study.outcomes(small, "calibration")
    assert len(found) == 200
    assert study._workspace.store.outcomes_of(small.id, "calibration") is None


def test_outcomes_of_an_earlier_version_are_opened_and_completed(study, small):
    new = {"margin", "entropy", "log_probabilities"}
    path = study._workspace.store.outcomes_path(small.id)
    kept = path.read_bytes()
    old = small.outcomes()
    try:
        np.savez_compressed(path, **{k: v for k, v in old.columns.items() if k not in new})
        with sqlite3.connect(study.path / "study.sqlite") as db:  # an earlier version has none
            db.execute("DELETE FROM files WHERE name = ?", (f"outcomes/{small.id}.npz",))
        assert study.choose(0.5).nearest_run is not None
        completed = study.outcomes(small)
        assert new <= set(completed.columns)
        assert np.array_equal(completed["prediction"], old["prediction"])
        assert np.allclose(completed["kl"], old["kl"])
    finally:
        path.write_bytes(kept)
        (path.parent / f"{small.id}.evaluation.npz").unlink()


def test_recorded_doubts_agree_with_each_other(study, small):
    found = small.outcomes()
    logs = found["log_probabilities"].astype(float)
    assert logs.shape == (300, 3)
    assert np.allclose(np.exp(logs).sum(axis=1), 1, atol=5e-3)
    assert np.allclose(np.exp(logs).max(axis=1), found["confidence"], atol=2e-3)
    assert np.allclose(margin(logs), found["margin"], atol=4e-3)
    assert np.allclose(-(np.exp(logs) * logs).sum(axis=1), found["entropy"], atol=1e-2)


def test_trust_puts_it_all_together(study, small):
    found = study.trust(small)
    table, label = small.outcomes(), np.asarray(small.outcomes()["label"])
    wrong = (np.asarray(table["prediction"]) != label) & (np.asarray(table["confidence"]) >= 0.9)
    assert found.wrong_rate == pytest.approx(wrong.mean())
    assert len(found.confidently_wrong) == wrong.sum()
    assert found.temperature > 0
    assert found.before.n == found.after.n == 300
    assert len(found.flipped) == round(found.flips.rate * 300)
    assert {s.column for s in found.slices} == {"length", "label", "channel"}
    assert {s.value for s in found.slices if s.column == "channel"} == {"mail", "<phone>"}
    assert list(found.slice_table()["value"]) == [s.value for s in found.slices]
    assert "calibration error" in str(found)
    assert len(found.plot().data) == 3


def test_trust_slices_by_columns_that_are_given(study, small):
    groups = ["even" if i % 2 == 0 else "odd" for i in range(300)]
    found = study.trust(small, columns={"parity": groups})
    assert sum(s.column == "parity" for s in found.slices) == 2
    with pytest.raises(ConfigError, match="3 values"):
        study.trust(small, columns={"parity": ["a"] * 3})


def test_consistency_runs_the_model_on_changed_texts(study, small):
    found = study.consistency(small, {"same": lambda text, chance: text, "note": "Note: {text}"})
    assert list(found["perturbation"]) == ["same", "note"]
    assert found["same"][0] == 1.0
    assert found["change"][0] == 0.0
    assert 0 <= found["same_low"][1] <= found["same"][1] <= found["same_high"][1] <= 1
    with pytest.raises(ConfigError, match="text"):
        study.consistency(small, {"bad": "no place"})


def test_the_columns_come_back_with_the_study(study):
    again = Study.open(study.path)
    assert again.task.rows["evaluation"][0].more == study.task.rows["evaluation"][0].more
    assert again.task.fingerprint == study.task.fingerprint


def test_language_models_are_refused(tmp_path):
    with toy_study(tmp_path / "toy") as study:
        run = study.run([])
        assert len(study.outcomes(run, "validation")) > 0
        for call in (study.trust, study.consistency, lambda r: study.cascade([r, r])):
            with pytest.raises(ConfigError, match="TextClassification"):
                call(run)
