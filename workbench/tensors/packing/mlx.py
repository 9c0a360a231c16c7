"""MLX's affine format, as ``mlx.core.quantize`` stores a matrix.

``weight`` uint32 (out, in·bits/32) is a stream of bits along each row, lowest bits first;
``scales`` and ``biases`` (out, groups) restore ``scale * code + bias``. With a whole zero point z
the bias is ``-scale * z``. Groups have 32, 64 or 128 inputs; longer ones are written as several
that share their scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing.bit_words import pack_words, unpack_words, words_bytes
from workbench.tensors.packing.gptq import zeros_of
from workbench.tensors.weights import QuantizedWeight

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (128, 64, 32)
PARTS = ("weight", "scales", "biases")


def group_size(scheme: IntScheme, in_features: int) -> int | None:
    """Return the format's group size for a scheme, None if it has none that fits.

    Examples
    --------
    >>> group_size(IntScheme(4, 256), 1024), group_size(IntScheme(4, 16), 1024)
    (128, None)
    """
    return scheme.block_length(in_features, GROUPS)


def pack(weight: QuantizedWeight, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a layer's tensors.

    Parameters
    ----------
    weight : QuantizedWeight
        Without input scales, of a scheme that has a :func:`group_size`.
    dtype : torch.dtype
        Of scales and biases: the model's own, since MLX computes in the widest of them.
    """
    columns = weight.shape[1]
    size = group_size(weight.scheme, columns)
    assert size is not None
    repeats = weight.scheme.group_length(columns) // size
    # Biases are of the scales as they are stored, so that every zero point can be read again.
    scales = weight.scales.to(dtype).float().repeat_interleave(repeats, dim=1)
    zeros = zeros_of(weight).float().repeat_interleave(repeats, dim=1)
    return {
        "weight": pack_words(weight.codes, weight.scheme.bits).view(torch.uint32),
        "scales": scales.to(dtype).contiguous(),
        "biases": (-scales * zeros).to(dtype).contiguous(),
    }


def packed_bytes(shape: tuple[int, int], scheme: IntScheme, dtype: torch.dtype) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    rows, columns = shape
    size = group_size(scheme, columns)
    assert size is not None
    groups = columns // size
    return rows * (words_bytes(columns, scheme.bits) + 2 * groups * dtype.itemsize)


def unpack(tensors: dict[str, Tensor], bits: int, group_size: int) -> QuantizedWeight:
    """Return the weight of a layer's tensors.

    MLX's own quantizer gives groups whose largest weight is positive a negative scale; those are
    turned over, code by code, which changes no value.

    Raises
    ------
    UnsupportedArchitectureError
        If a bias is no whole multiple of its scale, as where biases were learned (DWQ), or a scale
        is none that float16 holds.
    """
    scales, biases = tensors["scales"].float(), tensors["biases"].float()
    columns = scales.shape[1] * group_size
    most = 2**bits - 1
    codes = unpack_words(tensors["weight"].view(torch.int32), bits, columns)
    zeros = torch.where(scales == 0, torch.zeros_like(scales), -biases / scales).round()
    numbers = torch.finfo(tensors["scales"].dtype)
    rounding = numbers.eps * (biases.abs() + numbers.tiny)
    if bool(((biases + scales * zeros).abs() > rounding).any()):
        raise UnsupportedArchitectureError(
            "its biases are no whole multiples of its scales (learned, as by DWQ), which the"
            " workbench does not store."
        )
    turned = scales < 0
    each = turned.repeat_interleave(group_size, dim=1)
    codes = torch.where(each, most - codes, codes)
    zeros = torch.where(turned, most - zeros, zeros)
    scales = scales.abs()
    half = scales.half()
    if not bool(torch.isfinite(half).all()) or bool(((zeros < 0) | (zeros > most)).any()):
        raise UnsupportedArchitectureError(
            "it has scales or zero points out of the range that the workbench stores."
        )
    symmetric = bool((zeros == IntScheme(bits, group_size).middle).all())
    scheme = IntScheme(bits, group_size, symmetric)
    return QuantizedWeight(codes, half, None if symmetric else zeros.to(torch.uint8), scheme)
