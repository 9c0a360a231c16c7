from __future__ import annotations

import warnings

import pytest

from workbench.demo import stdlib
from workbench.demo.topics import topic_rows
from workbench.tasks import TextClassification, load_task


@pytest.fixture(scope="module")
def task() -> TextClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no text of one part is in another
        found = load_task("stdlib-topics")
    assert isinstance(found, TextClassification)
    return found


def test_parts_are_whole_modules_and_the_evaluation_part_was_never_seen(task):
    modules = {part: {row.document for row in rows} for part, rows in task.rows.items()}
    assert modules["evaluation"] <= stdlib.held_out_modules()
    assert not modules["calibration"] & stdlib.held_out_modules()
    assert modules["validation"] <= stdlib.held_out_modules("validation")
    assert not modules["evaluation"] & modules["validation"]


def test_every_part_has_all_seven_areas(task):
    assert task.labels == tuple(sorted(stdlib.AREAS))
    for part, rows in task.rows.items():
        assert {row.label for row in rows} == set(stdlib.AREAS), part
    counts = {part: len(rows) for part, rows in task.rows.items()}
    assert counts["calibration"] > 2000
    assert counts["evaluation"] > 500
    assert 0.03 < counts["validation"] / counts["calibration"] < 0.25


def test_no_text_is_there_twice(task):
    texts = [row.text.lower() for rows in task.rows.values() for row in rows]
    assert len(set(texts)) == len(texts)


def test_it_is_equal_every_time(task):
    rows = topic_rows()
    again = TextClassification(**rows, document="document", sequence_length=64)
    assert again.fingerprint == task.fingerprint
