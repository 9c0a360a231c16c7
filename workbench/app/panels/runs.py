"""The table twin of the plot: every run, the failed ones and their reasons included."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.rows import Rows, rows_html
from workbench.app.session import Session

if TYPE_CHECKING:
    import pandas as pd

_STYLE = """<style>
.wb-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wb-table th, .wb-table td { text-align: right; padding: 2px 10px; white-space: nowrap;
  border-bottom: 1px solid rgba(127,127,127,.3); }
.wb-table .text { text-align: left; }
.wb-table .wrap { text-align: left; white-space: normal; min-width: 12em; }
</style>"""
"""For the saved picture; the application has a stylesheet of its own."""

EMPTY = "No runs yet. Choose a method and press Run."
MOST_PICTURED = 100
"""Rows of the picture that a notebook keeps."""


class TablePanel(StudyPanel):
    """Every run of a study as a row; rows can be selected.

    Attributes
    ----------
    widget : Rows
    hidden : bool
        Whether hidden runs are shown too.
    left_out : tuple of str
        Titles of columns that are not shown.
    offered : list of str
        Titles of the columns that there are.
    """

    interval = 0.25
    widget: Rows

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.hidden = False
        self.left_out: tuple[str, ...] = ()
        self.offered: list[str] = []
        self.widget = Rows(label="Filter runs", searchable=True, sortable=True, height="320px")
        self.widget.observe(
            self._guard(lambda _: session.selection.set(self.widget.selected)), names="selected"
        )
        session.selection.listen(self._mark)
        self.refresh()

    def code(self) -> str:
        """Return the Python that makes the table."""
        return "study.table()"

    def _mark(self) -> None:
        self.widget.selected = list(self._session.selection.runs)

    def _refresh(self) -> None:
        study = self._session.study
        frame = study.table(hidden=True) if self.hidden else study.table()
        heads, rows = runs_rows(frame, study.metric.name)
        self.offered = [name for name, _ in heads]
        kept = [place for place, (name, _) in enumerate(heads) if name not in self.left_out]
        self.widget.fill(
            [heads[place] for place in kept],
            [(id, [list(cells)[place] for place in kept]) for id, cells in rows],
            caption=EMPTY,
        )


def table_html(frame: pd.DataFrame, metric: str) -> str:
    """Return a study's table as HTML that brings its own style, for a notebook without a kernel."""
    more = max(0, len(frame) - MOST_PICTURED)
    if more:  # the front is what is looked for
        frame = frame.sort_values("pareto", ascending=False, kind="stable").head(MOST_PICTURED)
    note = f"<p>{more:,} more runs are left out of this picture.</p>" if more else ""
    return _STYLE + runs_html(frame, metric) + note


def runs_html(frame: pd.DataFrame, metric: str) -> str:
    """Return a study's table as HTML, every text escaped, the front's runs marked with a star."""
    heads, rows = runs_rows(frame, metric)
    return rows_html(heads, rows, caption=EMPTY)


def runs_rows(
    frame: pd.DataFrame, metric: str
) -> tuple[list[tuple[str, str]], list[tuple[str, list[object]]]]:
    """Return the heads and the rows of a study's table, the front's runs marked with a star."""
    errors = bool(frame["error"].astype(bool).any())
    several = frame["model"].nunique() > 1
    timed = "latency_ms" in frame.columns
    heads = [("recipe", "text"), ("size (MB)", ""), ("of dense", ""), (metric, ""), ("± 95 %", "")]
    heads += [("latency (ms)", "")] * timed
    heads += [("front", ""), ("state", "text")]
    said = [name for name in ("name", "tags", "note") if name in frame]
    stars = "starred" in frame
    before: list[tuple[str, str]] = [("☆", "")] * stars + [(name, "text") for name in said]
    heads = before + [("model", "text")] * several + heads + [("error", "wrap")] * errors
    rows: list[tuple[str, list[object]]] = []
    for run, row in zip(frame.index, frame.to_dict("records"), strict=True):
        cells = [
            row["recipe"],
            _number(row["size_mb"], ".2f"),
            _number(row["size_ratio"], ".1%"),
            _number(row[metric], ".4g"),
            _number(1.96 * row[f"{metric}_stderr"], ".2g"),
        ]
        cells += [_number(row["latency_ms"], ".3g")] if timed else []
        cells += ["★" if row["pareto"] else "", row["state"]]
        cells = [row["model"]] * several + cells + [row["error"]] * errors
        cells = [row[name] for name in said] + cells
        cells = ["☆" if row["starred"] else "", *cells] if stars else cells
        rows.append((str(run), cells))
    named = [(name.replace("_", " "), kind) for name, kind in heads]
    return named, rows


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
