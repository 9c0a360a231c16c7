"""The verdict on every run, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from workbench.app.parts.rows import Heads, Row

if TYPE_CHECKING:
    from workbench.selection.decision import Verdict

HEADS: Heads = [
    ("run", "text"), ("MB", ""), ("answer", "wrap"), ("quality", ""), ("95 % interval", ""),
]  # fmt: skip


def verdict_rows(verdicts: Iterable[Verdict], first: str) -> list[Row]:
    """Return one row per candidate, whose cells are made when it is shown.

    Parameters
    ----------
    verdicts : iterable of Verdict
    first : str
        Name of the base model that need not be named.
    """
    return [(verdict.run.id, partial(_cells, verdict, first)) for verdict in verdicts]


def _cells(verdict: Verdict, first: str) -> list[str]:
    run, between = verdict.run, verdict.interval
    return [
        run.label if run.model == first else f"{run.model}, {run.label}",
        f"{(run.size_bytes or 0) / 1e6:.2f}",
        _answer(verdict),
        "–" if verdict.quality is None else f"{verdict.quality:.1%}",
        "–" if between is None else f"{between.low:.1%} to {between.high:.1%}",
    ]


def _answer(verdict: Verdict) -> str:
    """Return the answer, and why where the column of the quality does not say it."""
    if verdict.answer == "passes":
        return "✓ passes"
    why = "" if verdict.p_value is not None else f": {'; '.join(verdict.lacks)}"
    if verdict.answer == "left out":
        return f"○ left out{why}"
    if verdict.answer == "fails":
        return f"✕ fails{why}"
    if not why and not verdict.method:
        why = ": its value has no standard error"
    if why:
        return f"? unclear{why}"
    enough = verdict.enough_examples
    more = "no number would do, so near is it" if enough is None else f"about {enough:,} would do"
    return f"? {verdict.n_examples:,} examples are too few; {more}"
