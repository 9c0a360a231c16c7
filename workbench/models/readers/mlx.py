"""Checkpoints of MLX in its affine format, 2 to 8 bits, each layer with bits of its own."""

from __future__ import annotations

from typing import Any

from workbench.errors import UnsupportedArchitectureError
from workbench.models.readers.base import Codes, Tensors
from workbench.tensors.packing import mlx
from workbench.tensors.weights import CompressedWeight

METHOD = "mlx"
"""What the workbench calls the method: MLX's ``quantization`` names none."""


def read_mlx(about: dict[str, Any], tensors: Tensors) -> Codes:
    """Return the codes of an MLX checkpoint."""
    weights: dict[str, CompressedWeight] = {}
    for name in tensors.layers("scales"):
        own = about.get(name)
        own = about | own if isinstance(own, dict) else about
        mode = own.get("mode", "affine")
        if mode != "affine":
            raise UnsupportedArchitectureError(
                f"{name} is stored in MLX's mode {mode!r}; the workbench reads 'affine'."
            )
        found = tensors.take(name, mlx.PARTS)
        weights[name] = mlx.unpack(found, int(own["bits"]), int(own["group_size"]))
    return Codes(weights, tensors.left)
