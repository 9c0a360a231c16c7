"""AutoAWQ's GEMM format: 4 bits, eight outputs interleaved in a word.

``qweight`` int32 (in, out/8) and ``qzeros`` int32 (groups, out/8) hold output ``8c + ORDER[i]`` in
nibble i of word c; ``scales`` float16 (groups, out).
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing.bit_words import pack_words, unpack_words
from workbench.tensors.packing.gptq import zeros_of
from workbench.tensors.weights import QuantizedWeight

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    """Return a layer's tensors; outputs are a multiple of 8 and every group has its full length."""
    return {
        "qweight": _pack(weight.codes.T),
        "qzeros": _pack(zeros_of(weight).T),
        "scales": weight.scales.T.contiguous(),
    }


def packed_bytes(shape: tuple[int, int], scheme: IntScheme) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    rows, columns = shape
    groups = scheme.n_groups(columns)
    return rows * columns // 2 + groups * (rows // 2 + 2 * rows)


def unpack(tensors: dict[str, Tensor], group_size: int | None) -> QuantizedWeight:
    """Return the weight of a layer's tensors."""
    scales = tensors["scales"].T.contiguous().half()
    zeros = _unpack(tensors["qzeros"])
    symmetric = bool((zeros == 8).all())
    scheme = IntScheme(4, group_size if scales.shape[1] > 1 else None, symmetric)
    return QuantizedWeight(
        _unpack(tensors["qweight"]), scales, None if symmetric else zeros, scheme
    )


def _pack(codes: Tensor) -> Tensor:
    rows, count = codes.shape
    mixed = codes.reshape(rows, count // 8, 8)[..., list(ORDER)]
    return pack_words(mixed.reshape(rows, count), 4)


def _unpack(words: Tensor) -> Tensor:
    rows, count = words.shape[0], words.shape[1] * 8
    mixed = unpack_words(words, 4, count).reshape(rows, count // 8, 8)
    back = torch.argsort(torch.tensor(ORDER))
    return mixed[..., back].reshape(rows, count).T.contiguous()
