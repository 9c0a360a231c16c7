"""Draw a cascade: accuracy against cost over all thresholds."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.views.figures.layout import HEIGHT, INK
from workbench.views.figures.theme import look

if TYPE_CHECKING:
    from workbench.selection.cascades import Cascade, CascadePoint

CHOSEN, SINGLE = "#0072B2", "#D55E00"


def cascade_figure(found: Cascade, unit: str) -> go.Figure:
    """Return accuracy against cost per query: the cascade's curve, its choice, and single models.

    Parameters
    ----------
    found : Cascade
    unit : str
        Of the costs.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[point.cost for point in found.curve],
        y=[point.accuracy for point in found.curve],
        customdata=[[f"{point.shares[0]:.0%}", _latency(point)] for point in found.curve],
        mode="lines",
        line={"dash": "dot", "color": INK, "width": 1.5},
        name="all thresholds",
        hovertemplate=(
            "%{x:.4g} a query<br>accuracy %{y:.1%}<br>the first answers %{customdata[0]}"
            "%{customdata[1]}<extra></extra>"
        ),
    )
    at, (low, high) = found.evaluation, found.accuracy_interval
    figure.add_scatter(
        x=[at.cost],
        y=[at.accuracy],
        customdata=[[f"{at.shares[0]:.0%}", _latency(at)]],
        hovertemplate=(
            "chosen: %{x:.4g} a query<br>accuracy %{y:.1%}<br>the first answers %{customdata[0]}"
            "%{customdata[1]}<extra></extra>"
        ),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - at.accuracy],
            "arrayminus": [at.accuracy - low],
            "color": CHOSEN,
        },
        mode="markers",
        marker={"size": 14, "symbol": "star", "color": CHOSEN},
        name=f"chosen on validation; the first answers {at.shares[0]:.0%}",
    )
    figure.add_scatter(
        x=[found.single_cost],
        y=[found.single_accuracy],
        mode="markers",
        marker={"size": 10, "symbol": "square", "color": SINGLE},
        name=f"best single at no more cost: {html.escape(found.single)}",
    )
    figure.update_layout(look("Cascade", " → ".join(found.tiers), height=HEIGHT))
    figure.update_layout(
        margin={"b": 90},
        xaxis={"title": {"text": f"Cost of a query ({html.escape(unit)})"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "Accuracy, evaluation part"}, "tickformat": ".1%"},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
    )
    return figure


def _latency(point: CascadePoint) -> str:
    """Return the percentiles of a point's latency as a line of its hover text, if measured."""
    return "" if point.percentiles is None else f"<br>{point.percentiles}"
