"""The trade-off view as a small SVG, for places where no JavaScript runs."""

from __future__ import annotations

import html
import math
import textwrap

from workbench.selection.compare import TradeoffView
from workbench.views.figures.layout import (
    BASELINE_COLOUR,
    INK,
    NOTE_CHARACTERS,
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
from workbench.views.figures.svg import svg_text as _text

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 610, 66, 380

_DOTTED = 'stroke-width="1.5" stroke-dasharray="2 3"'
_DASHED = 'stroke-width="1" stroke-dasharray="6 4"'

_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
    "triangle-up": [(0, -6.5), (6, 5), (-6, 5)],
    "diamond": [(0, -8), (6, 0), (0, 8), (-6, 0)],
    "x": [
        (-6, -3.5), (-3.5, -6), (0, -2.5), (3.5, -6), (6, -3.5), (2.5, 0),
        (6, 3.5), (3.5, 6), (0, 2.5), (-3.5, 6), (-6, 3.5), (-2.5, 0),
    ],
    "cross": [
        (-2, -6), (2, -6), (2, -2), (6, -2), (6, 2), (2, 2),
        (2, 6), (-2, 6), (-2, 2), (-6, 2), (-6, -2), (-2, -2),
    ],
    "arrow-up": [(0, -8), (6, 6), (0, 2), (-6, 6)],
    "arrow-down": [(0, 8), (6, -6), (0, -2), (-6, -6)],
}  # fmt: skip


def static_svg(view: TradeoffView, *, log_x: bool = False) -> str:
    """Return the trade-off plot as an SVG document of a few kilobytes.

    It has no script, no external resource and a transparent background; every text that came
    from data is escaped, and each point carries its details as a tooltip.
    """
    frame = Frame.of(view, log_x=log_x)
    title, subtitle = titles(view)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif"'
        f' font-size="12" fill="{INK}">',
        f"<title>{html.escape(title)}</title>",
        f"<desc>{html.escape(subtitle)}</desc>",
        _text(_LEFT, 26, title, size=17),
        _text(_LEFT, 47, subtitle, size=13),
    ]
    parts += _axes(view, frame)
    corners, expected = front_line(view, frame), predicted_line(view, frame)
    parts += _line(corners, frame, _DOTTED) + _line(expected, frame, _DASHED)
    points = drawn_points(view, frame)
    legend: list[tuple[str, Style, bool]] = []
    groups = [(baselines_title(view), Style(BASELINE_COLOUR, "diamond"))]
    groups += [(family, style_of(family)) for family in families_of(view)]
    for name, style in groups:
        members = [
            p
            for p in points
            if (p.is_baseline and style.symbol == "diamond")
            or (p.family == name and not p.is_baseline)
        ]
        predicted = [p for p in view.predicted if p.family == name and frame.shows(p)]
        if members or predicted:
            legend.append((name, style, not members))
        for guess in predicted:
            tip = html.escape("\n".join(predicted_details(view, guess)))
            x, y = _x(guess.across, frame), _y(guess.value, frame)
            marker = _marker(x, y, style.symbol, style.colour, hollow=True)
            parts.append(f"<g><title>{tip}</title>{marker}</g>")
        for point in members:
            x = _x(point.across, frame)
            y = _y(frame.height(point), frame)
            off = frame.is_off_scale(point)
            arrow = "arrow-down" if frame.higher_is_better else "arrow-up"
            scale = 1.0 if point.on_front or point.is_baseline else 0.7
            tip = html.escape("\n".join(details(view, point)))
            parts.append(f"<g><title>{tip}</title>")
            if point.interval and not off:
                low, high = (_y(end, frame) for end in point.interval)
                parts.append(
                    f'<path d="M{x:.1f} {high:.1f}V{low:.1f}" stroke="{style.colour}"'
                    ' stroke-opacity="0.5" stroke-width="1.5" fill="none"/>'
                )
            symbol = arrow if off else style.symbol
            parts.append(_marker(x, y, symbol, style.colour, scale, edge=style.edge))
            if point.is_baseline:
                parts.append(_text(x - 9, y + 16, point.model, anchor="end", size=11))
            parts.append("</g>")
    lines = [("Pareto front", _DOTTED)] if corners else []
    lines += [("predicted", _DASHED)] if expected else []
    for row, (name, dashes) in enumerate(lines):
        y = _TOP + 10 + 20 * row
        parts.append(f'<path d="M{_RIGHT + 12} {y}h20" stroke="{INK}" {dashes}/>')
        if dashes == _DASHED:
            parts.append(_marker(_RIGHT + 22, y, "circle", INK, 0.8, hollow=True))
        parts.append(_text(_RIGHT + 40, y + 4, name))
    for row, (name, style, hollow) in enumerate(legend, start=max(1, len(lines))):
        y = _TOP + 10 + 20 * row
        parts.append(
            _marker(_RIGHT + 22, y, style.symbol, style.colour, hollow=hollow, edge=style.edge)
        )
        parts.append(_text(_RIGHT + 40, y + 4, name))
    if not view.points:
        parts.append(_text((_LEFT + _RIGHT) / 2, 220, "No measured runs yet", "middle", 16))
    notes = textwrap.wrap(footnote(view, frame), NOTE_CHARACTERS)
    for row, line in enumerate(reversed(notes)):
        parts.append(_text(_WIDTH - 10, _HEIGHT - 8 - 14 * row, line, "end", 11))
    return "\n".join([*parts, "</svg>\n"])


def _axes(view: TradeoffView, frame: Frame) -> list[str]:
    parts = [f'<g stroke="{INK}" stroke-opacity="0.3">']
    parts += [f'<path d="M{_x(t, frame):.1f} {_TOP}V{_BOTTOM + 5}"/>' for t in frame.x_ticks]
    parts += [f'<path d="M{_LEFT - 5} {_y(t, frame):.1f}H{_RIGHT}"/>' for t in frame.y_ticks]
    parts.append("</g>")
    parts += [_text(_x(t, frame), _BOTTOM + 20, f"{t:g}", "middle") for t in frame.x_ticks]
    parts += [_text(_LEFT - 9, _y(t, frame) + 4, f"{t:g}", "end") for t in frame.y_ticks]
    middle = (_LEFT + _RIGHT) / 2
    parts.append(_text(middle, _BOTTOM + 44, view.axis.title, "middle", 13))
    name = html.escape(axis_title(view))
    parts.append(
        f'<text transform="translate(18 {(_TOP + _BOTTOM) / 2}) rotate(-90)"'
        f' text-anchor="middle" font-size="13">{name}</text>'
    )
    return parts


def _x(value: float, frame: Frame) -> float:
    low, high = frame.x
    if frame.log_x:
        low, high, value = math.log10(low), math.log10(high), math.log10(value)
    return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)


def _y(value: float, frame: Frame) -> float:
    low, high = frame.y
    return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)


def _line(corners: list[tuple[float, float]], frame: Frame, dashes: str) -> list[str]:
    if not corners:
        return []
    places = " ".join(f"{_x(x, frame):.1f},{_y(y, frame):.1f}" for x, y in corners)
    return [f'<polyline points="{places}" fill="none" stroke="{INK}" {dashes}/>']


def _marker(
    x: float,
    y: float,
    symbol: str,
    colour: str,
    scale: float = 1.0,
    *,
    hollow: bool = False,
    edge: str = "",
) -> str:
    paint = f'fill="{colour}"' + (f' stroke="{edge}" stroke-width="2"' if edge else "")
    if hollow:  # a tooltip shows over the inside too
        paint = f'fill="none" stroke="{colour}" stroke-width="1.3" pointer-events="all"'
    outline = _OUTLINES[symbol] if symbol in _OUTLINES else _polygon(symbol)
    if not outline:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5.5 * scale:.1f}" {paint}/>'
    points = " ".join(f"{x + scale * dx:.1f},{y + scale * dy:.1f}" for dx, dy in outline)
    return f'<polygon points="{points}" {paint}/>'


def _polygon(symbol: str) -> list[tuple[float, float]]:
    """Return the corners of a star, pentagon or hexagon; none for a circle."""
    corners = {"star": 10, "pentagon": 5, "hexagon": 6}.get(symbol, 0)
    outline = []
    for corner in range(corners):
        radius = 3.0 if symbol == "star" and corner % 2 else 7.0
        angle = 2 * math.pi * corner / corners
        outline.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return outline
