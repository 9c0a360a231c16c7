"""Checkpoints of AutoAWQ and GPTQModel in AWQ's GEMM format."""

from __future__ import annotations

from typing import Any

from workbench.errors import UnsupportedArchitectureError
from workbench.models.readers.base import Codes, Tensors, group_size_of
from workbench.tensors.packing import awq
from workbench.tensors.weights import CompressedWeight


def read_awq(about: dict[str, Any], tensors: Tensors) -> Codes:
    """Return the codes of an AWQ checkpoint."""
    version = str(about.get("version") or about.get("checkpoint_format") or "gemm").lower()
    bits = int(about.get("bits", about.get("w_bit", 4)))
    if version != "gemm" or bits != 4:
        raise UnsupportedArchitectureError(
            f"its AWQ version is {version!r} with {bits} bits; the workbench reads 'gemm' with 4."
        )
    group_size = group_size_of(about.get("group_size", about.get("q_group_size")))
    weights: dict[str, CompressedWeight] = {
        name: awq.unpack(tensors.take(name, ("qweight", "qzeros", "scales")), group_size)
        for name in tensors.layers("qweight")
    }
    return Codes(weights, tensors.left)
