"""Draw what compression did to the weights."""

from __future__ import annotations

import html
import math

import numpy as np
import plotly.graph_objects as go

from workbench.recipes.recipe import shortened
from workbench.views.figures.layout import INK
from workbench.views.figures.theme import look
from workbench.views.layers import LayerErrorsView, WeightHistogramView


def layer_errors_figure(view: LayerErrorsView) -> go.Figure:
    """Return a heatmap of relative weight error by layer and run, on a logarithmic scale."""
    values = view.table.to_numpy(dtype=float)
    logs = np.log10(np.where(values > 0, values, np.nan))
    known = logs[np.isfinite(logs)]
    low, high = (math.floor(known.min()), math.ceil(known.max())) if known.size else (-1, 0)
    ticks = list(range(low, high + 1))
    figure = go.Figure(
        go.Heatmap(
            z=logs,
            x=list(range(len(view.runs))),
            y=[html.escape(layer) for layer in view.layers],
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
    height = max(320, 130 + 15 * len(view.layers))
    figure.update_layout(
        look("Weight error by layer", "squared difference over squared norm", height=height)
    )
    names = [html.escape(shortened(run, 28)) for run in view.runs]
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 11})
    return figure


def weight_histogram_figure(view: WeightHistogramView) -> go.Figure:
    """Return a layer's weights before and after, counted on a logarithmic scale."""
    middles = [(low + high) / 2 for low, high in zip(view.edges, view.edges[1:], strict=False)]
    figure = go.Figure()
    figure.add_scatter(
        name="before", x=middles, y=view.before, mode="lines",
        line={"color": INK, "width": 2, "shape": "hvh"},
    )  # fmt: skip
    figure.add_bar(name="after", x=middles, y=view.after, marker={"color": "#0072B2"}, opacity=0.75)
    figure.update_layout(
        look(f"Weights of {view.layer}", shortened(view.run), height=340), bargap=0
    )
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.1})
    figure.update_xaxes(title="weight")
    figure.update_yaxes(title="count", type="log")
    return figure
