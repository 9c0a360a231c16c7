"""Draw what every layer costs."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.views.figures.layout import HEIGHT, INK, SMALL

if TYPE_CHECKING:
    import pandas as pd


def sensitivity_figure(table: pd.DataFrame) -> go.Figure:
    """Return a heatmap of predicted cost by layer and step, on a logarithmic colour scale.

    Parameters
    ----------
    table : DataFrame
        Nats; index: layers, columns: labels of steps.
    """
    import numpy as np

    nats = table.to_numpy(dtype=float)
    logs = np.log10(np.where(nats > 0, nats, np.nan))
    known = logs[np.isfinite(logs)]
    low, high = (math.floor(known.min()), math.ceil(known.max())) if known.size else (-1, 0)
    ticks = list(range(low, high + 1))
    names = [html.escape(str(name)) for name in table.index]
    figure = go.Figure(
        go.Heatmap(
            z=logs,
            x=[html.escape(str(name)) for name in table.columns],
            y=names,
            customdata=nats,
            hovertemplate="%{y}<br>%{x}<br>%{customdata:.3g} nats, predicted<extra></extra>",
            colorscale="Cividis",
            zmin=low,
            zmax=max(high, low + 1),
            colorbar={
                "title": {"text": "nats"},
                "tickvals": ticks,
                "ticktext": [f"10<sup>{tick}</sup>" for tick in ticks],
            },
        )
    )
    figure.update_layout(
        title={"text": f"Sensitivity<br>{SMALL.format('predicted cost of each layer')}"},
        height=max(HEIGHT, 140 + 16 * len(names)),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK},
        margin={"t": 70},
        yaxis={"autorange": "reversed", "automargin": True},
        xaxis={"automargin": True, "tickangle": -45},
    )
    return figure
