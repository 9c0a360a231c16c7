"""A small study of a classification task, and outcomes of classifiers made by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions
from workbench.models.load import load_model
from workbench.study import Study
from workbench.tasks import TextClassification
from workbench.tasks.outcomes import Outcomes

COLOURS = ("blue", "green", "red")


def rows(n: int = 600, seed: int = 0) -> dict[str, list[str]]:
    """Return texts that name a colour, sometimes another one too, with their channel."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 3, n)
    other = np.where(rng.random(n) < 0.3, (code + 1) % 3, code)
    noise = ["".join(rng.choice(list("abcdef"), rng.integers(3, 20))) for _ in range(n)]
    parts = zip(code, noise, other, strict=True)
    return {
        "text": [f"{COLOURS[c]} {x} {COLOURS[o]} {i}" for i, (c, x, o) in enumerate(parts)],
        "label": [COLOURS[c] for c in code],
        "channel": [str(name) for name in rng.choice(["mail", "<phone>"], n)],
    }


def classified_task(**options: Any) -> TextClassification:
    """Return the task; half of its rows are in the evaluation part."""
    table = rows()
    parts = {"calibration": (0, 200), "validation": (200, 300), "evaluation": (300, 600)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(
            **{p: {k: v[a:b] for k, v in table.items()} for p, (a, b) in parts.items()},
            columns=("channel",),
            name="colours",
            **options,
        )


def classified_study(path: Path) -> Study:
    """Return a study of a tiny encoder of random weights, with a head that is trained."""
    hf_model = tiny_model("BertModel")
    hf_model.config._name_or_path = "tiny-<b>ert"
    model = load_model(hf_model, tiny_tokenizer())
    few = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=32)
    return Study(model, classified_task(), path, calibration=few)


def outcomes(label: Any, logs: Any, *, document: Any = None) -> Outcomes:
    """Return the outcomes of a classifier from its log-probabilities (examples, classes)."""
    logs = np.asarray(logs, dtype=np.float64)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    n = len(logs)
    return Outcomes(
        {
            "example": np.arange(n),
            "document": np.arange(n) if document is None else np.asarray(document),
            "loss": -logs[np.arange(n), np.asarray(label)],
            "n_predictions": np.ones(n, dtype=np.int64),
            "kl": np.zeros(n),
            "label": np.asarray(label),
            "prediction": logs.argmax(axis=1),
            "confidence": np.exp(logs.max(axis=1)),
            "log_probabilities": logs.astype(np.float16),
        }
    )


def classifier(n: int, skill: float, *, seed: int, hard: Any = None, classes: int = 4) -> Outcomes:
    """Return a classifier whose logits are noise plus its skill, less of it on hard examples."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    logits = rng.normal(0, 1, (n, classes))
    strength = np.full(n, skill) if hard is None else np.where(hard, 0.3 * skill, skill)
    logits[np.arange(n), label] += strength
    return outcomes(label, logits)
