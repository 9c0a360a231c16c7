"""Compressed weights: the codes that are stored, and the dense values they stand for."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.recipes.schemes import GRIDS, BlockScheme, IntScheme, Sparsity
from workbench.tensors import affine, superblocks


class CompressedWeight(ABC):
    """A weight matrix of shape (out_features, in_features) in a stored form. Immutable."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """Return the dense values, float32, of this shape."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, in the workbench's canonical packing."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the JSON-ready rest that :func:`weight_from` needs beside the tensors."""

    @property
    @abstractmethod
    def stored_bytes(self) -> int:
        """Bytes of :meth:`tensors`, without packing them."""

    @property
    def input_scales(self) -> Tensor | None:
        """What the layer's input is divided by, (in_features,), float16; None for nothing."""
        return None

    def without_input_scales(self) -> CompressedWeight:
        """Return the weight for an input that the layer before has divided already."""
        return self

    def rows_divided(self, divisor: Tensor) -> CompressedWeight | None:
        """Return the weight with every row divided, (out_features,), at no loss of codes.

        None where the stored form cannot hold the result.
        """
        return None


@dataclass(frozen=True, eq=False)
class QuantizedWeight(CompressedWeight):
    """Integer codes with a scale per row and group.

    Attributes
    ----------
    codes : Tensor of shape (out_features, in_features), uint8
    scales : Tensor of shape (out_features, n_groups), float16
    zeros : Tensor of shape (out_features, n_groups), uint8, or None
        None for symmetric schemes, whose zero point is the middle code.
    scheme : IntScheme
    input_scales : Tensor of shape (in_features,), float16, or None
        The layer's input is divided by these (AWQ); None where the layer before absorbed them.
    """

    kind: ClassVar[str] = "quantized"

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    scheme: IntScheme
    input_scales: Tensor | None = None

    @classmethod
    def from_codes(
        cls,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor,
        scheme: IntScheme,
        input_scales: Tensor | None = None,
    ) -> QuantizedWeight:
        """Make a weight of float32 scales and zero points from :mod:`workbench.tensors.affine`."""
        return cls(
            codes.to(torch.uint8).contiguous(),
            scales.half().contiguous(),
            None if scheme.symmetric else zeros.to(torch.uint8).contiguous(),
            scheme,
            None if input_scales is None else input_scales.half(),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> Tensor:
        zeros = self.zeros
        if zeros is None:
            zeros = torch.full_like(self.scales, self.scheme.middle)
        values = affine.dequantize(self.codes, self.scales, zeros, self.scheme)
        return values if self.input_scales is None else values / self.input_scales.float()

    def tensors(self) -> dict[str, Tensor]:
        stored = {"codes": affine.pack(self.codes, self.scheme.bits), "scales": self.scales}
        if self.zeros is not None:
            stored["zeros"] = affine.pack(self.zeros, self.scheme.bits)
        if self.input_scales is not None:
            stored["input_scales"] = self.input_scales
        return stored

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape), "scheme": asdict(self.scheme)}

    @property
    def stored_bytes(self) -> int:
        total = self.scheme.stored_bytes(*self.shape)
        return total if self.input_scales is None else total + 2 * self.input_scales.numel()

    def without_input_scales(self) -> QuantizedWeight:
        return dataclasses.replace(self, input_scales=None)

    def rows(self, start: int, stop: int) -> QuantizedWeight:
        """Return some rows as a weight of their own."""
        zeros = None if self.zeros is None else self.zeros[start:stop]
        codes, scales = self.codes[start:stop], self.scales[start:stop]
        return dataclasses.replace(self, codes=codes, scales=scales, zeros=zeros)

    @classmethod
    def stacked(cls, parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
        """Return the rows of weights with one scheme and no input scales as one weight."""
        zeros = [part.zeros for part in parts if part.zeros is not None]
        return cls(
            torch.cat([part.codes for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat(zeros) if zeros else None,
            parts[0].scheme,
        )

    def rows_divided(self, divisor: Tensor) -> QuantizedWeight | None:
        scales = (self.scales.float() / divisor[:, None]).half()
        if not bool(torch.isfinite(scales).all()) or bool((scales == 0).any()):
            return None
        return dataclasses.replace(self, scales=scales)

    @classmethod
    def restore(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> QuantizedWeight:
        """Undo :meth:`describe` and :meth:`tensors`."""
        scheme = IntScheme(**data["scheme"])
        scales = tensors["scales"]
        zeros = tensors.get("zeros")
        return cls(
            affine.unpack(tensors["codes"], scheme.bits, tuple(data["shape"])),
            scales,
            None if zeros is None else affine.unpack(zeros, scheme.bits, tuple(scales.shape)),
            scheme,
            tensors.get("input_scales"),
        )


@dataclass(frozen=True, eq=False)
class SuperBlockWeight(CompressedWeight):
    """Codes on the grid of one of llama.cpp's k-quants, stored as in a GGUF file.

    Attributes
    ----------
    codes : Tensor of shape (out_features, in_features), uint8
    scales : BlockScales
    scheme : BlockScheme
    input_scales : Tensor of shape (in_features,), float16, or None
        As of :class:`QuantizedWeight`.
    """

    kind: ClassVar[str] = "superblocks"

    codes: Tensor
    scales: superblocks.BlockScales
    scheme: BlockScheme
    input_scales: Tensor | None = None

    @classmethod
    def from_blocks(
        cls, blocks: Tensor, scheme: BlockScheme, input_scales: Tensor | None = None
    ) -> SuperBlockWeight:
        """Make a weight of a GGUF file's blocks, (out_features, bytes of a row)."""
        codes, scales = superblocks.unpack(blocks, scheme)
        return cls(codes, scales, scheme, input_scales)

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> Tensor:
        values = superblocks.dequantize(self.codes, self.scales, self.scheme)
        return values if self.input_scales is None else values / self.input_scales.float()

    def tensors(self) -> dict[str, Tensor]:
        stored = {"blocks": superblocks.pack(self.codes, self.scales, self.scheme)}
        if self.input_scales is not None:
            stored["input_scales"] = self.input_scales
        return stored

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "grid": self.scheme.name}

    @property
    def stored_bytes(self) -> int:
        total = self.scheme.stored_bytes(*self.shape)
        return total if self.input_scales is None else total + 2 * self.input_scales.numel()

    def without_input_scales(self) -> SuperBlockWeight:
        return dataclasses.replace(self, input_scales=None)

    def rows_divided(self, divisor: Tensor) -> SuperBlockWeight | None:
        scales = self.scales
        parts = {"d": scales.d} if scales.dmin is None else {"d": scales.d, "dmin": scales.dmin}
        divided = {name: (p.float() / divisor[:, None]).half() for name, p in parts.items()}
        for name, part in divided.items():
            vanished = (part == 0) & (parts[name] != 0)
            if not bool(torch.isfinite(part).all()) or bool(vanished.any()):
                return None
        return dataclasses.replace(self, scales=dataclasses.replace(scales, **divided))

    @classmethod
    def restore(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> SuperBlockWeight:
        """Undo :meth:`describe` and :meth:`tensors`."""
        scheme = GRIDS[data["grid"]]
        return cls.from_blocks(tensors["blocks"], scheme, tensors.get("input_scales"))


@dataclass(frozen=True, eq=False)
class PrunedWeight(CompressedWeight):
    """A dense weight with zeros in it. Stored densely: zeros by themselves save no bytes.

    Attributes
    ----------
    values : Tensor of shape (out_features, in_features), in the model's stored dtype
        Zero exactly where the weight was removed.
    sparsity : Sparsity
        The pattern that was asked for.
    """

    kind: ClassVar[str] = "pruned"

    values: Tensor
    sparsity: Sparsity

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    @property
    def mask(self) -> Tensor:
        """True where a weight was kept, bool, of this shape."""
        return self.values != 0

    def dequantize(self) -> Tensor:
        return self.values.float()

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values}

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "sparsity": asdict(self.sparsity)}

    @property
    def stored_bytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    @classmethod
    def restore(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> PrunedWeight:
        """Undo :meth:`describe` and :meth:`tensors`."""
        return cls(tensors["values"], Sparsity(**data["sparsity"]))


@dataclass(frozen=True, eq=False)
class CorrectedWeight(CompressedWeight):
    """A compressed weight and the low-rank product that is added to it.

    Attributes
    ----------
    base : CompressedWeight
    left : Tensor of shape (out_features, rank), float16
    right : Tensor of shape (rank, in_features), float16
    """

    kind: ClassVar[str] = "corrected"

    base: CompressedWeight
    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    def dequantize(self) -> Tensor:
        return self.base.dequantize() + self.left.float() @ self.right.float()

    def tensors(self) -> dict[str, Tensor]:
        base = {f"base.{name}": tensor for name, tensor in self.base.tensors().items()}
        return {**base, "left": self.left, "right": self.right}

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.describe()}

    @property
    def stored_bytes(self) -> int:
        return self.base.stored_bytes + 2 * (self.left.numel() + self.right.numel())

    @property
    def input_scales(self) -> Tensor | None:
        return self.base.input_scales

    def without_input_scales(self) -> CorrectedWeight:
        if self.input_scales is None:
            return self
        # The product was made for inputs that are not divided.
        right = (self.right.float() * self.input_scales.float()).half()
        return CorrectedWeight(self.base.without_input_scales(), self.left, right)

    def rows_divided(self, divisor: Tensor) -> CorrectedWeight | None:
        base = self.base.rows_divided(divisor)
        left = (self.left.float() / divisor[:, None]).half()
        if base is None or not bool(torch.isfinite(left).all()):
            return None
        return CorrectedWeight(base, left, self.right)

    @classmethod
    def restore(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> CorrectedWeight:
        """Undo :meth:`describe` and :meth:`tensors`."""
        base = weight_from(data["base"], _within("base", tensors))
        return cls(base, tensors["left"], tensors["right"])


@dataclass(frozen=True, eq=False)
class PermutedWeight(CompressedWeight):
    """Integer codes whose groups are not of consecutive inputs (GPTQ's act-order elsewhere).

    Attributes
    ----------
    base : QuantizedWeight
        With the inputs in the order in which they were grouped.
    order : Tensor of shape (in_features,), int32
        The input that each column of ``base`` is of.
    """

    kind: ClassVar[str] = "permuted"

    base: QuantizedWeight
    order: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def inverse(self) -> Tensor:
        """The column of ``base`` that each input is in, (in_features,), int64."""
        return torch.argsort(self.order.long())

    def dequantize(self) -> Tensor:
        return self.base.dequantize()[:, self.inverse]

    def tensors(self) -> dict[str, Tensor]:
        base = {f"base.{name}": tensor for name, tensor in self.base.tensors().items()}
        return {**base, "order": self.order}

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.describe()}

    @property
    def stored_bytes(self) -> int:
        return self.base.stored_bytes + 4 * self.order.numel()

    def rows_divided(self, divisor: Tensor) -> PermutedWeight | None:
        base = self.base.rows_divided(divisor)
        return None if base is None else PermutedWeight(base, self.order)

    @classmethod
    def restore(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> PermutedWeight:
        """Undo :meth:`describe` and :meth:`tensors`."""
        base = QuantizedWeight.restore(data["base"], _within("base", tensors))
        return cls(base, tensors["order"])


def _within(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``part.``, without that."""
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}.")
    }


_KINDS: dict[str, Any] = {
    kind.kind: kind
    for kind in (QuantizedWeight, SuperBlockWeight, PrunedWeight, CorrectedWeight, PermutedWeight)
}


def rounded(
    weight: Tensor,
    scheme: IntScheme | BlockScheme,
    *,
    shrink: Tensor | float = 1.0,
    importance: Tensor | None = None,
    input_scales: Tensor | None = None,
) -> QuantizedWeight | SuperBlockWeight:
    """Return a matrix rounded to the nearest level of scales that are chosen for it.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features), float32
    scheme : IntScheme or BlockScheme
    shrink : float or Tensor
        See :func:`workbench.tensors.affine.choose_scales`; of an IntScheme.
    importance : Tensor of shape (in_features,), optional
        See :func:`workbench.tensors.superblocks.choose_scales`; of a BlockScheme.
    input_scales : Tensor of shape (in_features,), optional
        What the weight was multiplied by, to be stored with it.
    """
    if isinstance(scheme, BlockScheme):
        chosen = superblocks.choose_scales(weight, scheme, importance)
        divisor = None if input_scales is None else input_scales.half()
        return SuperBlockWeight(
            superblocks.quantize(weight, chosen, scheme), chosen, scheme, divisor
        )
    scales, zeros = affine.choose_scales(weight, scheme, shrink=shrink)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return QuantizedWeight.from_codes(codes, scales, zeros, scheme, input_scales)


def codes_label(weights: Iterable[CompressedWeight]) -> str | None:
    """Return what codes weights are stored as, such as "4-bit codes"; None if none are."""
    inner = [weight.base if isinstance(weight, PermutedWeight) else weight for weight in weights]
    kinds = (QuantizedWeight, SuperBlockWeight)
    bits = sorted({w.scheme.bits for w in inner if isinstance(w, kinds)})
    return f"{' and '.join(f'{n}-bit' for n in bits)} codes" if bits else None


def weight_from(data: dict[str, Any], tensors: dict[str, Tensor]) -> CompressedWeight:
    """Return the weight that ``describe()`` and ``tensors()`` came from.

    Raises
    ------
    ValueError
        If the kind is unknown (written by a newer version).
    """
    if data.get("kind") not in _KINDS:
        raise ValueError(
            f"Unknown kind of weight {data.get('kind')!r}; known: {', '.join(_KINDS)}."
        )
    restored: CompressedWeight = _KINDS[data["kind"]].restore(data, tensors)
    return restored
