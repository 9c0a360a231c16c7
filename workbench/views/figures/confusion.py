"""Draw which labels are mistaken for which."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from workbench.recipes.recipe import shortened
from workbench.views.confusion import Confusion
from workbench.views.figures.theme import look


def confusion_figure(view: Confusion) -> go.Figure:
    """Return the counts as a heatmap of each label's shares, so that rare labels can be read."""
    counts = np.asarray(view.counts, dtype=float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [html.escape(shortened(label, 32)) for label in view.labels]
    # By number: as names, two that are shortened alike were one, and "1" or a date no category.
    places = list(range(len(names)))
    about = [
        [f"{html.escape(label)}<br>predicted: {html.escape(other)}" for other in view.labels]
        for label in view.labels
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=places,
            y=places,
            customdata=counts,
            hovertext=about,
            hovertemplate="%{hovertext}<br>%{customdata} examples, %{z:.1%}<extra></extra>",
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            colorbar={"title": {"text": "share"}, "tickformat": ".0%", "thickness": 12},
        )
    )
    figure.update_layout(
        look(
            "Confusion matrix",
            f"{shortened(view.run)}: label down, prediction across",
            height=max(360, 160 + 16 * len(names)),
        )
    )
    named = {"tickvals": places, "ticktext": names, "showgrid": False}
    figure.update_xaxes(**named, tickangle=-45)
    figure.update_yaxes(**named, autorange="reversed")
    return figure
