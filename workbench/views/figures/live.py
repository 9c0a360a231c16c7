"""The trade-off as the application shows it: with what is selected, drafted, waiting and asked."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from workbench.selection.compare import PredictedPoint, TradeoffView
from workbench.views.figures.layout import INK, Frame, predicted_details
from workbench.views.figures.tradeoff import hover_text, tradeoff_figure
from workbench.views.run_names import distinct

SELECTED = "#D55E00"
DRAFT = "#CC79A7"
ACCEPTED = "#009E73"
OVERLAYS = 4
"""Traces before those of the trade-off."""


@dataclass(frozen=True)
class Overlay:
    """What is drawn beside the runs and predictions of a study.

    Attributes
    ----------
    draft : PredictedPoint or None
        The recipe that is being edited; predicted, not measured.
    pending : tuple of (PredictedPoint, str)
        Recipes that wait or are being computed, and which of the two.
    selected : tuple of str
        Ids of the selected runs.
    most : float or None
        The most that is accepted on the axis, in its unit.
    bar : float or None
        The worst accepted value of the metric.
    labelled : bool
        Whether runs on the front, selected ones and those with a star are named in the plot.
    starred : tuple of str
        Ids of runs with a star.
    """

    draft: PredictedPoint | None = None
    pending: tuple[tuple[PredictedPoint, str], ...] = ()
    selected: tuple[str, ...] = ()
    most: float | None = None
    bar: float | None = None
    labelled: bool = False
    starred: tuple[str, ...] = ()


MOST_LABELS = 24


def live_figure(
    view: TradeoffView, overlay: Overlay, *, log_x: bool = False, log_y: bool = False
) -> go.Figure:
    """Return the trade-off with an overlay.

    The overlay's traces come first, always :data:`OVERLAYS` of them, then those of
    :func:`workbench.views.figures.tradeoff_figure`.
    """
    frame = frame_with(view, overlay.draft, log_x=log_x)
    base = tradeoff_figure(view, log_x=log_x)
    figure = go.Figure()
    figure.add_scatter(**ring(view, overlay.selected, frame))
    figure.add_scatter(**_pending(view, overlay, frame))
    figure.add_scatter(**labels_trace(view, overlay, frame))
    figure.add_scatter(**draft_trace(view, overlay.draft, frame))
    figure.add_traces(base.data)
    layout = base.layout.to_plotly_json()
    layout["title"] = {"text": ""}
    layout["margin"] = {"l": 64, "r": 16, "t": 34, "b": 54}
    layout["annotations"][0]["text"] = " "  # the application writes it below, where it wraps
    layout["annotations"] = [*layout["annotations"], region_note(overlay, frame)]
    layout["legend"] |= {"yref": "container", "y": 0, "yanchor": "bottom"}  # never under the tools
    layout["height"] = 450
    layout["shapes"] = [region(overlay, frame)]
    layout["dragmode"] = "zoom"
    layout["xaxis"]["range"] = x_range(frame)
    low, high = layout["yaxis"]["range"]
    if log_y and high > 0:
        known = [p.value for p in view.points if p.value > 0]
        low = max(low, min(known, default=high) / 2, 1e-9)
        layout["yaxis"] |= {"type": "log", "range": [math.log10(low), math.log10(high)]}
    else:
        layout["yaxis"]["type"] = "linear"
    figure.update_layout(layout)
    return figure


def frame_with(view: TradeoffView, draft: PredictedPoint | None, *, log_x: bool = False) -> Frame:
    """Return the frame of a view, with room on the axis for the recipe that is being edited."""
    frame = Frame.of(view, log_x=log_x)
    if draft is None or draft.across <= 0:
        return frame
    left, right = frame.x
    room = draft.across * 0.06
    return replace(frame, x=(min(left, draft.across - room), max(right, draft.across + room)))


def x_range(frame: Frame) -> list[float]:
    """Return the range of the horizontal axis as plotly wants it."""
    return [math.log10(end) for end in frame.x] if frame.log_x else list(frame.x)


def update_live(
    figure: go.FigureWidget,
    view: TradeoffView,
    overlay: Overlay,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Make a live figure show another view and overlay, in one message to the browser."""
    new = live_figure(view, overlay, log_x=log_x, log_y=log_y)
    with figure.batch_update():
        for old, trace in zip(figure.data, new.data, strict=False):
            old.update(_changed(old, trace), overwrite=False)
        figure.layout.update(_changed(figure.layout, new.layout))
    if len(new.data) > len(figure.data):
        figure.add_traces(new.data[len(figure.data) :])


def _changed(shown: Any, wanted: Any) -> dict[str, Any]:
    """Return what is to be set: most is as it was, and plotly takes long to set it again."""
    known = shown.to_plotly_json()
    return {
        name: value
        for name, value in wanted.to_plotly_json().items()
        if name != "type" and not (name in known and _is_equal(known[name], value))
    }


def _is_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays, which have no single answer
        return False


def ring(view: TradeoffView, selected: tuple[str, ...], frame: Frame) -> dict[str, Any]:
    """Return the trace of rings around selected runs."""
    chosen = [point for point in view.points if point.run_id in selected]
    return {
        "name": "selected",
        "x": [point.across for point in chosen],
        "y": [frame.height(point) for point in chosen],
        "mode": "markers",
        "marker": {
            "symbol": "circle-open",
            "size": 22,
            "color": SELECTED,
            "line": {"width": 2.5, "color": SELECTED},
        },
        "hoverinfo": "skip",
        "showlegend": False,
    }


def labels_trace(view: TradeoffView, overlay: Overlay, frame: Frame) -> dict[str, Any]:
    """Return the trace of names beside points; empty unless they are asked for."""
    wanted = {*overlay.selected, *overlay.starred}
    chosen = [p for p in view.points if overlay.labelled and (p.on_front or p.run_id in wanted)]
    chosen.sort(key=lambda point: point.run_id not in wanted)
    chosen = chosen[:MOST_LABELS]
    names = distinct([point.label for point in chosen], 28)
    return {
        "name": "names",
        "x": [point.across for point in chosen],
        "y": [frame.height(point) for point in chosen],
        "mode": "text",
        "text": [html.escape(name) for name in names],
        "textposition": "bottom right",
        "textfont": {"size": 10},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def draft_trace(view: TradeoffView, draft: PredictedPoint | None, frame: Frame) -> dict[str, Any]:
    """Return the trace of the recipe that is being edited, at the edge where it is far off."""
    points = [] if draft is None else [draft]
    low, high = frame.y
    inset = 0.035 * (high - low)
    heights = [min(max(p.value, low + inset), high - inset) for p in points]
    off = [not low <= p.value <= high for p in points]
    spread = [p.interval or (p.value, p.value) for p in points]
    shown = zip(points, spread, off, strict=True)
    ends = [(0.0, 0.0) if away else (hi - p.value, p.value - lo) for p, (lo, hi), away in shown]
    words = [[*predicted_details(view, p), "Run measures it"] for p in points]
    return {
        "name": "this recipe, predicted",
        "x": [p.across for p in points],
        "y": heights,
        "mode": "markers",
        "marker": {
            "symbol": ["arrow-down-open" if away else "diamond-open" for away in off],
            "size": 15,
            "color": DRAFT,
            "line": {"width": 2.5, "color": DRAFT},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [up for up, _ in ends],
            "arrayminus": [down for _, down in ends],
            "color": DRAFT,
            "thickness": 1.5,
            "width": 6,
            "visible": bool(points),
        },
        "hoverinfo": "text",
        "hovertext": [hover_text(lines) for lines in words],
        "showlegend": bool(points),
    }


def _pending(view: TradeoffView, overlay: Overlay, frame: Frame) -> dict[str, Any]:
    shown = [(p, state) for p, state in overlay.pending if frame.shows(p)]
    return {
        "name": "queued or running",
        "x": [p.across for p, _ in shown],
        "y": [p.value for p, _ in shown],
        "mode": "markers",
        "marker": {
            "symbol": [
                "hourglass-open" if state == "running" else "circle-open-dot" for _, state in shown
            ],
            "size": 14,
            "color": INK,
            "line": {"width": 2, "color": INK},
        },
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{html.escape(p.label)}</b><br>{state}; the place is predicted"
            for p, state in shown
        ],
        "showlegend": bool(shown),
    }


def region(overlay: Overlay, frame: Frame) -> dict[str, Any]:
    """Return the rectangle of what is accepted; always one, so that a figure can be updated."""
    asked = overlay.most is not None or overlay.bar is not None
    low, high = (overlay.bar, None) if frame.higher_is_better else (None, overlay.bar)
    left, right = frame.x
    far = 10 * (abs(frame.y[0]) + abs(frame.y[1]))
    return {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "layer": "below",
        "x0": left / 1e3,
        "x1": right * 1e3 if overlay.most is None else overlay.most,
        "y0": frame.y[0] - far if low is None else low,
        "y1": frame.y[1] + far if high is None else high,
        "fillcolor": ACCEPTED,
        "opacity": 0.12,
        "line": {"width": 0},
        "visible": asked,
    }


def region_note(overlay: Overlay, frame: Frame) -> dict[str, Any]:
    """Return the words in the zone of what is accepted; always one, as for :func:`region`."""
    note: dict[str, Any] = {"showarrow": False, "font": {"size": 11, "color": ACCEPTED}}
    if overlay.bar is not None:
        above = frame.higher_is_better
        note |= {"xref": "x domain", "x": 0.01, "xanchor": "left", "yref": "y", "y": overlay.bar}
        note |= {"yanchor": "bottom" if above else "top"}
        words = f"passes: {'at least' if above else 'at most'} {overlay.bar:.4g}"
    elif overlay.most is not None:
        place = math.log10(overlay.most) if frame.log_x else overlay.most
        note |= {"xref": "x", "x": place, "xanchor": "right", "yref": "y domain", "y": 0.99}
        note |= {"yanchor": "top"}
        words = f"passes: at most {overlay.most:g}"
    else:
        note |= {"xref": "paper", "x": 0, "yref": "paper", "y": 0}
        words = " "
    return {**note, "text": words}
