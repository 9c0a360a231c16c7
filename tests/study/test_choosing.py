"""Tests of choosing by requirements in a real study."""

from __future__ import annotations

import math
import sqlite3
import warnings

import pytest

from tests.classified import classified_study
from tests.toy import CALIBRATION, toy_model, toy_study
from workbench import Decision, PromptAnswers, Requirements, Study
from workbench.errors import ConfigError, StudyError
from workbench.recipes import RTN
from workbench.selection.quality import is_measured


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with toy_study(tmp_path_factory.mktemp("toy") / "study") as study:
        study.sweep([RTN(8, group_size=8), RTN(2, group_size=8)])
        yield study


@pytest.mark.parametrize("metric", ["perplexity", "mean_loss"])
def test_a_study_decides_by_any_metric(study, metric):
    found = study.choose(Requirements(0.5), metric=metric)
    assert isinstance(found, Decision)
    assert len(found.verdicts) == 2
    assert found.surely == (found.run is not None)
    assert found.answer == "passes"
    assert {v.method for v in found.verdicts} == {"paired"}
    assert found.run.size_bytes == min(v.run.size_bytes for v in found.verdicts)


def test_its_table_has_a_row_per_candidate_and_its_words_are_printed(study):
    found = study.choose(Requirements(0.999), metric="perplexity")
    table = found.table()
    assert list(table["run"]) == [v.run.id for v in found.verdicts]
    assert set(table["answer"]) <= {"passes", "fails", "unclear"}
    assert str(found) == found.nearest


def test_a_number_is_judged_by_the_measured_value_and_has_the_same_kind_of_answer(study):
    found = study.choose(0.5, metric="perplexity")
    assert isinstance(found, Decision)
    assert found.answer == "passes"
    assert found.run.size_bytes == min(v.run.size_bytes for v in found.verdicts)
    assert {v.p_value for v in found.verdicts} == {None}
    assert found.requirements == Requirements(0.5, confidence=None)
    assert found == study.choose(Requirements(0.5, confidence=None), metric="perplexity")
    assert len(found.table()) == 2


def test_an_empty_study_has_a_sensible_answer(tmp_path):
    with toy_study(tmp_path / "empty") as empty:
        found = empty.choose(Requirements(0.9))
        assert (found.run, found.answer, found.verdicts) == (None, "unclear", ())
        assert "No run can be chosen" in found.nearest
        with pytest.raises(StudyError):
            empty.choose(0.9)


def test_limits_belong_into_requirements(study):
    with pytest.raises(ConfigError, match="part of Requirements"):
        study.choose(Requirements(0.9), size_bytes=5)


def test_an_interval_is_paired_whatever_the_metric_is_called(tmp_path):
    rows = {
        "prompt": [f"the {word} {i}" for i, word in enumerate(["fox", "dog", "quick"] * 40)],
        "answer": ["lazy dog", "fox", "over the"] * 40,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = PromptAnswers(rows, sequence_length=32)
    with Study(toy_model(), task, tmp_path / "study", calibration=CALIBRATION) as study:
        run = study.run([RTN(2, group_size=8)])
        table = run.outcomes()
        assert "exact" in table
        for metric in ("answer_perplexity", "kl", "token_accuracy", "exact_match"):
            bar = run.record.measurement(metric).value
            found = study.choose(Requirements(bar * 1.1 + 1.0, relative=False), metric=metric)
            assert {v.method for v in found.verdicts} == {"own"}
        found = study.choose(0.5, metric="answer_perplexity")
        assert found.interval.method == "paired"
        errors = [r.record.measurement("answer_perplexity") for r in (run, study.baseline())]
        alone = sum((m.stderr / m.value) ** 2 for m in errors) ** 0.5
        assert found.interval.high - found.interval.low < 3 * alone


def test_what_an_earlier_definition_measured_is_computed_again(tmp_path):
    path = tmp_path / "study"
    with classified_study(path) as study:
        run = study.run([RTN(2, group_size=8)])
        right = run.record.measurement("macro_f1")
        assert right.version == 2
    for gone in (False, True):
        db = sqlite3.connect(path / "study.sqlite")
        db.execute("UPDATE measurements SET version = 1, value = 0.5 WHERE metric = 'macro_f1'")
        db.commit()
        db.close()
        if gone:
            (path / "outcomes" / f"{run.id}.npz").unlink()
        study = Study.open(path)
        found = next(r for r in study.records if r.id == run.id).measurement("macro_f1")
        assert found.version == 2
        assert math.isnan(found.value) if gone else found.value == pytest.approx(right.value)
        assert study.baseline().record.measurement("macro_f1").value > 0.5
    assert study.choose(0.5, metric="macro_f1").run is None
    assert not is_measured(found_record(study, run.id), study.metrics[1])


def found_record(study, id):
    return next(record for record in study.records if record.id == id)


def test_quality_may_refer_to_any_run(study):
    eight, two = (run for run in study.runs if run.recipe.steps)
    found = study.choose(0.5, metric="perplexity", reference=two)
    assert found.run.id == eight.id or found.run.id == study.baseline().id
    assert found.quality > 1, "both are better than the run of two bits"
    sure = study.choose(Requirements(0.97, reference=two), metric="perplexity")
    assert f"of run {two.id}'s quality" in sure.nearest
    assert {v.answer for v in sure.verdicts} == {"left out"}, "both are larger than the reference"
    assert f"is not smaller than {two.label} (run {two.id})" in sure.nearest
    with pytest.raises(StudyError, match="no run of the study"):
        study.choose(0.5, reference="nothing")
    with pytest.raises(ConfigError, match="refers to no run"):
        Requirements(3, relative=False, reference=two)
