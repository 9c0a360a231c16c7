"""What the pictures that need no JavaScript are written with."""

from __future__ import annotations

import html


def svg_text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    """Return an element with a text, which is escaped; ``x`` and ``y`` in pixels."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{html.escape(text)}</text>"
    )
