"""Draw how often a model is right against how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.views.figures.layout import HEIGHT, INK
from workbench.views.figures.theme import look

if TYPE_CHECKING:
    from workbench.selection.trust import Reliability


def reliability_figure(before: Reliability, after: Reliability, temperature: float) -> go.Figure:
    """Return a reliability diagram: accuracy against confidence, before and after a temperature.

    Parameters
    ----------
    before, after : Reliability
    temperature : float
        For the legend.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"dash": "dot", "color": INK, "width": 1},
        name="as sure as right",
        hoverinfo="skip",
    )
    named = (
        (before, f"recorded: error {before.error:.1%}", "circle", "#D55E00"),
        (after, f"temperature {temperature:.2f}: error {after.error:.1%}", "diamond", "#0072B2"),
    )
    for found, name, symbol, colour in named:
        bins = [one for one in found.bins if one.n]
        figure.add_scatter(
            x=[one.confidence for one in bins],
            y=[one.accuracy for one in bins],
            customdata=[one.n for one in bins],
            mode="lines+markers",
            marker={
                "symbol": symbol,
                "color": colour,
                "size": [6 + 14 * (b.n / found.n) ** 0.5 for b in bins],
            },
            line={"color": colour, "width": 1},
            name=name,
            hovertemplate=(
                "%{customdata} examples<br>sure to %{x:.1%}<br>right in %{y:.1%}<extra></extra>"
            ),
        )
    words = f"{before.n:,} examples of the evaluation part; larger marks, more examples"
    figure.update_layout(look("Reliability", words, height=HEIGHT))
    figure.update_layout(
        margin={"b": 90},
        xaxis={"title": {"text": "Confidence"}, "range": [0, 1.02], "tickformat": ".0%"},
        yaxis={"title": {"text": "Accuracy"}, "range": [-0.03, 1.03], "tickformat": ".0%"},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
    )
    return figure
