"""What a packed kernel is, and how codes of 2 to 4 bits are joined for the int4 kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from workbench.tensors.weights import QuantizedWeight

INT4_GROUPS = (256, 128, 64, 32)
"""Group sizes that the int4 kernels take."""

INT4_MOST_TOKENS = 80
"""More tokens go through the dense product. Measured on one core of an AVX-512 machine, 1,024
inputs and 5,632 outputs, milliseconds packed against dense with its conversion: 6.1 / 7.0 at 64
tokens and 11.2 / 8.6 at 128."""


class Kernel(ABC):
    """A packed weight of shape (out_features, in_features), bfloat16 in and out.

    Attributes
    ----------
    shape : (int, int)
        (out_features, in_features).
    most_tokens : int or None
        More tokens than this are multiplied densely; None: never.
    """

    name: ClassVar[str]
    shape: tuple[int, int]
    most_tokens: int | None

    @abstractmethod
    def few(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T`` from the codes; ``x`` is (tokens, in_features), bfloat16."""

    @abstractmethod
    def many(self, x: Tensor) -> Tensor:
        """Return the same from a dense copy that is gone afterwards."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Return everything that stays in memory."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T`` by whichever way is faster for so many tokens."""
        if self.most_tokens is None or len(x) <= self.most_tokens:
            return self.few(x)
        return self.many(x)

    @property
    def resident_bytes(self) -> int:
        """Bytes that stay in memory."""
        return sum(t.numel() * t.element_size() for t in self.tensors())


def joined_int4(weights: Sequence[QuantizedWeight], group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the joined rows of weights for ``scale · (code − 8) + offset``.

    Returns
    -------
    codes : Tensor of shape (out_features, in_features), uint8
        Those of 2 and 3 bits are moved to around 8, where the offsets are small.
    scales, offsets : Tensor of shape (out_features, in_features / group), float32
    """
    codes = torch.cat([w.codes + (8 - w.scheme.middle) for w in weights])
    scales = torch.cat([_per_group(w.scales.float(), w, group) for w in weights])
    moved = torch.cat([_per_group(w.scheme.middle - zeros_of(w), w, group) for w in weights])
    return codes, scales, moved * scales


def int4_group(weight: QuantizedWeight) -> int | None:
    """Return the largest group of the kernel into which every group of a weight can be cut."""
    columns = weight.shape[1]
    length = weight.scheme.group_length(columns)
    if columns % length:
        return None
    return next((group for group in INT4_GROUPS if length % group == 0), None)


def zeros_of(weight: QuantizedWeight) -> Tensor:
    """Return the zero points of a weight's groups, those of a symmetric one too, float32."""
    if weight.zeros is None:
        return torch.full_like(weight.scales, weight.scheme.middle, dtype=torch.float32)
    return weight.zeros.float()


def _per_group(values: Tensor, weight: QuantizedWeight, group: int) -> Tensor:
    """Repeat values of the weight's groups, (rows, n_groups), for the kernel's smaller ones."""
    columns = weight.shape[1]
    return values.repeat_interleave(weight.scheme.group_length(columns) // group, dim=1)
