"""How every figure beside the trade-off looks: transparent, readable on light and dark."""

from __future__ import annotations

import html
from typing import Any

from workbench.views.figures.layout import GRID, INK, SMALL


def look(title: str, subtitle: str = "", *, height: int = 420) -> dict[str, Any]:
    """Return the layout that figures share; the texts are raw and escaped here."""
    text = html.escape(title)
    if subtitle:
        text += f"<br>{SMALL.format(html.escape(subtitle))}"
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True}
    return {
        "title": {
            "text": text,
            "x": 0.01,
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
            "font": {"size": 15},
        },
        "height": height,
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left"},
        "margin": {"l": 20, "r": 20, "t": 74, "b": 50},
        "xaxis": axis,
        "yaxis": axis,
        "autosize": True,
    }
