"""Draw what compression did to the weights."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from workbench.recipes.recipe import shortened
from workbench.views.figures.layout import INK
from workbench.views.figures.theme import look

if TYPE_CHECKING:
    import pandas as pd


def layer_errors_figure(table: pd.DataFrame) -> go.Figure:
    """Return a heatmap of relative weight error by layer and run, on a logarithmic scale.

    Parameters
    ----------
    table : DataFrame
        As :attr:`workbench.views.LayerErrors.table` gives it.
    """
    values = table.to_numpy(dtype=float)
    logs = np.log10(np.where(values > 0, values, np.nan))
    known = logs[np.isfinite(logs)]
    low, high = (math.floor(known.min()), math.ceil(known.max())) if known.size else (-1, 0)
    ticks = list(range(low, high + 1))
    figure = go.Figure(
        go.Heatmap(
            z=logs,
            x=list(range(len(table.columns))),
            y=[html.escape(layer) for layer in table.index],
            customdata=values,
            hovertemplate="%{y}<br>relative squared error %{customdata:.3g}<extra></extra>",
            colorscale="Cividis",
            zmin=low,
            zmax=max(high, low + 1),
            xgap=2,
            ygap=1,
            colorbar={
                "title": {"text": "error"},
                "tickvals": ticks,
                "ticktext": [f"10<sup>{tick}</sup>" for tick in ticks],
                "thickness": 12,
            },
        )
    )
    height = max(320, 130 + 15 * len(table))
    figure.update_layout(
        look("Weight error by layer", "squared difference over squared norm", height=height)
    )
    names = [html.escape(shortened(run, 28)) for run in table.columns]
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 11})
    return figure


def weight_histogram_figure(
    edges: Sequence[float],
    before: Sequence[int],
    after: Sequence[int],
    *,
    layer: str,
    run: str,
) -> go.Figure:
    """Return a layer's weights before and after, counted on a logarithmic scale.

    Parameters
    ----------
    edges : sequence of float
        Of the bins, one more than there are bins.
    before, after : sequence of int
        Weights in each bin.
    layer, run : str
        For the title.
    """
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    figure = go.Figure()
    figure.add_scatter(
        name="before", x=middles, y=before, mode="lines",
        line={"color": INK, "width": 2, "shape": "hvh"},
    )  # fmt: skip
    figure.add_bar(name="after", x=middles, y=after, marker={"color": "#0072B2"}, opacity=0.75)
    figure.update_layout(look(f"Weights of {layer}", shortened(run), height=340), bargap=0)
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.1})
    figure.update_xaxes(title="weight")
    figure.update_yaxes(title="count", type="log")
    return figure
