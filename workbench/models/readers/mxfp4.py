"""Checkpoints with experts in MXFP4, as gpt-oss is published: dense from then on."""

from __future__ import annotations

from typing import Any

from workbench.models.readers.base import Codes, Tensors


def read_mxfp4(about: dict[str, Any], tensors: Tensors) -> Codes:
    """Return an MXFP4 checkpoint's dense tensors; every value is exact in bfloat16.

    A block is 16 bytes of 32 e2m1 values, low nibble first, times a power of two (OCP
    Microscaling Formats v1.0, section 5). No scheme of ours has such codes, so none are kept.
    """
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    names = [name for name in tensors.left if name.endswith("_blocks")]
    for name in names:
        stem = name.removesuffix("_blocks")
        blocks, scales = tensors.left.pop(name), tensors.left.pop(f"{stem}_scales")
        tensors.left[stem] = convert_moe_packed_tensors(blocks, scales)
    return Codes({}, tensors.left)
