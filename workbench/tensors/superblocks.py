"""llama.cpp's k-quants: choose the quantized scales of super-blocks, round, and pack into bytes.

A row is cut into super-blocks of 256 weights and these into sub-blocks of 16 or 32. With minima
``value = d·scale·code − dmin·minimum``, without ``value = d·scale·(code − middle)``: d and dmin are
float16, one per super-block; scale and minimum are small whole numbers, one per sub-block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import NotFiniteError
from workbench.recipes.schemes import SUPER_BLOCK, BlockScheme

_LARGEST = 65504.0
_CHUNK = 1 << 20
"""Weights whose scales are searched at a time; what that takes is some twenty times as much."""

_STEPS = 21
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class BlockScales:
    """The quantized scales of a matrix.

    Attributes
    ----------
    d : Tensor of shape (out_features, n_super_blocks), float16
    scales : Tensor of shape (out_features, n_sub_blocks), int8
    dmin : like ``d``, or None in a grid without minima
    minima : Tensor of shape (out_features, n_sub_blocks), uint8, or None
    """

    d: Tensor
    scales: Tensor
    dmin: Tensor | None = None
    minima: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """What one code more adds, (out_features, n_sub_blocks), float32."""
        return _spread(self.d, self.scales)

    @property
    def offset(self) -> Tensor | None:
        """What is subtracted, (out_features, n_sub_blocks), float32; None without minima."""
        if self.dmin is None or self.minima is None:
            return None
        return _spread(self.dmin, self.minima)

    def rows(self, rows: slice) -> BlockScales:
        """Return the scales of some rows."""
        return BlockScales(*(None if part is None else part[rows] for part in self._parts()))  # type: ignore[arg-type]

    @classmethod
    def stacked(cls, parts: list[BlockScales]) -> BlockScales:
        """Return the scales of several matrices' rows."""
        columns = zip(*(part._parts() for part in parts), strict=True)
        return cls(*(None if c[0] is None else torch.cat(c) for c in columns))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.d, self.scales, self.dmin, self.minima


def _spread(per_block: Tensor, per_group: Tensor) -> Tensor:
    every = per_group.shape[1] // per_block.shape[1]
    return per_block.float().repeat_interleave(every, dim=1) * per_group.float()


_Bytes: TypeAlias = NDArray[np.uint8]


def choose_scales(
    weight: Tensor, scheme: BlockScheme, importance: Tensor | None = None
) -> BlockScales:
    """Choose the scales that round a matrix with the smallest weighted squared error.

    Every sub-block's scale and minimum are found by trying ranges and solving least squares for
    each, as llama.cpp does. They are then quantized together: for every d and dmin the whole
    numbers around the best ones are tried, and d and dmin are solved for again.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
        With a width that is a multiple of 256.
    scheme : BlockScheme
    importance : Tensor of shape (in_features,), optional
        The mean of every input's square. Larger weights count more in either case.

    Raises
    ------
    NotFiniteError
        If the weights are too large for scales in float16.
    """
    rows = max(1, _CHUNK // weight.shape[1])
    if importance is not None:
        # An input that was never active decides nothing, and costs nothing.
        importance = importance.clamp(min=1e-6 * float(importance.max().clamp(min=1e-30)))
    parts = [_chosen(part, scheme, importance) for part in weight.split(rows)]
    return BlockScales.stacked(parts)


def _chosen(weight: Tensor, scheme: BlockScheme, importance: Tensor | None) -> BlockScales:
    n_rows = len(weight)
    x = weight.reshape(-1, SUPER_BLOCK)
    spread = (x**2).mean(1, keepdim=True)
    if importance is None:
        counts = spread.sqrt() + x.abs() if scheme.minima else x**2 + 1e-3 * spread
    else:
        counts = importance.reshape(1, -1, SUPER_BLOCK).expand(n_rows, -1, -1)
        counts = counts.reshape(-1, SUPER_BLOCK) * (2 * spread + x**2).sqrt()
    counts = counts.clamp(min=1e-30)
    x = x.reshape(len(x), -1, scheme.length)
    counts = counts.reshape(x.shape)
    step, offset = (_affine if scheme.minima else _signed)(x, counts, scheme)
    found = _quantized(x, counts, step, offset, scheme)
    d, scales, dmin, minima = (None if part is None else part.reshape(n_rows, -1) for part in found)
    assert d is not None
    assert scales is not None
    return BlockScales(
        d.half(),
        scales.to(torch.int8),
        None if dmin is None else dmin.half(),
        None if minima is None else minima.to(torch.uint8),
    )


def _affine(x: Tensor, counts: Tensor, scheme: BlockScheme) -> tuple[Tensor, Tensor]:
    """Return the best step and offset, (n_blocks, n_sub_blocks), each, offsets not negative."""
    top = scheme.max_code
    low, high = x.amin(-1).clamp(max=0), x.amax(-1)
    width = (high - low).clamp(min=1e-30)
    best_step, best_offset = width / top, -low
    best = _error(x, counts, best_step, best_offset, scheme)
    total, sum_x = counts.sum(-1), (counts * x).sum(-1)
    for index in range(_STEPS):
        steps = width / (top - 1 + 2 * index / (_STEPS - 1))
        codes = ((x - low[..., None]) / steps[..., None]).round_().clamp_(0, top)
        step, offset = _least_squares(x, counts, codes, total, sum_x)
        error = _error(x, counts, step, offset, scheme)
        better = error < best
        best = torch.where(better, error, best)
        best_step = torch.where(better, step, best_step)
        best_offset = torch.where(better, offset, best_offset)
    return best_step, best_offset


def _least_squares(
    x: Tensor, counts: Tensor, codes: Tensor, total: Tensor, sum_x: Tensor
) -> tuple[Tensor, Tensor]:
    weighted = counts * codes
    sum_q, sum_qq, sum_qx = weighted.sum(-1), (weighted * codes).sum(-1), (weighted * x).sum(-1)
    determinant = total * sum_qq - sum_q**2
    safe = determinant.abs() > 1e-12 * (total * sum_qq).clamp(min=1e-30)
    divisor = torch.where(safe, determinant, 1.0)
    step = torch.where(safe, (total * sum_qx - sum_q * sum_x) / divisor, 0.0)
    offset = torch.where(safe, (sum_q * sum_qx - sum_qq * sum_x) / divisor, 0.0)
    alone = (sum_qx / sum_qq.clamp(min=1e-30)).clamp(min=0)
    fits = (offset >= 0) & (step > 0)
    return torch.where(fits, step, alone), torch.where(fits, offset, 0.0)


def _signed(x: Tensor, counts: Tensor, scheme: BlockScheme) -> tuple[Tensor, None]:
    """Return the best step of either sign, (n_blocks, n_sub_blocks), and no offset."""
    middle = scheme.middle
    largest = x.gather(-1, x.abs().argmax(-1, keepdim=True))[..., 0]
    whole = torch.where(largest.abs() < 1e-30, 1e-30, largest)
    best_step = -whole / middle
    best = _error(x, counts, best_step, None, scheme)
    for index in range(_STEPS):
        steps = -whole / (middle - 1.5 + 3 * index / (_STEPS - 1))
        codes = (x / steps[..., None]).round_().clamp_(-middle, middle - 1)
        weighted = counts * codes
        step = (weighted * x).sum(-1) / (weighted * codes).sum(-1).clamp(min=1e-30)
        error = _error(x, counts, step, None, scheme)
        better = error < best
        best, best_step = torch.where(better, error, best), torch.where(better, step, best_step)
    return best_step, None


def _levels(x: Tensor, step: Tensor, offset: Tensor | None, scheme: BlockScheme) -> Tensor:
    """Return the nearest codes less the middle."""
    inverse = _inverse(step)
    shifted = x if offset is None else x + offset[..., None]
    return (shifted * inverse[..., None]).round_().clamp_(*_bounds(scheme))


def _bounds(scheme: BlockScheme) -> tuple[int, int]:
    return -scheme.middle, scheme.max_code - scheme.middle


def _inverse(step: Tensor) -> Tensor:
    return torch.where(step == 0, 0.0, step.reciprocal())


def _error(
    x: Tensor, counts: Tensor, step: Tensor, offset: Tensor | None, scheme: BlockScheme
) -> Tensor:
    """Return the weighted squared error of every sub-block."""
    values = _levels(x, step, offset, scheme).mul_(step[..., None]).sub_(x)
    if offset is not None:
        values.sub_(offset[..., None])
    return values.square_().mul_(counts).sum(-1)


def _quantized(
    x: Tensor, counts: Tensor, step: Tensor, offset: Tensor | None, scheme: BlockScheme
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return d, scales, dmin and minima, all as float32, that hold these steps and offsets best."""
    top = scheme.top_scale
    signed = not scheme.minima
    bottom = -top - 1 if signed else 0
    most = step.gather(-1, step.abs().argmax(-1, keepdim=True))
    d = _half(-most / (top + 1) if signed else most / top)
    dmin = None if offset is None else _half(offset.amax(-1, keepdim=True) / top)
    best: tuple[Tensor, ...] = ()
    best_error = None
    for _ in range(_ROUNDS):
        scales, minima, errors = _nearest(x, counts, step, offset, d, dmin, (bottom, top), scheme)
        error = errors.sum(-1, keepdim=True)
        now = (d, scales) if dmin is None or minima is None else (d, scales, dmin, minima)
        if best_error is None:
            best, best_error = now, error
        else:
            better = error < best_error
            best = tuple(torch.where(better, a, b) for a, b in zip(now, best, strict=True))
            best_error = torch.where(better, error, best_error)
        # With codes, scales and minima as they are, d and dmin are solved for.
        step = d * scales
        offset = None if dmin is None or minima is None else dmin * minima
        codes = _levels(x, step, offset, scheme)
        rise = (codes * scales[..., None]).flatten(1)
        weights, values = counts.flatten(1), x.flatten(1)
        if minima is None:
            top_sum = (weights * rise * values).sum(1, keepdim=True)
            d = _half(_ratio(top_sum, (weights * rise**2).sum(1, keepdim=True), d))
        else:
            assert dmin is not None
            fall = -minima.repeat_interleave(scheme.length, dim=1)
            aa, bb, ab, ax, bx = (
                (weights * p * q).sum(1, keepdim=True)
                for p, q in (
                    (rise, rise),
                    (fall, fall),
                    (rise, fall),
                    (rise, values),
                    (fall, values),
                )
            )
            determinant = aa * bb - ab**2
            safe = determinant > 1e-9 * aa * bb
            divisor = torch.where(safe, determinant, 1.0)
            both = (bb * ax - ab * bx) / divisor, (aa * bx - ab * ax) / divisor
            fits = safe & (both[0] > 0) & (both[1] >= 0)
            d = _half(torch.where(fits, both[0], d))
            dmin = _half(torch.where(fits, both[1], dmin))
    if len(best) == 2:
        return best[0], best[1], None, None
    return best[0], best[1], best[2], best[3]


def _nearest(
    x: Tensor,
    counts: Tensor,
    step: Tensor,
    offset: Tensor | None,
    d: Tensor,
    dmin: Tensor | None,
    bounds: tuple[int, int],
    scheme: BlockScheme,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the best whole scales and minima around these steps and offsets, and their errors."""
    wanted = (step * _inverse(d)).round_()
    lows = None if offset is None or dmin is None else (offset * _inverse(dmin)).round_()
    best_scales, best_minima, best = wanted, lows, None
    for more in (0, -1, 1):
        scales = (wanted + more).clamp_(*bounds)
        for raised in (0,) if lows is None else (0, -1, 1):
            minima = None if lows is None else (lows + raised).clamp_(*bounds)
            own = None if minima is None or dmin is None else dmin * minima
            error = _error(x, counts, d * scales, own, scheme)
            if best is None:
                best_scales, best_minima, best = scales, minima, error
                continue
            better = error < best
            best = torch.where(better, error, best)
            best_scales = torch.where(better, scales, best_scales)
            if minima is not None and best_minima is not None:
                best_minima = torch.where(better, minima, best_minima)
    assert best is not None
    return best_scales, best_minima, best


def _ratio(numerator: Tensor, divisor: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(divisor > 0, numerator / divisor.clamp(min=1e-38), otherwise)


def _half(values: Tensor) -> Tensor:
    """Return values as float16 holds them."""
    if values.numel() and float(values.abs().max()) > _LARGEST:
        raise NotFiniteError(
            f"A scale of {float(values.abs().max()):.3g} does not fit into float16, so its weights"
            " would be cut off. Leave the layer dense, or take another checkpoint."
        )
    return values.half().float()


def quantize(weight: Tensor, scales: BlockScales, scheme: BlockScheme) -> Tensor:
    """Round to the nearest level; return codes of the weight's shape, uint8."""
    x = weight.reshape(len(weight), -1, scheme.length)
    levels = _levels(x, scales.step, scales.offset, scheme)
    return (levels + scheme.middle).to(torch.uint8).reshape(weight.shape)


def dequantize(codes: Tensor, scales: BlockScales, scheme: BlockScheme) -> Tensor:
    """Return the values, float32, to the last bit those of the ``gguf`` package."""
    levels = codes.float().reshape(len(codes), -1, scheme.length) - scheme.middle
    values = scales.step[..., None] * levels
    offset = scales.offset
    return (values if offset is None else values - offset[..., None]).reshape(codes.shape)


def pack(codes: Tensor, scales: BlockScales, scheme: BlockScheme) -> Tensor:
    """Return the blocks of a GGUF file, (out_features, bytes of a row), uint8."""
    q: _Bytes = codes.reshape(-1, SUPER_BLOCK).cpu().numpy()
    s = scales.scales.reshape(len(q), -1).cpu().numpy()
    d = _float_bytes(scales.d)
    if scheme.minima:
        assert scales.minima is not None
        assert scales.dmin is not None
        m = scales.minima.reshape(len(q), -1).cpu().numpy()
        ends = [d, _float_bytes(scales.dmin)]
        if scheme.name == "q2_k":
            parts = [s.astype(np.uint8) | m << 4, _in_planes(q, 2, 32), *ends]
        else:
            fifth = [] if scheme.bits == 4 else [_in_planes(q >> 4, 1, 32)]
            parts = [*ends, _six_bits(s.astype(np.uint8), m), *fifth, _in_planes(q & 15, 4, 32)]
    elif scheme.name == "q3_k":
        raised = (s + 32).astype(np.uint8)
        low = raised[:, :8] & 15 | (raised[:, 8:] & 15) << 4
        high = _in_planes(raised >> 4, 2, 4)
        parts = [_in_planes(q >> 2, 1, 32), _in_planes(q & 3, 2, 32), np.hstack([low, high]), d]
    else:
        parts = [_in_planes(q & 15, 4, 64), _in_planes(q >> 4, 2, 32), s.view(np.uint8), d]
    blocks = np.ascontiguousarray(np.hstack(parts)).reshape(len(codes), -1)
    return torch.from_numpy(blocks)


def unpack(blocks: Tensor, scheme: BlockScheme) -> tuple[Tensor, BlockScales]:
    """Undo :func:`pack`: return codes and scales."""
    rows = len(blocks)
    data = blocks.contiguous().cpu().numpy().reshape(-1, scheme.block_bytes)
    dmin: _Bytes | None = None
    minima: _Bytes | None = None
    scales: NDArray[Any]
    q: NDArray[Any]
    if scheme.name == "q2_k":
        packed, planes, d, dmin = np.hsplit(data, [16, 80, 82])
        scales, minima = packed & np.uint8(15), packed >> np.uint8(4)
        q = _of_planes(planes, 2, 32)
    elif scheme.minima:
        d, dmin, packed, high, planes = np.hsplit(data, [2, 4, 16, 16 if scheme.bits == 4 else 48])
        scales, minima = _of_six_bits(packed)
        q = _of_planes(planes, 4, 32)
        if scheme.bits == 5:
            q = q | _of_planes(high, 1, 32) << 4
    elif scheme.name == "q3_k":
        high, planes, packed, d = np.hsplit(data, [32, 96, 108])
        q = _of_planes(planes, 2, 32) | _of_planes(high, 1, 32) << 2
        low = np.hstack([packed[:, :8] & 15, packed[:, :8] >> 4])
        scales = (low | _of_planes(packed[:, 8:], 2, 4) << 4).astype(np.int16) - 32
    else:
        low, high, scales, d = np.hsplit(data, [128, 192, 208])
        q = _of_planes(low, 4, 64) | _of_planes(high, 2, 32) << 4
        scales = scales.view(np.int8)
    codes = torch.from_numpy(np.ascontiguousarray(q, dtype=np.uint8)).reshape(rows, -1)
    return codes, BlockScales(
        _floats(d, rows),
        torch.from_numpy(scales.astype(np.int8)).reshape(rows, -1),
        None if dmin is None else _floats(dmin, rows),
        None if minima is None else torch.from_numpy(minima.copy()).reshape(rows, -1),
    )


def _in_planes(values: NDArray[Any], bits: int, width: int) -> _Bytes:
    """Pack values so that each byte has one of every ``width`` values, the first lowest."""
    per_byte = 8 // bits
    parts = values.reshape(len(values), -1, per_byte, width)
    packed = np.zeros((len(values), parts.shape[1], width), np.uint8)
    for index in range(per_byte):
        packed |= parts[:, :, index] << np.uint8(bits * index)
    return packed.reshape(len(values), -1)


def _of_planes(packed: _Bytes, bits: int, width: int) -> _Bytes:
    """Undo :func:`_in_planes`."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = packed.reshape(len(packed), -1, 1, width) >> shifts & np.uint8(2**bits - 1)
    return parts.reshape(len(packed), -1)


def _six_bits(scales: _Bytes, minima: _Bytes) -> _Bytes:
    """Pack eight scales and eight minima of six bits as Q4_K and Q5_K have them."""
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.hstack([first, second, scales[:, 4:] & 15 | minima[:, 4:] << 4])


def _of_six_bits(packed: _Bytes) -> tuple[_Bytes, _Bytes]:
    """Undo :func:`_six_bits`."""
    first, second, third = np.hsplit(packed, 3)
    scales = np.hstack([first & 63, third & 15 | first >> 6 << 4])
    return scales, np.hstack([second & 63, third >> 4 | second >> 6 << 4])


def _float_bytes(values: Tensor) -> _Bytes:
    return values.reshape(-1, 1).cpu().numpy().view(np.uint8)


def _floats(data: _Bytes, rows: int) -> Tensor:
    values = np.ascontiguousarray(data).view(np.float16)
    return torch.from_numpy(values).reshape(rows, -1)
