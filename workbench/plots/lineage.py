"""Draw the tree of runs."""

from __future__ import annotations

import html
import math

import plotly.graph_objects as go

from workbench.lineage import LineageView
from workbench.plots.frame import INK
from workbench.plots.look import look
from workbench.recipe import shortened

LEAST, MOST = 12.0, 34.0
"""Diameters of the smallest and the largest model, in pixels."""


def lineage_figure(view: LineageView, *, selected: tuple[str, ...] = ()) -> go.Figure:
    """Return the tree: nodes sized by bytes (their area) and coloured by the metric.

    Parameters
    ----------
    view : LineageView
    selected : tuple of str
        Ids of the runs that get a ring.
    """
    where = {node.run_id: node for node in view.nodes}
    row = {node.run_id: place for place, node in enumerate(view.nodes)}
    x: list[float | None] = []
    y: list[float | None] = []
    for parent, child in view.edges:
        one, two = where[parent], where[child]
        x += [one.depth, one.depth, two.depth, None]
        y += [row[parent], row[child], row[child], None]
    figure = go.Figure()
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": "rgba(127,127,127,0.5)", "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
        name="continues",
    )
    known = [node.value for node in view.nodes if math.isfinite(node.value)]
    largest = max((node.size_bytes or 0 for node in view.nodes), default=0) or 1
    done = [node for node in view.nodes if math.isfinite(node.value)]
    others = [node for node in view.nodes if not math.isfinite(node.value)]
    for name, nodes in (("measured", done), ("without a result", others)):
        figure.add_scatter(
            name=name,
            x=[node.depth for node in nodes],
            y=[row[node.run_id] for node in nodes],
            mode="markers+text",
            text=[f"  {html.escape(shortened(node.step, 40))}" for node in nodes],
            textposition="middle right",
            textfont={"color": INK, "size": 12},
            customdata=[node.run_id for node in nodes],
            hovertext=[_hover(view, node.run_id) for node in nodes],
            hoverinfo="text",
            cliponaxis=False,
            showlegend=False,
            marker={
                "size": [
                    max(LEAST, MOST * math.sqrt((node.size_bytes or 0) / largest)) for node in nodes
                ],
                "symbol": "circle" if nodes is done else "x-thin",
                "color": [node.value for node in nodes] if nodes is done else INK,
                "opacity": 1.0,
                "colorscale": "Cividis",
                "reversescale": not view.metric.higher_is_better,
                "cmin": min(known, default=0.0),
                "cmax": _top(known, view),
                "showscale": bool(known) and nodes is done,
                "colorbar": {"title": {"text": html.escape(view.metric.name)}, "thickness": 12},
                "line": {
                    "width": [3 if node.run_id in selected else 1 for node in nodes],
                    "color": ["#D55E00" if node.run_id in selected else INK for node in nodes],
                },
            },
        )
    rows = len(view.nodes)
    figure.update_layout(
        look("Lineage", "area: size, colour: " + view.metric.name, height=150 + 30 * rows)
    )
    deepest = max((node.depth for node in view.nodes), default=0)
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": ""}
    figure.update_xaxes(**hidden, range=[-0.15, deepest + 1.3])
    figure.update_yaxes(**hidden, range=[rows - 0.4, -0.6])
    return figure


def _top(known: list[float], view: LineageView) -> float:
    """Return the end of the colour scale: twice the best of a lower-is-better metric at most."""
    if not known:
        return 1.0
    return max(known) if view.metric.higher_is_better else min(max(known), 2 * min(known))


def _hover(view: LineageView, run: str) -> str:
    node = next(node for node in view.nodes if node.run_id == run)
    lines = [f"<b>{html.escape(node.label)}</b>", html.escape(node.state)]
    if node.size_bytes is not None:
        lines.append(f"{node.size_bytes / 1e6:.2f} MB")
    if math.isfinite(node.value):
        lines.append(f"{html.escape(view.metric.name)}: {node.value:.4g}")
    return "<br>".join(lines)
