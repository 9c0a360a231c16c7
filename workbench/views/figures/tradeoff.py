"""Draw the trade-off view as an interactive plotly figure; ``static`` draws it as a picture."""

from __future__ import annotations

import html
import json
import math
import textwrap
from typing import Any

import plotly.graph_objects as go

from workbench.records import Metric
from workbench.selection.compare import PredictedPoint, TradeoffPoint, TradeoffView
from workbench.views.figures.layout import (
    BASELINE_COLOUR,
    GRID,
    HEIGHT,
    HOVER_CHARACTERS,
    INK,
    LEGEND_SHARE,
    NOTE_CHARACTERS,
    SMALL,
    Frame,
    Style,
    axis_title,
    baselines_title,
    details,
    drawn_points,
    families_of,
    footnote,
    front_line,
    predicted_details,
    predicted_line,
    style_of,
    titles,
)
from workbench.views.figures.static import static_svg


class TradeoffFigure(go.Figure):
    """A plotly figure that a notebook shows live, and as a small picture where nothing runs.

    Plotly's own output carries 5 MB of JavaScript into a notebook, or nothing that GitHub shows.
    """

    _ipython_display_ = None
    _repr_html_ = None
    _view = TradeoffView(Metric(""))
    _log_x = False

    @property
    def view(self) -> TradeoffView:
        """What the figure was drawn from."""
        return self._view

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "image/svg+xml": static_svg(self._view, log_x=self._log_x),
            "text/plain": ". ".join(titles(self._view)),
        }


def tradeoff_figure(view: TradeoffView, *, log_x: bool = False) -> TradeoffFigure:
    """Return the metric against size: families, baselines, 95 % error bars and the Pareto front.

    Parameters
    ----------
    view : TradeoffView
        From :func:`workbench.selection.compare.tradeoff_view`.
    log_x : bool
        Whether the size axis is logarithmic.

    Returns
    -------
    TradeoffFigure
        A plotly figure, transparent, readable on light and dark. Points of less than half
        the best baseline's quality are drawn as arrows at the edge, their value in the hover.
        Predictions are hollow, with a thin dashed front of their own. Every figure has the same
        traces in the same order (both fronts, baselines, two per method: predicted and measured),
        so that :func:`update_figure` can change a live one in place.
    """
    frame = Frame.of(view, log_x=log_x)
    figure = TradeoffFigure()
    figure._view, figure._log_x = view, log_x
    corners, expected = front_line(view, frame), predicted_line(view, frame)
    figure.add_scatter(**_line("Pareto front", corners, width=1.5, dash="dot"))
    figure.add_scatter(**_line("predicted front", expected, width=1, dash="10px,5px"))
    points = drawn_points(view, frame)
    baselines = [point for point in points if point.is_baseline]
    figure.add_scatter(
        **_points(baselines_title(view), baselines, BASELINE_COLOUR, "diamond", view, frame)
    )
    figure.data[-1].update(
        mode="markers+text",
        text=[html.escape(point.model) for point in baselines],
        textposition="bottom left",
        textfont={"color": INK, "size": 11},
    )
    for family in families_of(view):
        style = style_of(family)
        members = [p for p in points if p.family == family and not p.is_baseline]
        members.sort(key=frame.is_off_scale)  # the legend shows the first marker
        predicted = [p for p in view.predicted if p.family == family and frame.shows(p)]
        hollow = _hollow_points(family, predicted, style, view)
        figure.add_scatter(**hollow, showlegend=bool(predicted) and not members)
        figure.add_scatter(
            **_points(family, members, style.colour, style.symbol, view, frame, style.edge)
        )
    figure.update_layout(_layout(view, frame))
    return figure


def _line(
    name: str, corners: list[tuple[float, float]], *, width: float, dash: str
) -> dict[str, Any]:
    """Return the trace of a front's staircase."""
    return {
        "x": [x for x, _ in corners],
        "y": [y for _, y in corners],
        "mode": "lines",
        "name": name,
        "line": {"color": INK, "width": width, "dash": dash, "simplify": False},
        "hoverinfo": "skip",
        "showlegend": bool(corners),
    }


def _points(
    name: str,
    points: list[TradeoffPoint],
    colour: str,
    symbol: str,
    view: TradeoffView,
    frame: Frame,
    edge: str = "",
) -> dict[str, Any]:
    arrow = "arrow-down" if frame.higher_is_better else "arrow-up"
    off = [frame.is_off_scale(point) for point in points]
    up, down = [], []
    for point, away in zip(points, off, strict=True):
        low, high = (point.value,) * 2 if away or not point.interval else point.interval
        up.append(high - point.value)
        down.append(point.value - low)
    return {
        "name": html.escape(name),
        "x": [point.across for point in points],
        "y": [frame.height(point) for point in points],
        "mode": "markers",
        "marker": {
            "color": colour,
            "size": [12 if point.on_front or point.is_baseline else 8 for point in points],
            "opacity": 1.0,
            "symbol": [arrow if away else symbol for away in off],
            "line": {"width": 2.5 if edge else 0, "color": edge or colour},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "color": _faint(colour),
            "thickness": 1.5,
            "width": 0,
            "visible": any(up) or any(down),
        },
        "hoverinfo": "text",
        "hovertext": [_hover(view, point, frame) for point in points],
        "customdata": [point.run_id for point in points],
        "showlegend": bool(points),
    }


def _hollow_points(
    family: str, points: list[PredictedPoint], style: Style, view: TradeoffView
) -> dict[str, Any]:
    return {
        "name": html.escape(f"{family}, predicted"),
        "x": [point.across for point in points],
        "y": [point.value for point in points],
        "mode": "markers",
        "marker": {
            "color": style.colour,
            "size": 9,
            "symbol": f"{style.symbol}-open",
            "line": {"width": 1.5},
        },
        "hoverinfo": "text",
        "hovertext": [hover_text(predicted_details(view, point)) for point in points],
        "customdata": [point.recipe.id for point in points],
    }


def _faint(colour: str) -> str:
    """Return a colour such as ``"#0072B2"`` half transparent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.5)"


def _hover(view: TradeoffView, point: TradeoffPoint, frame: Frame) -> str:
    lines = details(view, point)
    if frame.is_off_scale(point):
        lines.append("off scale: drawn at the edge")
    return hover_text(lines)


def hover_text(lines: list[str]) -> str:
    """Return lines as HTML, the first one bold."""
    # a label that is wider than half of the plot would lie on its point
    wrapped = [part for line in lines for part in textwrap.wrap(line, HOVER_CHARACTERS) or [""]]
    first, *others = [html.escape(line) for line in wrapped]
    return "<br>".join([f"<b>{first}</b>", *others])


def _layout(view: TradeoffView, frame: Frame) -> dict[str, Any]:
    title, subtitle = titles(view)
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": GRID,
        "title_standoff": 10,
    }
    x = [math.log10(end) for end in frame.x] if frame.log_x else list(frame.x)
    # always the same two notes, so that a live figure can be updated in place; an empty text
    # would be shown as "new text"
    where = {"xref": "paper", "yref": "paper", "showarrow": False}
    lines = textwrap.wrap(footnote(view, frame), NOTE_CHARACTERS) or [" "]
    notes = [
        {
            **where, "x": 1, "y": 0, "yshift": -50, "xanchor": "right", "yanchor": "top",
            "align": "right", "font": {"size": 11}, "text": "<br>".join(map(html.escape, lines)),
        },
        {
            **where, "x": 0.5, "y": 0.5, "font": {"size": 16},
            "text": " " if view.points else "No measured runs yet",
        },
    ]  # fmt: skip
    return {
        "title": {
            "text": f"{html.escape(title)}<br>{SMALL.format(html.escape(subtitle))}",
            "y": 0.97,
            "yanchor": "top",
            "x": 0.01,
            "xanchor": "left",
            "font": {"size": 18},
        },
        "xaxis": {
            **axis,
            "title": {"text": view.axis.title},
            "type": "log" if frame.log_x else "linear",
            "range": x,
            # plotly labels 20 on a log axis as a cryptic small 2
            "tickmode": "array" if frame.log_x else "auto",
            "tickvals": frame.x_ticks if frame.log_x else None,
        },
        "yaxis": {**axis, "title": {"text": html.escape(axis_title(view))}, "range": list(frame.y)},
        "annotations": notes,
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 13},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1, "font": {"size": 12}},
        "legend": {
            "itemsizing": "constant",
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "maxheight": LEGEND_SHARE,
            "font": {"size": 11},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": "#0072B2"},
        "margin": {"l": 70, "r": 20, "t": 112, "b": 58 + 15 * len(lines)},
        "height": HEIGHT,
        "autosize": True,
        "uirevision": "keep",
    }


def update_figure(figure: go.FigureWidget, view: TradeoffView, *, log_x: bool = False) -> None:
    """Make a live figure show another view, in place and in one message to the browser.

    Mutates ``figure``, which must come from :func:`tradeoff_figure`. The axes move only when
    their ranges change, so a zoom survives updates that add nothing outside.
    """
    new = tradeoff_figure(view, log_x=log_x)
    with figure.batch_update():
        for index, trace in enumerate(new.data):
            if index < len(figure.data):
                values = trace.to_plotly_json()
                values.pop("type")
                figure.data[index].update(values, overwrite=False)
        figure.layout.update(new.layout.to_plotly_json())
    if len(new.data) > len(figure.data):
        figure.add_traces(new.data[len(figure.data) :])
