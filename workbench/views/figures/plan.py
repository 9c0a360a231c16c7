"""Draw what fits where: models by precisions by devices, all of it estimated."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from workbench.views.figures.layout import HEIGHT
from workbench.views.figures.theme import look

if TYPE_CHECKING:
    import pandas as pd


def plan_figure(table: pd.DataFrame, context: int, batch: int) -> go.Figure:
    """Return a heatmap of the share of each device's memory that each model takes.

    Rows are models and precisions, columns devices. Blue fits, red does not, and the numbers are
    the gigabytes that are needed, so colours are not all that tells.

    Parameters
    ----------
    table : DataFrame
        As :meth:`workbench.Plan.table` returns it.
    context, batch : int
        Tokens of each sequence, and sequences at once.
    """
    devices = list(dict.fromkeys(table["device"]))
    table = table.assign(line=table["model"] + ", " + table["precision"])
    lines = list(dict.fromkeys(table["line"]))
    rows = {(row["line"], row["device"]): row for row in table.to_dict("records")}
    cells = [[rows[line, device] for device in devices] for line in lines]
    shares = [[min(c["total_gb"] / c["usable_gb"], 2.0) for c in line] for line in cells]
    texts = [[f"{c['total_gb']:.3g}" for c in line] for line in cells]
    tips = [[_tip(cell) for cell in line] for line in cells]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=[html.escape(name) for name in devices],
            y=[html.escape(line) for line in lines],
            text=texts,
            texttemplate="%{text}",
            customdata=tips,
            hovertemplate="%{customdata}<extra>estimated</extra>",
            colorscale=[[0, "#dbe9f6"], [0.4999, "#2a6fb0"], [0.5, "#f4b6a6"], [1, "#b2331b"]],
            zmin=0,
            zmax=2,
            colorbar={
                "title": {"text": "of the<br>memory"},
                "tickvals": [0, 0.5, 1, 1.5, 2],
                "ticktext": ["0", "half", "full", "1.5 x", "2 x or more"],
            },
        )
    )
    words = f"estimated GB at {batch} x {context:,} tokens; red does not fit"
    figure.update_layout(
        look("Will it fit?", words, height=max(HEIGHT - 100, 190 + 24 * len(lines)))
    )
    figure.update_layout(
        yaxis={"autorange": "reversed", "showgrid": False},
        xaxis={"side": "bottom", "showgrid": False},
    )
    return figure


def _tip(cell: dict[Any, Any]) -> str:
    answer = "fits" if cell["fits"] else "does not fit"
    words = [
        f"{html.escape(cell['line'])}, {html.escape(cell['device'])}: {answer}",
        f"{cell['total_gb']:.3g} of {cell['usable_gb']:.3g} GB: weights {cell['weights_gb']:.3g},"
        f" keys and values {cell['cache_gb']:.3g}",
    ]
    if cell["fits"]:
        words.append(f"at most {cell['at_most_tokens_per_s']:,.3g} tokens/s")
    return "<br>".join(words)
