"""A small picture of a few lines and points as SVG, for pages without JavaScript."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.views.figures.layout import INK

_WIDTH, _HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 540, 40, 250


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Attributes
    ----------
    name : str
        In the legend.
    x, y : sequence of float
    colour : str
    line : bool
        Joined, else marked.
    dashed : bool
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = INK
    line: bool = False
    dashed: bool = False


def small_svg(
    title: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    y_percent: bool = True,
    x_percent: bool = False,
) -> str:
    """Return a picture of a few kilobytes; every text in it is escaped.

    Parameters
    ----------
    title, x_title, y_title : str
    series : sequence of Series
    x_range, y_range : (float, float), optional
        Default: what is drawn, with a margin.
    x_percent, y_percent : bool
        Whether an axis is written as a percentage.
    """
    xs = [value for one in series for value in one.x]
    ys = [value for one in series for value in one.y]
    across, up = x_range or _padded(xs), y_range or _padded(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (_RIGHT - _LEFT) * (x - across[0]) / (across[1] - across[0]),
            _BOTTOM - (_BOTTOM - _TOP) * (y - up[0]) / (up[1] - up[0]),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif"'
        f' font-size="12" fill="{INK}">',
        f"<title>{html.escape(title)}</title>",
        f'<text x="{_LEFT}" y="22" font-size="15">{html.escape(title)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="{INK}"'
        ' stroke-opacity="0.4"/>',
    ]
    for part in range(5):
        x = across[0] + (across[1] - across[0]) * part / 4
        y = up[0] + (up[1] - up[0]) * part / 4
        left, low = place(x, up[0])[0], place(across[0], y)[1]
        parts.append(_text(left, _BOTTOM + 17, _number(x, x_percent), "middle"))
        parts.append(_text(_LEFT - 7, low + 4, _number(y, y_percent), "end"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, x_title, "middle"))
    parts.append(
        f'<text transform="translate(14 {(_TOP + _BOTTOM) / 2}) rotate(-90)"'
        f' text-anchor="middle">{html.escape(y_title)}</text>'
    )
    for row, one in enumerate(series):
        places = [place(x, y) for x, y in zip(one.x, one.y, strict=True)]
        dashes = ' stroke-dasharray="4 4"' if one.dashed else ""
        y = _BOTTOM + 56 + 16 * row
        if one.line:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            style = f'fill="none" stroke="{one.colour}" stroke-width="1.5"{dashes}'
            parts.append(f'<polyline points="{points}" {style}/>')
            parts.append(f'<path d="M{_LEFT} {y - 4}h20" {style}/>')
        else:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{one.colour}"/>'
                for x, y in [*places, (_LEFT + 10, y - 4)]
            ]
        parts.append(_text(_LEFT + 28, y, one.name))
    return "\n".join([*parts, "</svg>\n"])


def _padded(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _number(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
