"""Draw the tree of runs."""

from __future__ import annotations

import html
import json
import math
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from workbench.recipes.recipe import shortened
from workbench.records import Metric
from workbench.views.figures.layout import INK
from workbench.views.figures.svg import svg_text
from workbench.views.figures.theme import look
from workbench.views.run_tree import Edges, LineageNode, Nodes

LEAST, MOST = 12.0, 34.0
"""Diameters of the smallest and the largest model, in pixels."""

SCALE = "Cividis"
SELECTED = "#D55E00"
_WIDTH, _TOP, _ROW = 760, 70, 38


class LineageFigure(go.Figure):
    """A plotly figure that a notebook shows live, and as a small picture where nothing runs."""

    _ipython_display_ = None
    _repr_html_ = None
    _tree: tuple[Metric, Nodes, Edges] = (Metric(""), (), ())
    _selected: tuple[str, ...] = ()

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        count = len(self._tree[1])
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "image/svg+xml": lineage_svg(*self._tree, selected=self._selected),
            "text/plain": f"Lineage of {count} run{'s' * (count != 1)}",
        }


def lineage_figure(
    metric: Metric, nodes: Nodes, edges: Edges, *, selected: tuple[str, ...] = ()
) -> LineageFigure:
    """Return the tree: nodes sized by bytes (their area) and coloured by the metric.

    Parameters
    ----------
    metric : Metric
        What the nodes' values are of.
    nodes, edges
        As :func:`workbench.views.run_tree.run_tree` returns them.
    selected : tuple of str
        Ids of the runs that get a ring.
    """
    where = {node.run_id: node for node in nodes}
    row = {node.run_id: place for place, node in enumerate(nodes)}
    x: list[float | None] = []
    y: list[float | None] = []
    for parent, child in edges:
        one, two = where[parent], where[child]
        x += [one.depth, one.depth, two.depth, None]
        y += [row[parent], row[child], row[child], None]
    figure = LineageFigure()
    figure._tree, figure._selected = (metric, nodes, edges), selected
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": "rgba(127,127,127,0.5)", "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
        name="continues",
    )
    known = [node.value for node in nodes if math.isfinite(node.value)]
    largest = _largest(nodes)
    done = [node for node in nodes if math.isfinite(node.value)]
    others = [node for node in nodes if not math.isfinite(node.value)]
    for name, shown in (("measured", done), ("without a result", others)):
        figure.add_scatter(
            name=name,
            x=[node.depth for node in shown],
            y=[row[node.run_id] for node in shown],
            mode="markers+text",
            text=[f"  {html.escape(shortened(node.step, 40))}" for node in shown],
            textposition="middle right",
            textfont={"color": INK, "size": 12},
            customdata=[node.run_id for node in shown],
            hovertext=[_hover(metric, node) for node in shown],
            hoverinfo="text",
            cliponaxis=False,
            showlegend=False,
            marker={
                "size": [_diameter(node, largest) for node in shown],
                "symbol": "circle" if shown is done else "x-thin",
                "color": [node.value for node in shown] if shown is done else INK,
                "opacity": 1.0,
                "colorscale": SCALE,
                "reversescale": not metric.higher_is_better,
                "cmin": min(known, default=0.0),
                "cmax": _top(known, metric),
                "showscale": bool(known) and shown is done,
                "colorbar": {"title": {"text": html.escape(metric.name)}, "thickness": 12},
                "line": {
                    "width": [3 if node.run_id in selected else 1 for node in shown],
                    "color": [SELECTED if node.run_id in selected else INK for node in shown],
                },
            },
        )
    rows = len(nodes)
    figure.update_layout(
        look("Lineage", "area: size, colour: " + metric.name, height=150 + 30 * rows)
    )
    deepest = max((node.depth for node in nodes), default=0)
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": ""}
    figure.update_xaxes(**hidden, range=[-0.15, deepest + 1.3])
    figure.update_yaxes(**hidden, range=[rows - 0.4, -0.6])
    return figure


def lineage_svg(
    metric: Metric, nodes: Nodes, edges: Edges, *, selected: tuple[str, ...] = ()
) -> str:
    """Return the tree as an SVG document of a few kilobytes, with size and metric in words.

    It has no script and no external resource; every text that came from data is escaped.

    Parameters
    ----------
    metric, nodes, edges, selected
        As for :func:`lineage_figure`.
    """
    largest = _largest(nodes)
    known = [node.value for node in nodes if math.isfinite(node.value)]
    low, high = min(known, default=0.0), _top(known, metric)
    deepest = max((node.depth for node in nodes), default=0)
    step = min(60.0, 240 / max(1, deepest))
    place = {
        node.run_id: (30 + step * node.depth, _TOP + _ROW * (row + 0.5))
        for row, node in enumerate(nodes)
    }
    height = _TOP + _ROW * max(1, len(nodes)) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" role="img" font-family="system-ui, sans-serif"'
        f' font-size="12" fill="{INK}">',
        "<title>Lineage</title>",
        svg_text(14, 26, "Lineage", size=17),
        svg_text(14, 47, f"area: size, colour: {metric.name}", size=13),
    ]
    for parent, child in edges:
        (x, y), (right, below) = place[parent], place[child]
        parts.append(
            f'<path d="M{x:.1f} {y:.1f}V{below:.1f}H{right:.1f}" fill="none" stroke="{INK}"'
            ' stroke-opacity="0.5" stroke-width="1.5"/>'
        )
    shares = {}
    for node in nodes:
        if math.isfinite(node.value):
            share = (node.value - low) / (high - low) if high > low else 0.5
            share = share if metric.higher_is_better else 1 - share
            shares[node.run_id] = min(1.0, max(0.0, share))
    colours = dict(zip(shares, sample_colorscale(SCALE, list(shares.values())), strict=True))
    for node in nodes:
        x, y = place[node.run_id]
        ring = (SELECTED, 3) if node.run_id in selected else (INK, 1)
        parts.append(f"<g><title>{html.escape(f'{node.label}, {node.state}')}</title>")
        if node.run_id in colours:
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_diameter(node, largest) / 2:.1f}"'
                f' fill="{colours[node.run_id]}" stroke="{ring[0]}" stroke-width="{ring[1]}"/>'
            )
        else:
            parts.append(
                f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" fill="none"'
                f' stroke="{ring[0]}" stroke-width="{ring[1]}"/>'
            )
        parts.append(svg_text(x + MOST / 2 + 6, y + 4, shortened(node.step, 40)))
        parts.append(svg_text(_WIDTH - 14, y + 4, _numbers(node), "end"))
        parts.append("</g>")
    if not nodes:
        parts.append(svg_text(14, _TOP + _ROW / 2, "No runs yet", size=13))
    return "\n".join([*parts, "</svg>\n"])


def _numbers(node: LineageNode) -> str:
    """Return a run's size and metric in words, or its state where it has none."""
    if not math.isfinite(node.value):
        return node.state
    size = "" if node.size_bytes is None else f"{node.size_bytes / 1e6:.2f} MB, "
    return f"{size}{node.value:.4g}"


def _largest(nodes: Nodes) -> int:
    return max((node.size_bytes or 0 for node in nodes), default=0) or 1


def _diameter(node: LineageNode, largest: int) -> float:
    return max(LEAST, MOST * math.sqrt((node.size_bytes or 0) / largest))


def _top(known: list[float], metric: Metric) -> float:
    """Return the end of the colour scale: twice the best of a lower-is-better metric at most."""
    if not known:
        return 1.0
    return max(known) if metric.higher_is_better else min(max(known), 2 * min(known))


def _hover(metric: Metric, node: LineageNode) -> str:
    lines = [f"<b>{html.escape(node.label)}</b>", html.escape(node.state)]
    if node.size_bytes is not None:
        lines.append(f"{node.size_bytes / 1e6:.2f} MB")
    if math.isfinite(node.value):
        lines.append(f"{html.escape(metric.name)}: {node.value:.4g}")
    return "<br>".join(lines)
