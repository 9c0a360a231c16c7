"""What the terminal says of a task is the task that is made."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
import torch

from tests.cli.test_cli import run
from tests.tasks.test_generation import table
from tests.tasks.test_vectors import beir_folder, pairs
from tests.tiny import tiny_folder
from workbench.cli.tasks import TaskOptions, task_of
from workbench.errors import ConfigError
from workbench.records import RunState
from workbench.study import Study
from workbench.tasks import (
    Extraction,
    PromptAnswers,
    Retrieval,
    SentenceSimilarity,
    Summarization,
    TextClassification,
)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "pairs.csv"
    pd.DataFrame(table()).to_csv(path, index=False)
    return str(path)


def made(csv, **told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return task_of(csv, TaskOptions(**told))


def test_a_table_becomes_the_kind_of_task_that_is_asked_for(csv):
    assert type(made(csv, text="text", label="name")) is TextClassification
    fields = made(csv, text="text", target="name, amount", shots=2, template="Read: {text}")
    assert type(fields) is Extraction
    assert fields.rows["evaluation"][0].target.startswith("name: ")
    assert (fields.options["shots"], fields.options["template"]) == (2, "Read: {text}")
    summary = made(csv, kind="summarization", text="text", target="name", shots=0)
    assert type(summary) is Summarization
    answers = made(csv, kind="answers", text="text", target="name")
    assert type(answers) is PromptAnswers
    assert answers.rows["evaluation"][0].label in table()["name"]


def test_pairs_with_a_score_are_similarity(tmp_path):
    path = tmp_path / "sts.csv"
    pd.DataFrame(pairs()).to_csv(path, index=False)
    told = {"kind": "similarity", "text": "text", "target": "other", "label": "score"}
    task = made(str(path), **told)
    assert type(task) is SentenceSimilarity
    assert task.fingerprint == SentenceSimilarity(str(path)).fingerprint
    with pytest.raises(ConfigError, match="--target sentence2 --label score"):
        made(str(path), **(told | {"label": None}))


def test_a_folder_of_beir_is_retrieval(tmp_path):
    folder = beir_folder(tmp_path / "facts")
    assert type(made(str(folder))) is Retrieval
    with pytest.raises(ConfigError, match="are for a table"):
        made(str(folder), text="text")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"kind": "translation"}, "classification, extraction, summarization, answers, similarity"),
        ({"kind": "extraction", "text": "text"}, "--text letter --target name"),
        ({"text": "text"}, "--text question --label intent"),
        ({"text": "text", "target": "name", "label": "name"}, "--label has no meaning"),
        ({"text": "text", "label": "name", "shots": 1}, "--shots has no meaning"),
        (
            {"kind": "answers", "text": "text", "target": "name", "template": "{text}"},
            "--template has no meaning",
        ),
    ],
)
def test_what_does_not_fit_is_refused(csv, told, said):
    with pytest.raises(ConfigError, match=said):
        made(csv, **told)
    with pytest.raises(ConfigError, match="are for a table"):
        made("corpus.txt", kind="extraction")


def test_an_encoder_decoder_is_swept_in_the_terminal(csv, tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "t5", "T5", dtype=torch.float32)
    out = ["--study", str(tmp_path / "study"), "--html", str(tmp_path / "plot.html")]
    asked = ["--text", "text", "--target", "name", "--shots", "0"]
    settings = ["--methods", "gptq", "--bits", "4", "--group-sizes", "16"]
    code = run(monkeypatch, "sweep", "--model", str(folder), "--task", csv, *asked, *settings, *out)
    assert code == 0
    assert (tmp_path / "plot.html").stat().st_size > 1000
    study = Study.open(tmp_path / "study")
    assert [r.state for r in study.records] == [RunState.DONE] * 2
    assert type(study.task) is Extraction
