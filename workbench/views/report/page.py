"""A page of headings, sentences, tables and pictures in one file, without scripts.

Everything that came from data is escaped here. Numbers are ``<data>`` elements that carry their
full value, so that what is read on the page can be read by a program too.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 860px; margin: 1rem auto; padding: 0 1rem;
  background: light-dark(#fff, #111); color: light-dark(#222, #ddd); }}
h1 {{ line-height: 1.2; margin-bottom: .2rem; }}
h2 {{ margin-top: 2rem; border-bottom: 1px solid #7775; }}
.answer {{ font-size: 1.2rem; border-left: .4rem solid #7777; padding: .2rem 0 .2rem 1rem; }}
.answer.passes {{ border-color: #2a6fb0; }}
.answer.fails, .answer.unclear {{ border-color: #b2331b; }}
.quiet {{ color: light-dark(#666, #999); font-size: .9rem; }}
/* what is wider than the page scrolls, and has a shadow where there is more */
div.wide {{ --ground: light-dark(#fff, #111); overflow-x: auto; background-repeat: no-repeat;
  background-image: linear-gradient(to right, var(--ground) 40%, transparent),
    linear-gradient(to left, var(--ground) 40%, transparent),
    linear-gradient(to right, #7778, transparent), linear-gradient(to left, #7778, transparent);
  background-position: left, right, left, right;
  background-attachment: local, local, scroll, scroll;
  background-size: 2.5rem 100%, 2.5rem 100%, .7rem 100%, .7rem 100%; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #7775;
  vertical-align: top; }}
th.words, td.words {{ text-align: left; min-width: 8rem; overflow-wrap: anywhere; }}
svg {{ max-width: 100%; height: auto; }}
svg text {{ fill: light-dark(#333, #ccc); }}
pre {{ overflow-x: auto; padding: .8rem; background: #7772; border-radius: .3rem; }}
@media (max-width: 700px) {{
  div.wide > svg {{ max-width: none; width: 700px; }}
  div.wide::before {{ content: "scrolls sideways \2192"; position: sticky; left: 0; display: block;
    font-size: .8rem; color: light-dark(#666, #999); }}
}}
@media print {{
  :root {{ color-scheme: light; }}
  body {{ font-size: 11pt; max-width: none; margin: 0; background: #fff; color: #000; }}
  h2 {{ break-after: avoid; }}
  svg, tr, pre, .answer {{ break-inside: avoid; }}
  div.wide {{ overflow: visible; }}
  pre {{ white-space: pre-wrap; }}
}}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Value:
    """A number of the page.

    Attributes
    ----------
    name : str
        What it is, for programs: ``"quality"``.
    value : float or None
        None is shown as a dash.
    form : str
        As for :func:`format`.
    unit : str
        Behind the number.
    """

    name: str
    value: float | None
    form: str = ".4g"
    unit: str = ""

    def __str__(self) -> str:
        """Return the number as HTML."""
        if self.value is None:
            return "–"
        shown = format(self.value, self.form) + (f" {self.unit}" if self.unit else "")
        return (
            f'<data data-name="{html.escape(self.name)}" value="{float(self.value)!r}">'
            f"{html.escape(shown)}</data>"
        )


@dataclass(frozen=True)
class Part:
    """What stands under one heading: HTML that is safe already, in order.

    Use :func:`sentence`, :func:`table`, :func:`code` and pictures of ``workbench.views.figures``.
    """

    heading: str
    pieces: tuple[str, ...]


def sentence(*pieces: str | Value, kind: str = "") -> str:
    """Return a paragraph; strings are escaped, values marked."""
    inner = "".join(str(p) if isinstance(p, Value) else html.escape(p) for p in pieces)
    return f'<p class="{html.escape(kind)}">{inner}</p>' if kind else f"<p>{inner}</p>"


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre><code>{html.escape(text)}</code></pre>"


def table(rows: Sequence[Mapping[str, str | Value]], caption: str = "") -> str:
    """Return a table; columns are named by the keys of the first row."""
    if not rows:
        return sentence("None.", kind="quiet")
    names = list(rows[0])
    words = {name for name in names if any(isinstance(row[name], str) for row in rows)}

    def cell(name: str, row: Mapping[str, str | Value]) -> str:
        found = row[name]
        inner = str(found) if isinstance(found, Value) else html.escape(found)
        return f'<td class="words">{inner}</td>' if name in words else f"<td>{inner}</td>"

    head = "".join(
        f'<th class="words">{html.escape(name)}</th>'
        if name in words
        else f"<th>{html.escape(name)}</th>"
        for name in names
    )
    body = "\n".join("<tr>" + "".join(cell(name, row) for name in names) + "</tr>" for row in rows)
    top = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return _wide(f"<table>{top}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>")


def _wide(inner: str) -> str:
    """Return what may be wider than a phone, in a place that scrolls, also by keyboard."""
    return f'<div class="wide" tabindex="0">{inner}</div>'


def render(title: str, opening: Sequence[str], parts: Sequence[Part]) -> str:
    """Return the whole page.

    Parameters
    ----------
    title : str
        Escaped here.
    opening : sequence of str
        Safe HTML that stands under the title.
    parts : sequence of Part
    """
    body = [f"<h1>{html.escape(title)}</h1>", *opening]
    for part in parts:
        pieces = [_wide(piece) if piece.startswith("<svg") else piece for piece in part.pieces]
        body += [f"<section>\n<h2>{html.escape(part.heading)}</h2>", *pieces, "</section>"]
    return _PAGE.format(title=html.escape(title), body="\n".join(body))
