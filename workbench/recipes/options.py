"""Fields that several steps share."""

from __future__ import annotations

from typing import Any

from workbench.recipes.base import option
from workbench.recipes.schemes import GRIDS


def bits() -> Any:
    """Return the field for bits per weight."""
    return option(
        4,
        "Bits per weight. Fewer bits make the model smaller; below 4 bits the method matters.",
        unit="bits",
        minimum=2,
        maximum=8,
        positional=True,
    )


def group_size() -> Any:
    """Return the field for weights per scale."""
    return option(
        128,
        "Consecutive weights of a row that share one scale. Smaller groups follow the weights"
        " more closely and store more scales.",
        unit="weights",
        minimum=8,
        maximum=65536,
        choices=(32, 64, 128, 256, None),
        none_means="one scale per output channel",
    )


def symmetric() -> Any:
    """Return the field for a fixed zero point."""
    return option(
        False,
        "Fix the zero point at the middle of the range. Simpler kernels and a little smaller,"
        " usually a little less accurate.",
    )


def grid() -> Any:
    """Return the field for the number grid of a file format."""
    return option(
        None,
        "Solve on a grid of GGUF's k-quants, whose scales are quantized too, so that llama.cpp runs"
        " these very codes. The name's digit is the bits; the grid brings its own groups.",
        choices=tuple(GRIDS),
        none_means="whole numbers between scales in float16",
        later=True,
    )


OWN_BACKEND = "workbench"


def backend() -> Any:
    """Return the field for the program that solves a step."""
    return option(
        OWN_BACKEND,
        "Which program solves it: the workbench, or GPTQModel in a process of its own, which must"
        " be installed and takes minutes.",
        choices=(OWN_BACKEND, "gptqmodel"),
        later=True,
    )


def damping() -> Any:
    """Return the field for what is added to the Hessian's diagonal."""
    return option(
        0.01,
        "Added to the diagonal of the Hessian as a share of its mean (percdamp). Raise it when"
        " calibration tokens are few.",
        minimum=1e-6,
        maximum=1.0,
    )
