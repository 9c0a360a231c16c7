"""The demo task's texts and options: modules of the standard library that were held out."""

from __future__ import annotations

import platform
from typing import Any

from workbench.demo import stdlib

PARTS = ("calibration", "validation", "evaluation")

DEMO_OPTIONS: dict[str, Any] = {
    "sequence_length": 256,
    "max_evaluation_tokens": 28_000,
    "seed": 0,
    "options": {"demo": 1, "python": platform.python_version()},
}
"""How the demo task is cut; the texts differ between versions of Python, so that counts too."""


def demo_documents() -> dict[str, list[tuple[str, str]]]:
    """Return (name, text) of each source file by part; files absent in this Python are left out."""
    return {
        part: [(document.name, document.text) for document in stdlib.held_out_documents(part)]
        for part in PARTS
    }
