"""Draw which labels are mistaken for which."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.recipes.recipe import shortened
from workbench.views.figures.theme import look


def confusion_figure(labels: Sequence[str], counts: Sequence[Sequence[int]], run: str) -> go.Figure:
    """Return a heatmap of each label's shares, so that rare labels can be read.

    Parameters
    ----------
    labels : sequence of str
        In the order of rows and columns.
    counts : sequence of sequences of int
        Rows: the right label; columns: the predicted one.
    run : str
        The run's name, for the title.
    """
    numbers = np.asarray(counts, dtype=float)
    shares = numbers / np.maximum(numbers.sum(1, keepdims=True), 1)
    names = [html.escape(shortened(label, 32)) for label in labels]
    # By number: as names, two that are shortened alike were one, and "1" or a date no category.
    places = list(range(len(names)))
    about = [
        [f"{html.escape(label)}<br>predicted: {html.escape(other)}" for other in labels]
        for label in labels
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=places,
            y=places,
            customdata=numbers,
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
            f"{shortened(run)}: label down, prediction across",
            height=max(360, 160 + 16 * len(names)),
        )
    )
    named = {"tickvals": places, "ticktext": names, "showgrid": False}
    figure.update_xaxes(**named, tickangle=-45)
    figure.update_yaxes(**named, autorange="reversed")
    return figure
