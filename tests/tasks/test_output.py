"""Tests of what a task answers, as the tasks say it and as studies recorded it."""

from __future__ import annotations

import warnings

import pytest

from tests.classified import classified_task
from tests.toy import toy_task
from workbench.tasks import Extraction, PromptAnswers, Summarization
from workbench.tasks.output import Output, recorded_output

ROWS = {
    "text": [f"text {i}" for i in range(40)],
    "prompt": [f"{i} + 1 =" for i in range(40)],
    "answer": [str(i + 1) for i in range(40)],
    "summary": [f"short {i}" for i in range(40)],
}


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (classified_task, Output.LABELS),
        (toy_task, Output.TOKENS),
        (lambda: PromptAnswers(ROWS), Output.TOKENS),
        (lambda: Extraction(ROWS), Output.TEXT),
        (lambda: Summarization(ROWS), Output.TEXT),
    ],
)
def test_a_task_says_it_and_saves_it(make, output, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = make()
    saved = task.save(tmp_path)
    assert task.output is output
    assert saved["output"] == output.value
    assert recorded_output(saved) is output
    del saved["output"]  # as earlier versions saved it
    assert recorded_output(saved) is output
    assert bool(task.labels) == output.classifies


@pytest.mark.parametrize(
    ("output_type", "output"),
    [
        ("multiple_choice", Output.CHOICES),
        ("generate_until", Output.TEXT),
        ("loglikelihood", Output.TOKENS),
        ("loglikelihood_rolling", Output.TOKENS),
    ],
)
def test_tasks_of_the_harness_that_earlier_versions_saved(output_type, output) -> None:
    saved = {"kind": "lm_eval", "options": {"output_type": output_type}}
    assert recorded_output(saved) is output
