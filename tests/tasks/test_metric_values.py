"""Accuracy, F1 and exact match on tables with odd rows are what scikit-learn and SQuAD say."""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.models.load import load_model
from workbench.tasks import Extraction, TextClassification

ODD = {
    "numbers and zeros": ("7", "007", "07", "None"),
    "cases and spaces": ("Spam", "spam", "not spam", "nan"),
    "scripts": ("हाँ", "نعم", "是", "😀"),
}


@pytest.mark.parametrize("labels", ODD.values(), ids=list(ODD))
def test_classification(labels: tuple[str, ...]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    codes = generator.integers(0, len(labels), 120)
    data = {
        "text": [f"{'wxyz'[c] * 3} text {i}" for i, c in enumerate(codes)],
        "label": [f" {labels[c]} " if i % 7 == 0 else labels[c] for i, c in enumerate(codes)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = TextClassification(data)
    model = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    outcomes = task.evaluate(model)
    wanted = [row.label for row in task.rows["evaluation"]]
    found = task.classify(model, [row.text for row in task.rows["evaluation"]])
    values = {m.metric: m.value for m in task.measure(outcomes)}
    assert values["accuracy"] == pytest.approx(sklearn.accuracy_score(wanted, found))
    expected = sklearn.f1_score(wanted, found, labels=sorted({*wanted, *found}), average="macro")
    assert values["macro_f1"] == pytest.approx(expected)


def squad_words(text: str) -> list[str]:
    """SQuAD's evaluation (Rajpurkar et al. 2016), its removal of articles left out."""
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\s+", " ", plain).split()


@pytest.mark.parametrize(
    "pairs",
    [
        [("Ada Lovelace", "ada lovelace"), ("Ada", "Ada Lovelace"), ("", "Ada"), ("", "")],
        [("New York.", "new york"), ("the old town", "old town!"), ("a a b", "a b b")],
        [("हिन्दी भाषा", "हिन्दी भाषा"), ("हिन्दी", "हिन्दी भाषा"), ("12 May", "12 may")],
    ],
)
def test_answers(pairs: list[tuple[str, str]]) -> None:
    data: dict[str, Any] = {"text": [f"t {i}" for i in range(20)], "answer": ["x"] * 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Extraction(data, shots=0)
    for answer, target in pairs:
        mine, theirs = squad_words(answer), squad_words(target)
        common = sum((Counter(mine) & Counter(theirs)).values())
        f1 = 2 * common / (len(mine) + len(theirs)) if mine or theirs else 1.0
        found = task.scores(answer, target)
        assert found["exact_match"] == float(mine == theirs)
        assert found["f1"] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("-12", "12"),
        ("C++", "C#"),
        ("😀", "😃"),
        ("€5", "$5"),
        ("हिन्दी", "हन्द"),
        ("?", "!"),
        ("?", ""),
    ],
)
def test_answers_that_differ_are_not_equal(answer: str, target: str) -> None:
    data: dict[str, Any] = {"text": [f"t {i}" for i in range(20)], "answer": ["x"] * 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Extraction(data, shots=0)
        strict = Extraction(data, shots=0, punctuation=True)
    assert task.scores(answer, target)["exact_match"] == 0.0
    assert task.scores(f"{target}.", target)["exact_match"] == (1.0 if target not in "!" else 0.0)
    assert strict.scores("It's.", "Its")["exact_match"] == 0.0
    assert strict.fingerprint != task.fingerprint
