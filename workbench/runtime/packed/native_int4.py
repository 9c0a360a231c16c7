"""The int4 layer on the compiled kernel: its packing, and its product for few and many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.runtime.packed.kernel import INT4_MOST_TOKENS, Kernel, int4_group, joined_int4
from workbench.runtime.packed.native import check, native_library
from workbench.tensors.weights import QuantizedWeight


class NativeInt4Kernel(Kernel):
    """Codes of 2 to 4 bits by ``int4_product`` of ``kernels.c``; scales stay float16.

    Parameters
    ----------
    weights : sequence of QuantizedWeight
        As for :class:`workbench.runtime.packed.kernels.Int4Kernel`.

    Raises
    ------
    RuntimeError
        If the library is not there; see :func:`native_library`.
    """

    name = "int4"

    def __init__(self, weights: Sequence[QuantizedWeight]) -> None:
        library, why = native_library()
        if library is None:
            raise RuntimeError(f"There is no compiled kernel: {why}.")
        self._group = min(int4_group(w) or 0 for w in weights)
        codes, scales, offsets = joined_int4(weights, self._group)
        rows, columns = codes.shape
        self.shape = (rows, columns)
        self.most_tokens = INT4_MOST_TOKENS
        # (block, row, chunk of 8 columns, nibble, word) -> (block, chunk, row, word)
        nibbles = codes.view(rows // 16, 16, columns // 8, 4, 2).to(torch.int16)
        words = sum(nibbles[:, :, :, i] << 4 * i for i in range(4))
        assert isinstance(words, Tensor)
        self._codes = words.transpose(1, 2).contiguous()
        self._scales = self._by_block(scales)
        self._offsets = self._by_block(offsets) if bool(offsets.any()) else None
        self._zeros = 0 if self._offsets is None else self._offsets.data_ptr()

    @staticmethod
    def _by_block(values: Tensor) -> Tensor:
        """From (rows, n_groups) to (blocks, n_groups, 16), float16."""
        return values.half().view(-1, 16, values.shape[1]).transpose(1, 2).contiguous()

    def few(self, x: Tensor) -> Tensor:
        library, _ = native_library()
        rows, columns = self.shape
        x = x.contiguous()
        check(x, torch.bfloat16)
        n = x.shape[0]
        if x.shape[1] != columns:
            raise ValueError(f"An input of {tuple(x.shape)} is given; it takes (n, {columns}).")
        y = torch.empty(n, rows, dtype=torch.bfloat16)
        sums = None
        if self._offsets is not None:
            sums = x.view(n, -1, self._group).sum(-1, dtype=torch.float32)
        library.int4_product(
            self._codes.data_ptr(),
            self._scales.data_ptr(),
            self._zeros,
            x.data_ptr(),
            0 if sums is None else sums.data_ptr(),
            y.data_ptr(),
            n,
            rows,
            columns,
            self._group,
            torch.get_num_threads(),
        )
        return y

    def many(self, x: Tensor) -> Tensor:
        return x @ self.dense_transposed()

    def dense_transposed(self) -> Tensor:
        library, _ = native_library()
        rows, columns = self.shape
        dense = torch.empty(columns, rows, dtype=torch.bfloat16)
        library.int4_dense(
            self._codes.data_ptr(),
            self._scales.data_ptr(),
            self._zeros,
            dense.data_ptr(),
            rows,
            columns,
            self._group,
            torch.get_num_threads(),
        )
        return dense

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_zeros"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._zeros = 0 if self._offsets is None else self._offsets.data_ptr()

    def tensors(self) -> tuple[Tensor, ...]:
        offsets = () if self._offsets is None else (self._offsets,)
        return (self._codes, self._scales, *offsets)
