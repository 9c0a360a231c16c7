"""onnxruntime's ``MatMulNBits`` and ``GatherBlockQuantized`` (operators of com.microsoft).

Codes uint8 (out, blocks, block·bits/8), lowest bits first; zero points uint8 (out, bytes), packed
alike along the blocks of a row and left out where all are the middle code. They restore
``scale * (code - zero)``. Blocks have 16, 32, 64, 128 or 256 inputs; longer groups are written as
several that share their
scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing.bit_words import pack_words, unpack_words
from workbench.tensors.weights import QuantizedWeight

BITS = (2, 4, 8)
BLOCKS = (256, 128, 64, 32, 16)


def block_size(scheme: IntScheme, in_features: int) -> int | None:
    """Return the format's block size for a scheme, None if it has none that fits.

    Examples
    --------
    >>> block_size(IntScheme(4, 512), 1024), block_size(IntScheme(4, 8), 1024)
    (256, None)
    """
    return scheme.block_length(in_features, BLOCKS)


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    """Return a layer's codes, its scales in float16, and zero points if it is asymmetric.

    Parameters
    ----------
    weight : QuantizedWeight
        Without input scales, of a scheme that has a :func:`block_size`.
    """
    (rows, columns), bits = weight.shape, weight.scheme.bits
    size = block_size(weight.scheme, columns)
    assert size is not None
    repeats = weight.scheme.group_length(columns) // size
    codes = pack_words(weight.codes, bits).view(torch.uint8)
    tensors = {
        "codes": codes.reshape(rows, columns // size, size * bits // 8),
        "scales": weight.scales.repeat_interleave(repeats, dim=1).contiguous(),
    }
    if weight.zeros is not None:
        zeros = pack_words(weight.zeros.repeat_interleave(repeats, dim=1), bits).view(torch.uint8)
        tensors["zeros"] = zeros[:, : _zero_bytes(columns // size, bits)].contiguous()
    return tensors


def unpack(tensors: dict[str, Tensor], bits: int) -> QuantizedWeight:
    """Return the weight of a layer's tensors; undo :func:`pack`."""
    packed, scales = tensors["codes"], tensors["scales"]
    rows, blocks, n_bytes = packed.shape
    size = n_bytes * 8 // bits
    words = packed.reshape(rows, -1).contiguous().view(torch.int32)
    codes = unpack_words(words, bits, blocks * size)
    zeros = tensors.get("zeros")
    if zeros is not None:
        filled = torch.nn.functional.pad(zeros, (0, -zeros.shape[1] % 4)).contiguous()
        zeros = unpack_words(filled.view(torch.int32), bits, blocks)
    return QuantizedWeight(codes, scales.half(), zeros, IntScheme(bits, size, zeros is None))


def packed_bytes(shape: tuple[int, int], scheme: IntScheme) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    rows, columns = shape
    size = block_size(scheme, columns)
    assert size is not None
    blocks = columns // size
    zeros = 0 if scheme.symmetric else _zero_bytes(blocks, scheme.bits)
    return rows * (columns * scheme.bits // 8 + 2 * blocks + zeros)


def _zero_bytes(blocks: int, bits: int) -> int:
    return (blocks * bits + 7) // 8
