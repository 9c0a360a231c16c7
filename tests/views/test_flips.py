"""Tests of flips, the confusion matrix and the table of differences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.app.fake import record
from workbench.errors import StudyError
from workbench.recipes import GPTQ, RTN
from workbench.records import Metric, RunState
from workbench.tasks.outcomes import Outcomes
from workbench.views import FlipsView, confusion, differences, flips


def classified(predictions, labels=(0, 1, 2, 1), losses=(1.0, 1.0, 1.0, 1.0), examples=None):
    n = len(predictions)
    return Outcomes(
        {
            "example": np.arange(n) if examples is None else np.array(examples),
            "document": np.arange(n),
            "loss": np.array(losses[:n], dtype=float),
            "n_predictions": np.ones(n, dtype=np.int64),
            "label": np.array(labels[:n]),
            "prediction": np.array(predictions),
        }
    )


def test_flips_are_better_worse_or_wrong_in_another_way():
    before = classified([0, 0, 0, 1])
    after = classified([1, 1, 1, 1], losses=(3.0, 0.5, 1.1, 1.0))
    view = flips(before, after, names=("a", "b"), labels=("x", "y", "z"))
    assert view.counts == {"worse": 1, "better": 1, "other": 1}
    assert view.n_examples == 4
    assert [row.example for row in view.rows] == [0, 1, 2]  # the largest change of loss first
    first = view.rows[0]
    assert (first.change, first.expected, first.before, first.after) == ("worse", "x", "x", "y")
    assert view.with_texts({0: "hello"}).rows[0].text == "hello"
    assert list(view.table.index) == [0, 1, 2]


def test_examples_are_matched_by_their_number():
    before = classified([0, 1], labels=(0, 1), examples=[5, 7])
    after = classified([1, 0], labels=(1, 0), examples=[7, 5])
    assert flips(before, after).rows == ()
    with pytest.raises(StudyError, match="no common example"):
        flips(before, classified([1], labels=(1,), examples=[9]))


def test_windows_of_a_language_model_change_by_their_loss():
    def windows(losses, right):
        columns = classified([0, 0], losses=losses).columns
        del columns["label"], columns["prediction"]
        return Outcomes(columns | {"n_correct": np.array(right), "n_predictions": np.array([2, 4])})

    view = flips(windows([2.0, 4.0], [1, 2]), windows([4.0, 2.0], [0, 3]))
    assert not view.is_classified
    assert [(row.change, row.loss_before, row.loss_after) for row in view.rows] == [
        ("worse", 1.0, 2.0),
        ("better", 1.0, 0.5),
    ]
    assert view.rows[0].before == "1 right"
    assert view.rows[1].expected == "4 tokens"


def test_flips_travel_as_json():
    view = flips(classified([0, 0, 0, 1]), classified([1, 1, 1, 1]))
    assert FlipsView.from_dict(json.loads(json.dumps(view.to_dict()))) == view


def test_confusion_counts_by_label_and_prediction():
    view = confusion(classified([0, 1, 1, 0]), labels=("x", "y", "z"))
    assert view.counts == ((1, 0, 0), (1, 1, 0), (0, 1, 0))
    assert view.table.loc["z", "y"] == 1
    shares = view.plot().data[0].z
    assert list(shares[1]) == [0.5, 0.5, 0]


def test_labels_that_look_alike_or_like_numbers_have_cells_of_their_own():
    long = "a label that is much longer than what there is room for, number "
    labels = (long + "1", long + "2", "7", "<b>")
    drawn = confusion(classified([0, 1, 2, 3]), labels=labels).plot()
    assert len(set(drawn.data[0].x)) == len(set(drawn.data[0].y)) == 4
    assert list(drawn.layout.xaxis.ticktext)[2:] == ["7", "&lt;b&gt;"]
    assert long + "2" in drawn.data[0].hovertext[0][1]


def test_many_labels_are_cut_to_those_that_are_mistaken():
    labels = np.arange(60)
    predictions = labels.copy()
    predictions[10], predictions[20] = 20, 10
    view = confusion(classified(predictions, labels=labels, losses=np.ones(60)), most=5)
    assert len(view.labels) == 5
    assert {"10", "20", "other"} <= set(view.labels)
    assert sum(map(sum, view.counts)) == 60


def test_a_language_model_has_no_confusion_matrix():
    columns = classified([0]).columns
    del columns["label"]
    with pytest.raises(StudyError, match="needs a classification task"):
        confusion(Outcomes(columns))


def test_differences_mark_the_rows_that_differ():
    failed = record("f", None, None, RTN(2), state=RunState.FAILED, error="no memory")
    table = differences(
        [record("a", 1_000_000, 0.9, GPTQ(4)), record("b", 900_000, 0.9, RTN(4)), failed],
        [Metric("accuracy")],
    )
    assert list(table.loc["size", [0, 1, 2]]) == ["1.00 MB", "0.90 MB", "–"]
    assert table.loc["accuracy", 0] == "0.9 ± 0.02"
    assert not table.loc["model", "differs"]
    assert table.loc["recipe", "differs"]
    assert table.loc["error", 2] == "no memory"
