"""Names of runs that tell them apart, however little room there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from workbench.recipes.recipe import shortened
from workbench.records import RunRecord


def run_name(record: RunRecord) -> str:
    """Return the name that the user gave a run, else its recipe with the last step first.

    Such as ``"GPTQ 4-bit g128 ← Distillation"``.
    """
    if record.annotation.name:
        return record.annotation.name
    steps = [step.label for step in reversed(record.recipe.steps)]
    return " ← ".join(steps) if steps else f"{record.model} (dense)"


def run_names(records: Iterable[RunRecord], most: int = 1000) -> dict[str, str]:
    """Return names by run id that differ wherever the runs do.

    Parameters
    ----------
    records : iterable of RunRecord
    most : int
        Characters of a name; one that would be cut to the same text as another is longer.
    """
    records = list(records)
    several = len({record.model for record in records}) > 1
    names = [
        f"{run_name(record)} of {record.model}"
        if several and record.recipe.steps
        else run_name(record)
        for record in records
    ]
    return dict(zip((r.id for r in records), distinct(names, most), strict=True))


def distinct(names: Sequence[str], most: int) -> list[str]:
    """Return names of at most so many characters, longer only where two would become equal.

    Of names that begin and end alike, what they have in common is left out first.
    """
    short = [shortened(name, most) for name in names]
    for text, count in Counter(short).items():
        alike = [place for place, other in enumerate(short) if other == text]
        if count > 1 and len({names[place] for place in alike}) > 1:
            for place, own in zip(alike, _differing([names[i] for i in alike]), strict=True):
                short[place] = own
    return short


def _differing(names: Sequence[str]) -> list[str]:
    """Return the first word of each name and what differs between them."""
    words = [name.split(" ") for name in names]
    shortest = min(map(len, words))
    start = 0
    while start < shortest - 1 and len({w[start] for w in words}) == 1:
        start += 1
    end = 0
    while end < shortest - start - 1 and len({w[-1 - end] for w in words}) == 1:
        end += 1
    found = []
    for own in words:
        head = " ".join(own[: min(start, 2)])
        middle = " ".join(own[start : len(own) - end])
        found.append(f"{head}{' … ' if start > 2 else ' '}{middle}{' …' if end else ''}".strip())
    return found if len(set(found)) == len(set(names)) else list(names)
