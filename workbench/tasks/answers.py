"""What a task answers: labels, choices, tokens or text. Everything that depends on it asks here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Answers(enum.Enum):
    """What one example of a task is answered by.

    Attributes
    ----------
    LABELS
        One label per example, which a head reads from all its tokens together.
    CHOICES
        One of given answers per example, the likeliest one by its tokens.
    TOKENS
        Next tokens of given texts.
    TEXT
        Text that the model writes.
    """

    LABELS = "labels"
    CHOICES = "choices"
    TOKENS = "tokens"
    TEXT = "text"

    @property
    def classifies(self) -> bool:
        """Whether every example has one label and one prediction, as trust and cascades need."""
        return self in (Answers.LABELS, Answers.CHOICES)


HARNESS = {"multiple_choice": Answers.CHOICES, "generate_until": Answers.TEXT}
"""Of the harness's output types; all others predict tokens."""

_BEFORE = {
    "text_classification": Answers.LABELS,
    "extraction": Answers.TEXT,
    "summarization": Answers.TEXT,
}


def recorded_answers(saved: Mapping[str, Any]) -> Answers:
    """Return what a saved task answers; earlier versions did not record it.

    Parameters
    ----------
    saved : mapping
        What ``task.save`` returned.
    """
    if "answers" in saved:
        return Answers(saved["answers"])
    harness = HARNESS.get(saved["options"].get("output_type"), Answers.TOKENS)
    return _BEFORE.get(saved["kind"], harness)
