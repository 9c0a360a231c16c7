"""GGUF's blocks of weights, and the names and order of rows that llama.cpp expects.

Of k-quants see :mod:`workbench.tensors.superblocks`. The simple blocks are of 32 weights. ``Q4_0``:
float16 d, then 16 bytes, the j-th with weight j in its low and weight j + 16 in its high half;
w = d·(q − 8). ``Q4_1``: float16 d and m, the same bytes; w = d·q + m. ``Q5_0`` and ``Q5_1``: as
these, with four bytes of fifth bits before the others; w = d·(q − 16) and d·q + m. ``Q8_0``:
float16 d and 32 int8; w = d·q.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.recipes.schemes import GRIDS, BlockScheme, IntScheme
from workbench.tensors import affine
from workbench.tensors.packing.gptq import zeros_of
from workbench.tensors.weights import QuantizedWeight, SuperBlockWeight

BLOCK = 32
BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}
SUPER_BLOCKS = {name.upper(): scheme for name, scheme in GRIDS.items()}
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""llama.cpp's name of an architecture by transformers' ``model_type``."""


def block_type(scheme: IntScheme | BlockScheme) -> str | None:
    """Return the smallest block type that holds a number format's codes, None if none does.

    Fewer than four bits are held in four. Asymmetric codes of 5 bits or fewer go into ``Q4_1`` or
    ``Q5_1``, whose m is the product of scale and zero point, rounded to float16.
    """
    if isinstance(scheme, BlockScheme):
        return scheme.name.upper()
    if scheme.group_size is not None and scheme.group_size % BLOCK:
        return None
    if scheme.bits <= 4:
        return "Q4_0" if scheme.symmetric else "Q4_1"
    if scheme.bits == 5:
        return "Q5_0" if scheme.symmetric else "Q5_1"
    return "Q8_0" if scheme.symmetric or scheme.bits < 8 else None


def packed_bytes(shape: tuple[int, int], scheme: IntScheme | BlockScheme) -> int:
    """Return the bytes of what :func:`pack` returns for a weight of (out, in) features."""
    if isinstance(scheme, BlockScheme):
        return scheme.stored_bytes(*shape)
    kind = block_type(scheme)
    assert kind is not None
    return shape[0] * shape[1] // BLOCK * BLOCK_BYTES[kind]


def pack(weight: QuantizedWeight | SuperBlockWeight) -> tuple[str, NDArray[np.uint8]]:
    """Return the block type and the blocks, (out_features, bytes of a row)."""
    if isinstance(weight, SuperBlockWeight):
        return weight.scheme.name.upper(), weight.tensors()["blocks"].numpy()
    scheme, (rows, columns) = weight.scheme, weight.shape
    kind = block_type(scheme)
    assert kind is not None
    assert columns % BLOCK == 0
    starts = torch.arange(0, columns, BLOCK) // scheme.group_length(columns)
    scales = weight.scales[:, starts]
    zeros = zeros_of(weight)[:, starts]
    codes = weight.codes.reshape(rows, -1, BLOCK).to(torch.int16)
    parts = [_bytes(scales)]
    if kind == "Q8_0":
        body = (codes - zeros[..., None].to(torch.int16)).to(torch.int8).view(torch.uint8)
    else:
        if scheme.symmetric:
            codes = codes + ((16 if kind == "Q5_0" else 8) - scheme.middle)
        else:
            parts.append(_bytes(-(scales.float() * zeros.float()).half()))
        nibbles = codes.to(torch.uint8)
        if kind in _FIVE_BITS:
            parts.append(affine.pack(nibbles >> 4, 1).reshape(*nibbles.shape[:-1], 4))
            nibbles = nibbles & 15
        body = nibbles[..., :16] | nibbles[..., 16:] << 4
    blocks = torch.cat([*parts, body], -1).reshape(rows, -1)
    return kind, np.ascontiguousarray(blocks.numpy())


_FIVE_BITS = ("Q5_0", "Q5_1")


def unpack(kind: str, blocks: NDArray[np.uint8]) -> QuantizedWeight | SuperBlockWeight:
    """Undo :func:`pack`; groups of simple blocks are the blocks of 32.

    Raises
    ------
    UnsupportedArchitectureError
        If the offsets of ``Q4_1`` or ``Q5_1`` are no multiples of its scales, as in files that
        other programs rounded.
    """
    if kind in SUPER_BLOCKS:
        return SuperBlockWeight.from_blocks(torch.from_numpy(np.array(blocks)), SUPER_BLOCKS[kind])
    size = BLOCK_BYTES[kind]
    found = torch.from_numpy(np.array(blocks)).reshape(len(blocks), -1, size)
    scales = found[..., :2].contiguous().view(torch.float16)[..., 0]
    zeros = None
    if kind == "Q8_0":
        signed = found[..., 2:].contiguous().view(torch.int8).to(torch.int16)
        codes, scheme = (signed + 128).to(torch.uint8), IntScheme(8, BLOCK, True)
    else:
        body = found[..., -16:]
        codes = torch.cat([body & 15, body >> 4], -1)
        scheme = IntScheme(5 if kind in _FIVE_BITS else 4, BLOCK, kind in ("Q4_0", "Q5_0"))
        if scheme.bits == 5:
            fifth = affine.unpack(found[..., -20:-16].reshape(-1), 1, tuple(codes.shape))
            codes = codes | fifth << 4
        if not scheme.symmetric:
            offsets = found[..., 2:4].contiguous().view(torch.float16)[..., 0].float()
            zeros = _zeros(scales.float(), offsets, kind, scheme.max_code)
    return QuantizedWeight(codes.reshape(len(blocks), -1), scales, zeros, scheme)


def rotated(rows: NDArray[np.uint8], heads: int) -> NDArray[np.uint8]:
    """Return queries' or keys' rows in llama.cpp's order: it rotates neighbours, not halves."""
    shape = rows.shape
    return rows.reshape(heads, 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)


def unrotated(rows: NDArray[np.uint8], heads: int) -> NDArray[np.uint8]:
    """Undo :func:`rotated`."""
    shape = rows.shape
    return rows.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def heads_of(name: str, config: object) -> int | None:
    """Return the heads by which a tensor's rows are reordered, None where they are not."""
    if ARCHITECTURES.get(str(getattr(config, "model_type", ""))) != "llama":
        return None
    if ".q_proj." in name:
        return int(getattr(config, "num_attention_heads"))  # noqa: B009
    if ".k_proj." in name:
        return int(getattr(config, "num_key_value_heads"))  # noqa: B009
    return None


def tensor_name(name: str, config: object) -> str | None:
    """Return llama.cpp's name of a tensor by its name in transformers, None if it has none."""
    import gguf

    architecture = ARCHITECTURES[str(getattr(config, "model_type"))]  # noqa: B009
    kind = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(kind, int(getattr(config, "num_hidden_layers")))  # noqa: B009
    return names.get_name(name, try_suffixes=(".weight", ".bias"))


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous()[..., None].view(torch.uint8)


def _zeros(scales: Tensor, offsets: Tensor, kind: str, most: int) -> Tensor:
    zeros = torch.round(-offsets / scales.clamp(min=affine.SMALLEST_SCALE)).clamp(0, most)
    apart = (offsets + scales * zeros).abs()
    if bool((apart > 2.0**-10 * offsets.abs() + 2.0**-24).any()):
        raise UnsupportedArchitectureError(
            f"its {kind} blocks have offsets that are no multiples of their scales, so they are no"
            " codes with zero points; the workbench reads those that it wrote itself."
        )
    return zeros.to(torch.uint8)
