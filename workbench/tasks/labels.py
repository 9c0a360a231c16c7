"""The order of labels: codes mean the same after every restart."""

from __future__ import annotations

from collections.abc import Iterable

UNORDERED = (
    "this study was made by a version that gave labels which are one integer (such as 007 and 7)"
    " codes by chance, another one after every restart, so its stored accuracies and flips cannot"
    " be told apart from mistakes; run it again in another folder."
)


def ordered_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels in the order of their numbers if all are integers, else of their text.

    Those that are one integer (007 and 7) are in the order of their text: never in that of a set.

    >>> ordered_labels({"10", "9", "09"})
    ('09', '9', '10')
    """
    found = set(labels)
    try:
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(found))


def were_unordered(labels: Iterable[str]) -> bool:
    """Return whether the order was left to chance where it was that of the numbers alone."""
    found = set(labels)
    try:
        return len({int(label) for label in found}) < len(found)
    except ValueError:
        return False
