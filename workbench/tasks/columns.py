"""Which columns of a table look like texts, labels, summaries and answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

LABELS = ("label", "labels", "intent", "category", "class", "target", "sentiment", "topic")
SUMMARIES = ("summary", "highlights", "abstract", "headline", "target", "title")
ANSWERS = ("answer", "answers", "target", "output", "value", "extracted")
SCORES = ("score", "similarity", "similarity_score", "relatedness", "label")
NUMBERS = ("id", "index", "row", "uid", "document")

Columns = Mapping[str, Sequence[str]]
"""Values by column, as text; a missing value is an empty one."""


def guess_text(columns: Columns) -> str:
    """Return the column that looks like the texts: the longest."""
    lengths = _lengths(columns)
    return max(lengths, key=lambda name: lengths[name])


def guess_label(columns: Columns) -> str:
    """Return the column that looks most like labels: by its name, and by values that come again.

    A column that is mostly empty, has one value, or another one in every row, is no likely one.
    """
    others = _others(columns)
    return max(others, key=lambda name: _labelness(name, columns[name], others.index(name)))


def guess_summary(columns: Columns) -> str:
    """Return the column that looks like summaries: by its name, or the longest after the texts."""
    others, lengths = _others(columns), _lengths(columns)
    named = [name for name in others if name.strip().lower() in SUMMARIES]
    return (named or [max(others, key=lambda name: lengths[name])])[0]


def guess_fields(columns: Columns) -> tuple[str, ...]:
    """Return the columns that look like what is written out of the texts."""
    others = _others(columns)
    named = [name for name in others if name.strip().lower() in ANSWERS]
    kept = [name for name in others if name.strip().lower() not in NUMBERS]
    return tuple(named or kept or others)


def guess_pair(columns: Columns) -> tuple[str, str, str]:
    """Return the columns that look like two texts and the score of their likeness.

    The texts are the two longest of what is not all numbers, in the table's order.
    """
    lengths = _lengths(columns)
    numbers = [n for n, v in columns.items() if all(map(_is_number, filter(str.strip, v)))]
    texts = sorted((n for n in columns if n not in numbers), key=lambda name: -lengths[name])
    pair = [name for name in columns if name in (texts or list(columns))[:2]]
    scores = [n for n in numbers if n.strip().lower() not in NUMBERS] or numbers or list(columns)
    named = [name for name in scores if name.strip().lower() in SCORES]
    return pair[0], pair[-1], (named or scores)[0]


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _labelness(name: str, values: Sequence[str], place: int) -> tuple[float, float, float, int]:
    filled = [value for value in values if value.strip()]
    counts = Counter(filled)
    again = sum(count for count in counts.values() if count > 1) / max(1, len(filled))
    share = len(filled) / max(1, len(values))
    likely = len(counts) > 1 and again >= 0.5 and share >= 0.5
    named = name.strip().lower() in LABELS
    return (float(likely) + float(named and len(counts) > 1 and share >= 0.2), float(named),
            share * again, place)  # fmt: skip


def _lengths(columns: Columns) -> dict[str, float]:
    return {name: sum(map(len, values)) / max(1, len(values)) for name, values in columns.items()}


def _others(columns: Columns) -> list[str]:
    text = guess_text(columns)
    return [name for name in columns if name != text] or [text]
