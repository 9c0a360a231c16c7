"""Codes of a few bits in 32-bit words, lowest bits first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """Pack the last dimension into words.

    A code may lie across two words, as in GPTQ's 3-bit checkpoints: 32 codes in three words.

    Parameters
    ----------
    codes : Tensor of shape (..., n), uint8, values below ``2**bits``
    bits : int
        1 to 8.

    Returns
    -------
    Tensor of shape (..., ceil(n * bits / 32)), int32

    Examples
    --------
    >>> pack_words(torch.arange(8, dtype=torch.uint8), 4).item() == 0x76543210
    True
    """
    array = codes.cpu().contiguous().numpy()
    *rows, count = array.shape
    stream = np.unpackbits(array[..., None], axis=-1, count=bits, bitorder="little")
    stream = stream.reshape(*rows, count * bits)
    missing = -stream.shape[-1] % 32
    if missing:
        stream = np.pad(stream, [(0, 0)] * len(rows) + [(0, missing)])
    packed = np.ascontiguousarray(np.packbits(stream, axis=-1, bitorder="little"))
    return torch.from_numpy(packed.view("<i4").astype(np.int32, copy=False))


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """Undo :func:`pack_words`; return codes of shape (..., count), uint8."""
    array = np.ascontiguousarray(words.cpu().numpy().astype("<i4", copy=False))
    *rows, _ = array.shape
    stream = np.unpackbits(array.view(np.uint8), axis=-1, count=count * bits, bitorder="little")
    codes = np.packbits(stream.reshape(*rows, count, bits), axis=-1, bitorder="little")
    return torch.from_numpy(codes.reshape(*rows, count))


def words_bytes(count: int, bits: int) -> int:
    """Return the bytes of the words that ``count`` codes are packed into."""
    return 4 * ((count * bits + 31) // 32)
