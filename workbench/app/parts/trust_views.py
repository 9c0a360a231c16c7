"""What each view of a run's trust shows: a sentence, a table, and a figure where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from workbench.app.parts.rows import rows_html
from workbench.selection.trust import TrustView
from workbench.views.figures import reliability_figure

SURE = 0.05
"""A slice's harm is called sure below this adjusted p-value."""
_SIGNS = {"lost": "▼ lost", "gained": "▲ gained", "other": "◆ other"}


@dataclass(frozen=True)
class View:
    """One view.

    Attributes
    ----------
    about : str
        What it shows.
    words, rows : callable
        Take what was found; return a sentence, and a table as HTML in which all text is escaped.
    figure : callable or None
    """

    about: str
    words: Callable[[TrustView], str]
    rows: Callable[[TrustView], str]
    figure: Callable[[TrustView], go.Figure] | None = None


def _calibration_words(found: TrustView) -> str:
    before, after = found.before, found.after
    verdict = "too sure of itself" if found.temperature > 1 else "not sure enough"
    return (
        f"Its confidence is off by {before.error:.1%} on average (expected calibration error), by"
        f" {after.error:.1%} once divided by the temperature {found.temperature:.2f}, which was"
        f" fitted on the validation part: the model is {verdict}. It is right in"
        f" {before.accuracy:.1%} and says {before.confidence:.1%}."
    )


def _calibration_rows(found: TrustView) -> str:
    heads = [
        ("confidence from", ""), ("to", ""), ("examples", ""), ("says", ""), ("is right", ""),
        ("off by", ""), ("at the temperature: says", ""), ("is right", ""),
    ]  # fmt: skip
    rows: list[tuple[str, list[object]]] = []
    for one, other in zip(found.before.bins, found.after.bins, strict=True):
        if not one.n and not other.n:
            continue
        plain = [f"{one.confidence:.1%}", f"{one.accuracy:.1%}"] if one.n else ["–", "–"]
        off = f"{one.accuracy - one.confidence:+.1%}" if one.n else "–"
        scaled = [f"{other.confidence:.1%}", f"{other.accuracy:.1%}"] if other.n else ["–", "–"]
        rows.append(("", [f"{one.low:.0%}", f"{one.high:.0%}", one.n, *plain, off, *scaled]))
    return rows_html(heads, rows)


def _mistake_words(found: TrustView) -> str:
    low, high = found.wrong_interval
    n = len(found.mistakes)
    listed = "one is" if n == 1 else f"{n or 'none'} are"
    return (
        f"It is wrong and at least {found.threshold:.0%} sure in {found.wrong_rate:.1%} of the"
        f" examples ({low:.1%} to {high:.1%}); {listed} listed, the surest first."
    )


def _mistake_rows(found: TrustView) -> str:
    heads = [("text", "wrap"), ("expected", "text"), ("answer", "text"), ("confidence", "")]
    rows: list[tuple[str, list[object]]] = [
        ("", [one.text, one.label, one.prediction, f"{one.confidence:.1%}"])
        for one in found.mistakes
    ]
    return rows_html(heads, rows, caption="It is sure of none of its mistakes.")


def _flip_words(found: TrustView) -> str:
    low, high = found.flip_interval
    return (
        f"{found.flip_rate:.1%} of the answers ({low:.1%} to {high:.1%}) differ from the base"
        f" model's: {found.lost} right ones were lost, {found.gained} gained. Accuracy alone shows"
        " only the difference of the two."
    )


def _flip_rows(found: TrustView) -> str:
    heads = [
        ("text", "wrap"), ("change", "text"), ("expected", "text"), ("base model", "text"),
        ("this run", "text"),
    ]  # fmt: skip
    rows: list[tuple[str, list[object]]] = [
        ("", [one.text, _SIGNS[one.change], one.label, one.dense, one.run]) for one in found.changed
    ]
    return rows_html(heads, rows, caption="It answers as the base model does.")


def _slice_words(found: TrustView) -> str:
    sure = [one for one in found.slices if one.adjusted_p_value < SURE]
    if not sure:
        return (
            f"Of {len(found.slices)} slices (length, label and the columns of your data) none is"
            " surely hurt by compression."
        )
    named = ", ".join(f"{one.column} “{one.value}” ({one.change:+.1%})" for one in sure[:3])
    return f"Compression surely hurts {named}{' and more' if len(sure) > 3 else ''}."


def _slice_rows(found: TrustView) -> str:
    heads = [
        ("column", "text"), ("value", "text"), ("examples", ""), ("base model", ""),
        ("this run", ""), ("change", ""), ("p, all slices together", ""), ("surely hurt", "text"),
    ]  # fmt: skip
    rows: list[tuple[str, list[object]]] = [
        (
            "",
            [
                one.column, one.value, one.n, f"{one.dense_accuracy:.1%}", f"{one.accuracy:.1%}",
                f"{one.change:+.1%}", f"{one.adjusted_p_value:.2g}",
                "✕ yes" if one.adjusted_p_value < SURE else "cannot be told",
            ],
        )
        for one in found.slices
    ]  # fmt: skip
    return rows_html(heads, rows, caption="No slice has enough examples.")


VIEWS = {
    "Calibration": View(
        "How often it is right when it is so sure; on the dotted line it is as sure as right.",
        _calibration_words,
        _calibration_rows,
        lambda found: reliability_figure(found.before, found.after, found.temperature),
    ),
    "Sure mistakes": View(
        "Examples on which it is wrong and sure of it: no threshold on its confidence stops them.",
        _mistake_words,
        _mistake_rows,
    ),
    "Flips": View("Examples that it answers differently from its base model.", _flip_words,
                  _flip_rows),
    "Slices": View(
        "Parts of the data, the one that compression hurt most surely first; tested together.",
        _slice_words,
        _slice_rows,
    ),
}  # fmt: skip
"""By title."""
