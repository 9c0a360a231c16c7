"""Matrix products that read integer codes: torch's int4 and int8 kernels behind one interface.

A kernel holds codes and scales and no dense copy. It takes few tokens (decoding); for many tokens
the weight is made dense for the one product and let go again, because the dense bfloat16 product
is so much faster per token that the conversion pays.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.runtime.packed import native
from workbench.runtime.packed.kernel import (
    INT4_GROUPS,
    INT4_MOST_TOKENS,
    Kernel,
    int4_group,
    joined_int4,
    zeros_of,
)
from workbench.runtime.packed.native_int4 import NativeInt4Kernel
from workbench.tensors.devices import has_tinygemm, is_cpu, is_cuda
from workbench.tensors.weights import CompressedWeight, QuantizedWeight

INT8_MOST_TOKENS = 32
"""As :data:`workbench.runtime.packed.kernel.INT4_MOST_TOKENS`, measured in the same way: 3.5 / 3.3
at 32 and 12.1 / 5.7 at 128."""

INT8_COMPILED_MOST_TOKENS = 2
"""So many tokens go through the compiled int8 kernel (0.26 ms for 2, torch's 0.32; for 4 0.49 and
0.36)."""


class Int4Kernel(Kernel):
    """Codes of 2 to 4 bits, stored as 4, by ``aten._weight_int4pack_mm_for_cpu``.

    The kernel computes ``scale · (code − 8) + offset``, so a zero point z is an offset of
    ``(8 − z) · scale``. Scales and offsets are rounded to bfloat16, as the kernel asks.

    Parameters
    ----------
    weights : sequence of QuantizedWeight
        Of the same in_features, for which :func:`kernel_name` says "int4"; their rows are joined.
    """

    name = "int4"

    def __init__(self, weights: Sequence[QuantizedWeight]) -> None:
        self._group = min(int4_group(w) or 0 for w in weights)
        codes, scales, offsets = joined_int4(weights, self._group)
        self.shape = (codes.shape[0], codes.shape[1])
        pairs = torch.stack([scales, offsets], -1).bfloat16()
        self._pairs = pairs.transpose(0, 1).contiguous()  # (n_groups, out_features, 2)
        self._packed = self._pack(codes)
        self.most_tokens = INT4_MOST_TOKENS if self._is_readable(codes) else None

    def _pack(self, codes: Tensor) -> Tensor:
        return torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)

    def _is_readable(self, codes: Tensor) -> bool:
        """Whether the packing, which torch does not document, gives the codes back exactly."""
        block = _block_rows()
        if block is None:
            return False
        return torch.equal(_read_int4(self._packed, self.shape, block), codes.T)

    def few(self, x: Tensor) -> Tensor:
        return torch._weight_int4pack_mm_for_cpu(x, self._packed, self._group, self._pairs)

    def many(self, x: Tensor) -> Tensor:
        return x @ self.dense_transposed()

    def dense_transposed(self) -> Tensor:
        """Return the weight as the kernel sees it, (in_features, out_features), bfloat16."""
        rows, columns = self.shape
        dense = _read_int4(self._packed, self.shape, _block_rows() or 0).bfloat16()
        groups = dense.view(-1, self._group, rows)
        scales, offsets = (part[:, None].contiguous() for part in self._pairs.unbind(-1))
        torch.addcmul(offsets - 8 * scales, groups, scales, out=groups)  # strided: 20 times slower
        return dense.view(columns, rows)

    def tensors(self) -> tuple[Tensor, ...]:
        return (self._packed, self._pairs)


class Int4CudaKernel(Int4Kernel):
    """The same on a GPU of compute capability 8.0 or later: tinygemm. Not tried on one yet."""

    def __init__(self, weights: Sequence[QuantizedWeight], device: torch.device) -> None:
        self._device = device
        super().__init__(weights)

    def _pack(self, codes: Tensor) -> Tensor:
        self._pairs = self._pairs.to(self._device)
        nibbles = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8).to(self._device)
        return torch._convert_weight_to_int4pack(nibbles, 8)

    def _is_readable(self, codes: Tensor) -> bool:
        return False

    def few(self, x: Tensor) -> Tensor:
        return torch._weight_int4pack_mm(x, self._packed, self._group, self._pairs)


class Int8Kernel(Kernel):
    """Codes of up to 8 bits with one scale per row, by ``aten._weight_int8pack_mm``.

    The kernel computes ``scale · code`` with signed codes. What a zero point adds beyond is the
    same for all inputs of a row, so it is one number per row times the sum of the inputs.

    Parameters
    ----------
    weights : sequence of QuantizedWeight
        Of the same in_features, for which :func:`kernel_name` says "int8"; their rows are joined.
    int8_inputs : bool
        Round the inputs to 8 bits too, each token by its largest value, and multiply integers
        (``aten._int_mm``), unless so few tokens come that the compiled kernel is faster. Measured
        as above, for 128 tokens: 2.9 ms, where a dense bfloat16 layer takes 4.1 and the codes
        with bfloat16 inputs 4.9.
    """

    name = "int8"

    def __init__(self, weights: Sequence[QuantizedWeight], *, int8_inputs: bool = False) -> None:
        # 8-bit codes reach 255 and must be moved by 128; shorter ones by their own middle.
        self._codes = torch.cat(
            [(w.codes.short() - w.scheme.middle).to(torch.int8) for w in weights]
        )
        scales = torch.cat([w.scales[:, 0].float() for w in weights])
        moved = torch.cat([w.scheme.middle - zeros_of(w)[:, 0] for w in weights]) * scales
        self._scales = scales.bfloat16()
        self._moved = moved if bool(moved.any()) else None
        self.shape = (self._codes.shape[0], self._codes.shape[1])
        self.int8_inputs = int8_inputs
        self._compiled = is_cpu(self._codes.device) and native.native_library()[0] is not None
        self.most_tokens = INT8_MOST_TOKENS
        if int8_inputs:  # one token is bound by memory, and rounding its input only costs
            self.most_tokens = INT8_COMPILED_MOST_TOKENS if self._compiled else 0

    def few(self, x: Tensor) -> Tensor:
        if self._compiled and len(x) <= INT8_COMPILED_MOST_TOKENS:
            return self._with_zeros(native.int8_product(x, self._codes, self._scales), x)
        return self._with_zeros(torch._weight_int8pack_mm(x, self._codes, self._scales), x)

    def many(self, x: Tensor) -> Tensor:
        if not self.int8_inputs:
            return self._with_zeros((x @ self._codes.bfloat16().T).mul_(self._scales), x)
        size = x.abs().amax(-1, keepdim=True).float().clamp_(min=1e-30) / 127
        codes = (x / size).round_().to(torch.int8)
        product = torch._int_mm(codes, self._codes.T) * size
        out = torch.mul(product, self._scales, out=torch.empty_like(product, dtype=torch.bfloat16))
        return self._with_zeros(out, x)

    def _with_zeros(self, product: Tensor, x: Tensor) -> Tensor:
        if self._moved is None:
            return product
        sums = x.sum(-1, keepdim=True, dtype=torch.float32)
        return torch.addcmul(product.float(), sums, self._moved).bfloat16()

    def rows(self, index: Tensor) -> Tensor:
        """Return some rows of the weight, dense, bfloat16, for an embedding."""
        values = self._codes[index].float() * self._scales[index][..., None].float()
        if self._moved is not None:
            values += self._moved[index][..., None]
        return values.bfloat16()

    def tensors(self) -> tuple[Tensor, ...]:
        return (self._codes, self._scales, *(() if self._moved is None else (self._moved,)))


def kernel_name(weight: CompressedWeight, device: torch.device) -> tuple[str | None, str]:
    """Return which kernel runs a weight, or None and why there is none.

    Parameters
    ----------
    weight : CompressedWeight
        A correction of low rank is not looked at: only what the codes need.
    device : torch.device

    Returns
    -------
    (name, reason) : (str or None, str)
        "int4" or "int8" and ``""``, else None and the reason in a few words.
    """
    if not isinstance(weight, QuantizedWeight):
        return None, f"no kernel for {weight.kind} weights"
    if not (is_cpu(device) or is_cuda(device)):
        return None, f"no packed kernel on {device.type}"
    rows, columns = weight.shape
    scheme = weight.scheme
    per_row = scheme.n_groups(columns) == 1
    if scheme.bits <= 4 and int4_group(weight) is not None:
        multiple = 8 if is_cuda(device) else 16
        if rows % multiple:
            return None, f"the int4 kernel takes rows in multiples of {multiple}"
        if is_cuda(device) and (columns % 128 or not has_tinygemm(device)):
            return None, "tinygemm takes inputs in multiples of 128, on compute capability 8.0"
        return "int4", ""
    if per_row and is_cpu(device):
        # bfloat16 with other widths is silently wrong or crashes.
        return ("int8", "") if columns % 16 == 0 else (None, "int8 takes inputs in multiples of 16")
    if scheme.bits <= 4:
        return None, f"the int4 kernel takes whole groups of {', '.join(map(str, INT4_GROUPS))}"
    return None, f"no kernel for {scheme.bits}-bit codes in groups"


def make_kernel(
    name: str,
    weights: Sequence[QuantizedWeight],
    device: torch.device,
    *,
    int8_inputs: bool = False,
) -> Kernel:
    """Return the kernel of this name for the joined rows of weights that read the same input."""
    if name == "int8":
        return Int8Kernel(weights, int8_inputs=int8_inputs)
    if is_cuda(device):
        return Int4CudaKernel(weights, device)
    if native.native_library()[0] is None:
        return Int4Kernel(weights)
    return NativeInt4Kernel(weights)


def _read_int4(packed: Tensor, shape: tuple[int, int], block: int) -> Tensor:
    """Undo the kernel's packing: return codes of shape (in_features, out_features), uint8.

    Parameters
    ----------
    packed : Tensor of out_features · in_features / 2 bytes, uint8
    shape : (int, int)
        (out_features, in_features).
    block : int
        Rows that are packed together; what is left of the rows is a block by itself.
    """
    rows, columns = shape
    codes = torch.empty(columns, rows, dtype=torch.uint8)
    whole = rows - rows % block
    for start, stop, height in ((0, whole, block), (whole, rows, rows - whole)):
        if start == stop:
            continue
        part = packed.view(-1)[start * columns // 2 : stop * columns // 2]
        part = part.view(-1, columns, height // 2).transpose(0, 1)
        into = codes[:, start:stop].unflatten(1, (-1, 2, height // 2))
        torch.bitwise_and(part, 15, out=into[:, :, 0])
        torch.bitwise_right_shift(part, 4, out=into[:, :, 1])
        order = _row_order(height)
        if order is not None:
            blocks = codes[:, start:stop].unflatten(1, (-1, height))
            blocks.copy_(blocks[:, :, order])
    return codes


@functools.cache
def _row_order(height: int) -> Tensor | None:
    """Where the rows of a block are: all low nibbles first, then all high ones; None if in order.

    Found by packing the rows' own numbers, because the order depends on the processor.
    """
    numbers = torch.arange(height)
    found = torch.zeros(height, dtype=torch.long)
    for shift in (0, 4):
        codes = (numbers >> shift & 15).int()[:, None].repeat(1, 32)
        nibbles = torch._convert_weight_to_int4pack_for_cpu(codes, 1).view(-1)[: height // 2].long()
        found += torch.cat([nibbles & 15, nibbles >> 4]) << shift
    return None if torch.equal(found, numbers) else found.argsort()


@functools.cache
def _block_rows() -> int | None:
    """Rows that are packed together on this processor; None if the packing is not understood."""
    for block in (64, 32, 16):
        numbers = torch.arange((2 * block + 16) * 32).view(-1, 32)
        codes = (numbers * 7 + numbers // 32) % 16
        packed = torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        if torch.equal(_read_int4(packed, (len(codes), 32), block), codes.T.to(torch.uint8)):
            return block
    return None
