"""A table whose rows can be searched, and selected by mouse or keyboard."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import anywidget
import traitlets


class Rows(anywidget.AnyWidget):
    """A table as HTML; rows with ``data-id`` can be selected.

    Attributes
    ----------
    html : str
        The table, every text in it escaped.
    selected : list of str
        The ids of the selected rows.
    searchable : bool
        Whether there is a box that filters the rows.
    label : str
        What the box says.
    height : str
        The most that the table takes before it scrolls, as CSS.
    """

    _esm = (Path(__file__).parent / "rows.js").read_text(encoding="utf-8")
    html = traitlets.Unicode().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    searchable = traitlets.Bool(False).tag(sync=True)
    label = traitlets.Unicode("Search").tag(sync=True)
    height = traitlets.Unicode("340px").tag(sync=True)


def rows_html(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[tuple[str, Sequence[object]]],
    *,
    caption: str = "",
) -> str:
    """Return a table as HTML, every text escaped.

    Parameters
    ----------
    heads : sequence of (str, str)
        Titles of the columns and their kind: ``"text"``, ``"wrap"`` or ``""`` for numbers.
    rows : iterable of (str, sequence)
        Each row's id, ``""`` for one that cannot be selected, and its cells.
    caption : str
        What is shown in place of the rows where there are none.
    """
    kinds = [kind for _, kind in heads]
    head = "".join(f'<th scope="col" class="{k}">{html.escape(n)}</th>' for n, k in heads)
    body = []
    for id, cells in rows:
        name = f' data-id="{html.escape(id, quote=True)}"' if id else ""
        texts = "".join(
            f'<td class="{kind}">{html.escape(str(cell))}</td>'
            for cell, kind in zip(cells, kinds, strict=True)
        )
        body.append(f"<tr{name}>{texts}</tr>")
    if not body and caption:
        body = [f'<tr><td class="wb-empty" colspan="{len(kinds)}">{html.escape(caption)}</td></tr>']
    return (
        f'<table class="wb-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
