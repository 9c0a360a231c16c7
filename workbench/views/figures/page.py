"""One self-contained page that holds a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.atomic_files import write_file

if TYPE_CHECKING:
    import pandas as pd

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 1rem auto; padding: 0 1rem;
  background: light-dark(#fff, #111); color: light-dark(#222, #ddd); }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; white-space: nowrap; padding: .3rem .6rem;
  border-bottom: 1px solid #7775; }}
th:first-child, td:first-child {{ text-align: left; }}
.js-plotly-plot text:not(.hoverlayer *) {{ fill: light-dark(#333, #ccc) !important; }}
div.wide {{ overflow-x: auto; }}
</style>
</head>
<body>
<main>
{figure}
<div class="wide">{table}</div>
</main>
</body>
</html>
"""


def write_html(figure: go.Figure, path: str | Path, *, table: pd.DataFrame | None = None) -> Path:
    """Write one self-contained page (about 5 MB) that opens without a network.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        From :func:`tradeoff_figure`.
    path : str or Path
        Written to a temporary name first and then renamed.
    table : DataFrame, optional
        Shown below the figure, escaped.

    Returns
    -------
    Path
        The file that was written.
    """
    title = (figure.layout.title.text or "Workbench").split("<br>")[0]
    page = _PAGE.format(
        title=title,
        figure=figure.to_html(
            include_plotlyjs=True,
            full_html=False,
            config={"displaylogo": False, "responsive": True},
        ),
        table="" if table is None else table.to_html(index=False, border=0, na_rep="–"),
    )
    return write_file(path, page)
