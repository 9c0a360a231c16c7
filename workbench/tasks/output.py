"""What a task answers: labels, choices, tokens or text. Everything that depends on it asks here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Output(enum.Enum):
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
    VECTORS
        One vector per text, which all its tokens make together.
    """

    LABELS = "labels"
    CHOICES = "choices"
    TOKENS = "tokens"
    TEXT = "text"
    VECTORS = "vectors"

    @property
    def classifies(self) -> bool:
        """Whether every example has one label and one prediction, as trust and cascades need."""
        return self in (Output.LABELS, Output.CHOICES)

    @property
    def is_pooled(self) -> bool:
        """Whether one prediction is read from all tokens of an example together."""
        return self in (Output.LABELS, Output.VECTORS)


HARNESS = {"multiple_choice": Output.CHOICES, "generate_until": Output.TEXT}
"""Of the harness's output types; all others predict tokens."""

_BEFORE = {
    "text_classification": Output.LABELS,
    "extraction": Output.TEXT,
    "summarization": Output.TEXT,
}


def recorded_output(saved: Mapping[str, Any]) -> Output:
    """Return what a saved task answers; earlier versions did not record it.

    Parameters
    ----------
    saved : mapping
        What ``task.save`` returned.
    """
    if "output" in saved:
        return Output(saved["output"])
    harness = HARNESS.get(saved["options"].get("output_type"), Output.TOKENS)
    return _BEFORE.get(saved["kind"], harness)
