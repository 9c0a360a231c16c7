"""Toy classification: which of three words a text repeats, so that a tiny model can learn it."""

from __future__ import annotations

import random
import warnings
from typing import Any

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.models.load import LoadedModel, load_model
from workbench.tasks import TextClassification

WORDS = ("fox", "dog", "cow")


def class_task(n: int = 120, **options: Any) -> TextClassification:
    """Return a task of three balanced labels."""
    rng = random.Random(0)
    rows = {"text": [], "label": []}
    for i in range(n):
        word = WORDS[i % 3]
        rows["text"].append(" ".join([word] * rng.randint(2, 5)) + f" {i % 7}")
        rows["label"].append(word)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(rows, sequence_length=24, name="words", **options)


def encoder(seed: int = 0) -> LoadedModel:
    """Return a tiny live encoder."""
    return load_model(tiny_model("BertModel", seed=seed), tiny_tokenizer())


def decoder(seed: int = 0) -> LoadedModel:
    """Return a tiny live decoder."""
    return load_model(tiny_model(seed=seed), tiny_tokenizer())
