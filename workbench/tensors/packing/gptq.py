"""GPTQ's checkpoint format, as AutoGPTQ wrote it first.

``qweight`` int32 (in·bits/32, out) is packed along the inputs, ``qzeros`` int32 (groups,
out·bits/32) along the outputs, ``scales`` float16 (groups, out), ``g_idx`` int32 (in,) has the
group of every input. Version 1 stores zero points less one, version 2 as they are.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing.bit_words import pack_words, unpack_words, words_bytes
from workbench.tensors.weights import CompressedWeight, PermutedWeight, QuantizedWeight

BITS = (2, 3, 4, 8)


def zeros_of(weight: QuantizedWeight) -> Tensor:
    """Return the zero points of every row and group, uint8, also of a symmetric weight."""
    if weight.zeros is not None:
        return weight.zeros
    return torch.full(tuple(weight.scales.shape), weight.scheme.middle, dtype=torch.uint8)


def pack(weight: QuantizedWeight | PermutedWeight, version: int) -> dict[str, Tensor]:
    """Return a layer's tensors.

    Parameters
    ----------
    weight : QuantizedWeight or PermutedWeight
        Without input scales; every group has its full length.
    version : int
        1 or 2. Version 1 cannot hold a zero point of 0.
    """
    inner = weight.base if isinstance(weight, PermutedWeight) else weight
    scheme, in_features = inner.scheme, weight.shape[1]
    groups = torch.arange(in_features, dtype=torch.int32) // scheme.group_length(in_features)
    codes = inner.codes
    if isinstance(weight, PermutedWeight):
        codes, groups = codes[:, weight.inverse], groups[weight.inverse]
    zeros = zeros_of(inner)
    if version == 1:
        assert int(zeros.min()) > 0
        zeros = zeros - 1
    return {
        "qweight": pack_words(codes, scheme.bits).T.contiguous(),
        "qzeros": pack_words(zeros.T, scheme.bits),
        "scales": inner.scales.T.contiguous(),
        "g_idx": groups,
    }


def packed_bytes(shape: tuple[int, int], scheme: IntScheme) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    rows, columns = shape
    groups = scheme.n_groups(columns)
    per_group = words_bytes(rows, scheme.bits) + 2 * rows
    return rows * words_bytes(columns, scheme.bits) + groups * per_group + 4 * columns


def unpack(
    tensors: dict[str, Tensor], bits: int, group_size: int | None, version: int
) -> CompressedWeight:
    """Return the weight of a layer's tensors.

    Parameters
    ----------
    tensors : dict
        ``qweight``, ``qzeros``, ``scales`` and, unless the groups lie in order, ``g_idx``.
    bits : int
    group_size : int or None
        None for one scale per output.
    version : int
        Of the checkpoint's format, 1 or 2.

    Raises
    ------
    UnsupportedArchitectureError
        See :func:`in_groups`.
    """
    scales = tensors["scales"].T.contiguous()
    rows, n_groups = scales.shape
    columns = tensors["qweight"].shape[0] * 32 // bits
    codes = unpack_words(tensors["qweight"].T.contiguous(), bits, columns)
    zeros = unpack_words(tensors["qzeros"], bits, rows).T.contiguous()
    if version == 1:  # in as many bits as a code has, as the first readers computed it
        zeros = (zeros + 1) & (2**bits - 1)
    scheme = IntScheme(bits, group_size if n_groups > 1 else None)
    symmetric = bool((zeros == scheme.middle).all())
    scheme = IntScheme(bits, scheme.group_size, symmetric)
    weight = QuantizedWeight(codes, scales.half(), None if symmetric else zeros, scheme)
    return in_groups(weight, tensors.get("g_idx"))


def in_groups(weight: QuantizedWeight, groups: Tensor | None) -> CompressedWeight:
    """Return a weight whose inputs are in the groups that ``groups`` says, (in_features,).

    None, or groups of inputs that follow each other, leave it as it is.

    Raises
    ------
    UnsupportedArchitectureError
        If the groups are of different sizes.
    """
    columns = weight.shape[1]
    if groups is None:
        return weight
    length = weight.scheme.group_length(columns)
    order = torch.argsort(groups.long(), stable=True)
    if not torch.equal(groups.long()[order], torch.arange(columns) // length):
        raise UnsupportedArchitectureError(
            f"it has groups that do not have {length} inputs each (g_idx), which cannot be read."
        )
    if bool((order[1:] > order[:-1]).all()):
        return weight
    codes = weight.codes[:, order].contiguous()
    return PermutedWeight(dataclasses.replace(weight, codes=codes), order.int())
