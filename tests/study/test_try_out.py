"""What several runs make of one text."""

from __future__ import annotations

import pytest

from tests.toy import toy_study
from workbench.errors import ConfigError
from workbench.recipes import RTN
from workbench.study.inspector import answers


def test_a_classifier_says_its_label_and_how_sure_it_is(study, small):
    base = study.baseline()
    found = study.try_out("green abc", [base, small])
    assert list(found.index) == [base.id, small.id]
    for run in (base, small):
        model = study.model(run)
        sure = study.task.probabilities(model, ["green abc"])[0]
        assert sure.sum() == pytest.approx(1)
        row = found.loc[run.id]
        assert row["answer"] == study.task.classify(model, ["green abc"])[0]
        assert row["confidence"] == pytest.approx(sure.max())
        assert 0 < row["seconds"] < 60
        assert row["size_mb"] == run.size_mb
    assert found["memory_mb"].isna().all(), "nothing was measured"
    (told,) = answers(study, lambda _: None, "red", [small.id], 5)
    assert (told["run"], told["memory_mb"]) == (small.id, None)
    with pytest.raises(ConfigError, match="some words"):
        study.try_out(" ", [base])


def test_a_decoder_goes_on_from_the_text(tmp_path):
    with toy_study(tmp_path / "study") as study:
        run = study.run(RTN(4, group_size=8))
        row = study.try_out("the fox", [run], max_new_tokens=5).loc[run.id]
        assert row["answer"] == study.side_by_side("the fox", [run], max_new_tokens=5)[run.id]
        assert row["confidence"] is None
