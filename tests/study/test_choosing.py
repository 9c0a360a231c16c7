"""Tests of choosing by requirements in a real study."""

from __future__ import annotations

import pytest

from tests.toy import toy_study
from workbench import Decision, Requirements
from workbench.errors import ConfigError, StudyError
from workbench.recipes import RTN


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


def test_a_number_is_judged_as_before(study):
    found = study.choose(0.5, metric="perplexity")
    assert not isinstance(found, Decision)
    assert found.run is not None


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
