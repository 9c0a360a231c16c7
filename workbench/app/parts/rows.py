"""A table whose rows can be searched, and selected by mouse or keyboard; long ones have pages."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

PAGE = 200
"""Rows of a page. A table of no more is searched by the browser, without a word to the kernel."""

Heads = Sequence[tuple[str, str]]
Cells = Sequence[object]
Row = tuple[str, Cells | Callable[[], Cells]]
"""A row's id, ``""`` for one that cannot be selected, and its cells, or what makes them."""


class Rows(anywidget.AnyWidget):
    """A table as HTML; rows with ``data-id`` can be selected.

    Attributes
    ----------
    html : str
        What is shown: the table, or its page, every text in it escaped.
    selected : list of str
        The ids of the selected rows, on whatever page.
    searchable : bool
        Whether there is a box that filters the rows.
    label : str
        What the box says.
    height : str
        The most that the table takes before it scrolls, as CSS.
    query : str
        What is looked for in a table of several pages.
    page, pages : int
        Which page is shown, from 0 on, and of how many; 1 for a table that is shown whole.
    count : str
        How many rows are shown of how many, in words; for a table of several pages.
    sortable : bool
        Whether the heads are buttons that sort.
    sorted_by : int
        The column, -1 for the order in which the rows were given.
    descending : bool
    """

    _esm = (Path(__file__).parent / "rows.js").read_text(encoding="utf-8")
    html = traitlets.Unicode().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    searchable = traitlets.Bool(False).tag(sync=True)
    label = traitlets.Unicode("Search").tag(sync=True)
    height = traitlets.Unicode("340px").tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)
    pages = traitlets.Int(1).tag(sync=True)
    count = traitlets.Unicode("").tag(sync=True)
    sortable = traitlets.Bool(False).tag(sync=True)
    sorted_by = traitlets.Int(-1).tag(sync=True)
    descending = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **values: Any) -> None:
        self._heads: Heads = ()
        self._rows: list[Row] = []
        self._caption = ""
        super().__init__(**values)
        self.observe(lambda _: self._turn(0), names="query")
        self.observe(lambda _: self._draw(), names=["page", "sorted_by", "descending"])

    def fill(self, heads: Heads, rows: Iterable[Row], *, caption: str = "") -> None:
        """Show a table, its first page if there are many rows; see :func:`rows_html`.

        What was searched for is searched for again, and the page stays where there is one.
        """
        heads, by = tuple(heads), self.sorted_by
        if 0 <= by < len(self._heads):  # a column that has moved sorts on
            titles = [name for name, _ in heads]
            title = self._heads[by][0]
            by = titles.index(title) if title in titles else -1
        self._heads, self._rows, self._caption = heads, list(rows), caption
        if by != self.sorted_by:
            self.sorted_by = by  # which draws
        else:
            self._draw()

    def clear(self) -> None:
        """Show nothing."""
        self._heads, self._rows, self._caption = (), [], ""
        self._draw()
        self.html = ""

    def _turn(self, page: int) -> None:
        if self.page == page:
            self._draw()
        else:
            self.page = page

    def _draw(self) -> None:
        found = self._rows
        is_long = len(found) > PAGE
        words = self.query.lower().split() if is_long else []
        if words:
            found = [row for row in found if _has(row, words)]
        by = self.sorted_by if self.sortable and self.sorted_by < len(self._heads) else -1
        if by >= 0:
            found = sorted(found, key=lambda row: _place(_cells(row)[by]), reverse=self.descending)
        pages = max(1, -(-len(found) // PAGE))
        page = min(max(self.page, 0), pages - 1)
        first = page * PAGE
        shown = found[first : first + PAGE]
        with self.hold_trait_notifications():
            self.pages, self.page = (pages, page) if is_long else (1, 0)
            self.count = ""
            if is_long:
                ends = f"{first + 1:,} to {first + len(shown):,} of " if shown else ""
                self.count = f"{ends}{len(found):,} rows"
            order = (by, self.descending) if self.sortable else None
            self.html = rows_html(self._heads, shown, caption=self._caption, order=order)


def _head(place: int, name: str, kind: str, order: tuple[int, bool] | None) -> str:
    text = html.escape(name)
    if order is None:
        return f'<th scope="col" class="{kind}">{text}</th>'
    by, descending = order
    state = "none" if by != place else "descending" if descending else "ascending"
    sign = {"none": "", "ascending": " ▲", "descending": " ▼"}[state]
    button = f'<button type="button" class="wb-sort" data-column="{place}">{text}{sign}</button>'
    return (
        f'<th scope="col" class="{kind}" aria-sort="{state}"><div class="wb-head-cell">{button}'
        "</div></th>"
    )


def _has(row: Row, words: Sequence[str]) -> bool:
    text = " ".join(str(cell) for cell in _cells(row)).lower()
    return all(word in text for word in words)


def _place(cell: object) -> tuple[int, float, str]:
    """Return where a cell comes: numbers by their value, then words, then what is missing."""
    text = str(cell).strip()
    if text in ("", "–"):
        return (2, 0.0, "")
    with contextlib.suppress(ValueError):
        return (0, float(text.rstrip("%").replace(",", "")), "")
    return (1, 0.0, text.lower())


def _cells(row: Row) -> Cells:
    return row[1]() if callable(row[1]) else row[1]


def rows_html(
    heads: Heads,
    rows: Iterable[Row],
    *,
    caption: str = "",
    order: tuple[int, bool] | None = None,
) -> str:
    """Return a table as HTML, every text escaped.

    Parameters
    ----------
    heads : sequence of (str, str)
        Titles of the columns and their kind: ``"text"``, ``"wrap"`` or ``""`` for numbers.
    rows : iterable of Row
    caption : str
        What is shown in place of the rows where there are none.
    order : (int, bool), optional
        Column that they are sorted by and whether downwards; with it the heads are buttons, whose
        width can be dragged.
    """
    kinds = [kind for _, kind in heads]
    head = "".join(_head(place, n, k, order) for place, (n, k) in enumerate(heads))
    body = []
    for row in rows:
        name = f' data-id="{html.escape(row[0], quote=True)}"' if row[0] else ""
        texts = "".join(
            f'<td class="{kind}">{html.escape(str(cell))}</td>'
            for cell, kind in zip(_cells(row), kinds, strict=True)
        )
        body.append(f"<tr{name}>{texts}</tr>")
    if not body and caption:
        body = [f'<tr><td class="wb-empty" colspan="{len(kinds)}">{html.escape(caption)}</td></tr>']
    return (
        f'<table class="wb-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
