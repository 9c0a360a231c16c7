"""The integer formats of compressed-tensors, which llm-compressor writes and vLLM reads.

``pack-quantized``: ``weight_packed`` int32 (out, in·bits/32) holds codes from 0, ``weight_scale``
(out, groups), ``weight_shape`` int64 (2,), and for asymmetric weights ``weight_zero_point`` int32
(out·bits/32, groups), packed along the outputs. ``int-quantized``: ``weight`` int8 (out, in), codes
around 0, and ``weight_scale``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing.bit_words import pack_words, unpack_words, words_bytes
from workbench.tensors.weights import QuantizedWeight


def pack(weight: QuantizedWeight, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a layer's tensors in ``pack-quantized``; scales in the model's own dtype."""
    bits = weight.scheme.bits
    tensors = {
        "weight_packed": pack_words(weight.codes, bits),
        "weight_scale": weight.scales.to(dtype),
        "weight_shape": torch.tensor(weight.shape, dtype=torch.int64),
    }
    if weight.zeros is not None:
        tensors["weight_zero_point"] = pack_words(weight.zeros.T, bits).T.contiguous()
    return tensors


def packed_bytes(shape: tuple[int, int], scheme: IntScheme, dtype: torch.dtype) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    rows, columns = shape
    groups = scheme.n_groups(columns)
    total = rows * words_bytes(columns, scheme.bits) + rows * groups * dtype.itemsize + 16
    return total if scheme.symmetric else total + groups * words_bytes(rows, scheme.bits)


def unpack(tensors: dict[str, Tensor], bits: int, group_size: int | None) -> QuantizedWeight:
    """Return the weight of a layer's tensors in ``pack-quantized``."""
    rows, columns = (int(n) for n in tensors["weight_shape"])
    scales = _scales(tensors["weight_scale"], rows)
    zeros = tensors.get("weight_zero_point")
    if zeros is not None:
        zeros = unpack_words(zeros.T.contiguous(), bits, rows).T.contiguous()
    scheme = IntScheme(bits, group_size if scales.shape[1] > 1 else None, zeros is None)
    codes = unpack_words(tensors["weight_packed"], bits, columns)
    return QuantizedWeight(codes, scales, zeros, scheme)


def pack_int8(weight: QuantizedWeight, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a symmetric layer's tensors in ``int-quantized``; scales in the model's own dtype."""
    assert weight.zeros is None
    codes = weight.codes.to(torch.int16) - weight.scheme.middle
    return {"weight": codes.to(torch.int8), "weight_scale": weight.scales.to(dtype)}


def int8_bytes(shape: tuple[int, int], scheme: IntScheme, dtype: torch.dtype) -> int:
    """Return the bytes of what :func:`pack_int8` returns for a weight of (out, in) features."""
    rows, columns = shape
    return rows * columns + rows * scheme.n_groups(columns) * dtype.itemsize


def unpack_int8(tensors: dict[str, Tensor], bits: int, group_size: int | None) -> QuantizedWeight:
    """Return the weight of a layer's tensors in ``int-quantized``."""
    scales = _scales(tensors["weight_scale"], tensors["weight"].shape[0])
    middle = 2 ** (bits - 1)
    zeros = tensors.get("weight_zero_point")
    if zeros is not None:
        zeros = (zeros.to(torch.int16) + middle).to(torch.uint8)
        zeros = zeros.reshape(zeros.shape[0], -1).expand(scales.shape).contiguous()
        if bool((zeros == middle).all()):
            zeros = None
    scheme = IntScheme(bits, group_size if scales.shape[1] > 1 else None, zeros is None)
    codes = (tensors["weight"].to(torch.int16) + middle).to(torch.uint8)
    return QuantizedWeight(codes.contiguous(), scales, zeros, scheme)


def _scales(scales: Tensor, rows: int) -> Tensor:
    """Return a scale per row and group; one for the whole tensor is every row's."""
    if scales.numel() == 1:
        scales = scales.reshape(1, 1).expand(rows, 1)
    return scales.reshape(scales.shape[0], -1).half().contiguous()
