"""Losses by step, several trainings overlaid."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

Points = Sequence[tuple[int, float]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which people tell apart whatever their eyes."""


def curves_figure(curves: Iterable[tuple[str, Points, Points]]) -> go.Figure:
    """Return the figure of some trainings: names, then steps with losses of either part."""
    figure = go.Figure()
    for place, (raw, loss, validation) in enumerate(curves):
        colour, name = COLOURS[place % len(COLOURS)], html.escape(raw)
        for part, points, style in (
            ("training", loss, {"mode": "lines"}),
            ("validation", validation, {"mode": "lines+markers"}),
        ):
            dash = "dash" if part == "validation" else "solid"
            figure.add_scatter(
                x=[step for step, _ in points],
                y=[loss for _, loss in points],
                name=f"{name}, {part}",
                line={"color": colour, "dash": dash},
                hovertemplate=f"{name}<br>{part} %{{y:.4g}} at step %{{x}}<extra></extra>",
                **style,
            )
    figure.update_layout(
        height=340,
        margin={"l": 60, "r": 16, "t": 16, "b": 50},
        xaxis_title="step",
        yaxis_title="loss",
        template="plotly_white",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0},
        uirevision="curves",
    )
    return figure
