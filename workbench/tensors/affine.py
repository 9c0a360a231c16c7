"""Affine integer quantization: choose scales, round, restore, and pack codes into bytes.

A weight of shape (out_features, in_features) is cut along its inputs into groups; the last group
may be short. ``value = scale * (code - zero)`` with one scale and zero point per row and group.
Scales are rounded to float16, the format they are stored in, before anything is quantized.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workbench.errors import NotFiniteError
from workbench.recipes.schemes import IntScheme

SMALLEST_SCALE = 2.0**-24  # the smallest float16 above zero
_LARGEST_SCALE = 65504.0


def grouped(weight: Tensor, scheme: IntScheme) -> Tensor:
    """Return the weight as (out_features, n_groups, group_length), zeros behind a short group."""
    length = scheme.group_length(weight.shape[1])
    missing = scheme.n_groups(weight.shape[1]) * length - weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, missing)) if missing else weight
    return padded.reshape(weight.shape[0], -1, length)


def ungrouped(groups: Tensor, in_features: int) -> Tensor:
    """Undo :func:`grouped`: return (out_features, in_features)."""
    return groups.reshape(groups.shape[0], -1)[:, :in_features]


def expand(per_group: Tensor, scheme: IntScheme, in_features: int) -> Tensor:
    """Repeat one value per group, (out_features, n_groups), to (out_features, in_features)."""
    if per_group.shape[1] == 1:
        return per_group.expand(-1, in_features)
    return per_group.repeat_interleave(scheme.group_length(in_features), dim=1)[:, :in_features]


def choose_scales(
    weight: Tensor, scheme: IntScheme, *, shrink: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """Choose scales and zero points from the range of every group.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    scheme : IntScheme
    shrink : float or Tensor of shape (out_features, n_groups)
        Factor in (0, 1] on the range, to clip rare large weights.

    Returns
    -------
    scales : Tensor of shape (out_features, n_groups), float32
        Rounded to values that float16 holds.
    zeros : Tensor of shape (out_features, n_groups), float32
        Whole numbers in 0..max_code. Zero itself is always a level, so pruned weights stay zero.

    Raises
    ------
    NotFiniteError
        If a range is too wide for scales in float16.
    """
    groups = grouped(weight, scheme)
    low = groups.amin(-1).clamp(max=0) * shrink
    high = groups.amax(-1).clamp(min=0) * shrink
    if scheme.symmetric:
        scales = 2 * torch.maximum(-low, high) / scheme.max_code
        zeros = torch.full_like(scales, scheme.middle)
    else:
        scales = (high - low) / scheme.max_code
        zeros = torch.round(-low / scales.clamp(min=SMALLEST_SCALE)).clamp(0, scheme.max_code)
    return _as_stored(scales), zeros


def _as_stored(scales: Tensor) -> Tensor:
    if scales.numel() and float(scales.max()) > _LARGEST_SCALE:
        raise NotFiniteError(
            f"A scale of {float(scales.max()):.3g} does not fit into float16, so its weights would"
            " be cut off. Leave the layer dense, or take another checkpoint."
        )
    return scales.clamp(SMALLEST_SCALE, _LARGEST_SCALE).half().float()


def quantize(weight: Tensor, scales: Tensor, zeros: Tensor, scheme: IntScheme) -> Tensor:
    """Round to the nearest level; return codes of the weight's shape, uint8."""
    groups = grouped(weight, scheme)
    codes = torch.round(groups / scales[..., None]) + zeros[..., None]
    return ungrouped(codes.clamp_(0, scheme.max_code), weight.shape[1]).to(torch.uint8)


def dequantize(codes: Tensor, scales: Tensor, zeros: Tensor, scheme: IntScheme) -> Tensor:
    """Return ``scale * (code - zero)``, float32, of the codes' shape."""
    groups = grouped(codes.float(), scheme)
    values = (groups - zeros.float()[..., None]) * scales.float()[..., None]
    return ungrouped(values, codes.shape[1])


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` codes of ``bits`` bits occupy when packed."""
    return (count * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes into a stream of bits, lowest bits first.

    Parameters
    ----------
    codes : Tensor of uint8, any shape, values below ``2**bits``
    bits : int

    Returns
    -------
    Tensor of shape (packed_bytes(codes.numel(), bits),), uint8
    """
    flat = codes.reshape(-1).cpu().numpy()
    if bits == 8:
        return torch.from_numpy(flat.copy())
    stream = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack(stream: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack`; return codes of the given shape, uint8."""
    count = int(np.prod(shape))
    if bits == 8:
        return stream[:count].reshape(shape).clone()
    flat = np.unpackbits(stream.cpu().numpy(), count=count * bits, bitorder="little")
    codes = np.packbits(flat.reshape(count, bits), axis=1, bitorder="little")
    return torch.from_numpy(codes.reshape(shape))
