"""Modules that stand where linear layers and embeddings stood, and run from the codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.runtime.packed.kernel import Kernel
from workbench.tensors.weights import QuantizedWeight


class SharedProduct:
    """One packed product for all layers that read the same tensor, such as q, k and v.

    The first layer that is called computes the rows of all; the others take theirs when they are
    called with that very tensor, and compute anew otherwise. Nothing is kept once all have taken.
    Threads may share it: what waits belongs to one input and is replaced in one assignment.

    Parameters
    ----------
    kernel : Kernel
        The joined rows.
    sizes : tuple of int
        Rows of each layer.
    input_scales : Tensor of shape (in_features,), or None
        The input is divided by these first (AWQ).
    """

    def __init__(
        self, kernel: Kernel, sizes: tuple[int, ...], input_scales: Tensor | None = None
    ) -> None:
        self.kernel = kernel
        self.sizes = sizes
        self.input_scales = None if input_scales is None else input_scales.bfloat16()
        self._waiting: tuple[Tensor | None, dict[int, Tensor]] = (None, {})

    def joined(self, x: Tensor) -> Tensor:
        """Return the products of all layers, (…, sum of sizes)."""
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()
        if self.input_scales is not None:
            flat = flat / self.input_scales
        return self.kernel(flat).view(*x.shape[:-1], -1)

    def take(self, part: int, x: Tensor) -> Tensor:
        """Return the product of one layer, (…, its size)."""
        if len(self.sizes) == 1:
            return self.joined(x)
        owner, waiting = self._waiting
        found = waiting.pop(part, None) if owner is x else None
        if found is None:
            waiting = dict(enumerate(self.joined(x).split(self.sizes, -1)))
            found = waiting.pop(part)
            self._waiting = (x, waiting)
        if not waiting:
            self._waiting = (None, {})
        return found


@dataclass(frozen=True, eq=False)
class LowRank:
    """What a :class:`~workbench.tensors.weights.CorrectedWeight` adds to an undivided input."""

    left: Tensor
    right: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x @ self.right.T) @ self.left.T


class PackedLinear(nn.Module):
    """A linear layer (or GPT-2's ``Conv1D``) that runs from the codes, in bfloat16.

    Its output has its input's dtype, so that it fits between float32 layers.

    Parameters
    ----------
    product : SharedProduct
    part : int
        Which of the product's layers this is.
    bias : Tensor of shape (out_features,), or None
    low_rank : LowRank, optional
        Added to the product.
    """

    def __init__(
        self,
        product: SharedProduct,
        part: int,
        bias: Tensor | None,
        low_rank: LowRank | None = None,
    ) -> None:
        super().__init__()
        self.product = product
        self.part = part
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)
        self.low_rank = low_rank
        self.in_features = product.kernel.shape[1]
        self.out_features = product.sizes[part]
        self.weight = None  # T5 asks for its dtype, and takes none for an answer

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for an input of shape (…, in_features)."""
        out = self.product.take(self.part, x)
        if self.low_rank is not None:
            out = out + self.low_rank(x.to(out.dtype))
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.product.kernel.name}"


class PackedEmbedding(nn.Module):
    """An embedding whose rows are made dense when they are looked up.

    Parameters
    ----------
    rows : callable
        Returns the rows of an index of shape (…,) as (…, width), bfloat16.
    shape : (int, int)
        (vocabulary, width).
    dtype : torch.dtype
        Of the output.
    """

    def __init__(
        self,
        rows: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.dtype = dtype
        self.num_embeddings, self.embedding_dim = shape

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of shape (…, width)."""
        return self.rows(ids).to(self.dtype)


class CodeRows:
    """Rows of a quantized table, made dense one by one: one byte per weight stays in memory."""

    def __init__(self, weight: QuantizedWeight) -> None:
        self.weight = weight

    def __call__(self, index: Tensor) -> Tensor:
        """Return rows of shape (…, width), bfloat16."""
        flat, weight = index.reshape(-1), self.weight
        some = dataclasses.replace(
            weight,
            codes=weight.codes[flat],
            scales=weight.scales[flat],
            zeros=None if weight.zeros is None else weight.zeros[flat],
        )
        return some.dequantize().bfloat16().view(*index.shape, -1)
