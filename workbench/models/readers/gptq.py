"""Checkpoints of AutoGPTQ, GPTQModel and others in GPTQ's format."""

from __future__ import annotations

import re
from typing import Any

from workbench.errors import UnsupportedArchitectureError
from workbench.models.readers.base import Codes, Tensors, group_size_of
from workbench.tensors.packing import gptq
from workbench.tensors.weights import CompressedWeight

_VERSIONS = {"gptq": 1, "gptq_v2": 2}


def read_gptq(about: dict[str, Any], tensors: Tensors) -> Codes:
    """Return the codes of a GPTQ checkpoint.

    Per-layer settings of GPTQModel (``dynamic``) are followed.
    """
    format = about.get("checkpoint_format") or about.get("format") or "gptq"
    if format not in _VERSIONS:
        known = " and ".join(_VERSIONS)
        raise UnsupportedArchitectureError(
            f"its checkpoint_format is {format!r}; the workbench reads {known}."
        )
    weights: dict[str, CompressedWeight] = {}
    for name in tensors.layers("qweight"):
        own = about | _dynamic(about.get("dynamic") or {}, name)
        weights[name] = gptq.unpack(
            tensors.take(name, ("qweight", "qzeros", "scales"), ("g_idx",)),
            int(own["bits"]),
            group_size_of(own["group_size"]),
            _VERSIONS[format],
        )
    return Codes(weights, tensors.left)


def _dynamic(rules: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a checkpoint says of one layer in particular: the first rule that matches."""
    for pattern, values in rules.items():
        if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), name):
            return dict(values)
    return {}
