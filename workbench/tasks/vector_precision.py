"""What vectors are stored as in an index: float32, int8 or one bit per number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

PRECISIONS = {"": "float32", "_int8": "int8", "_binary": "binary"}
"""By what a metric's name ends with."""

_BITS = {"float32": 32, "int8": 8, "binary": 1}


def vector_bytes(size: int, precision: str) -> int:
    """Return the bytes of one stored vector of so many numbers."""
    return -(-size * _BITS[precision] // 8)


def stored_vectors(vectors: FloatArray, precision: str) -> FloatArray:
    """Return what vectors are after they were stored, as numbers that queries are compared with.

    Parameters
    ----------
    vectors : ndarray of shape (vectors, size), float32
        Of unit length; all that one index holds.
    precision : {"float32", "int8", "binary"}
        ``"int8"``: every dimension's range over these vectors in 256 equal steps, as FAISS' scalar
        quantizer has it. ``"binary"``: the signs, to which queries are compared unrounded
        (Shakir, Aarsen and Lee 2024, "Binary and Scalar Embedding Quantization").

    Returns
    -------
    ndarray of shape (vectors, size), float32
        Of unit length, but for what is zero.
    """
    if precision == "float32":
        return vectors
    if precision == "binary":
        return np.where(vectors > 0, 1, -1).astype(np.float32) / np.float32(
            np.sqrt(vectors.shape[1])
        )
    low, high = vectors.min(0), vectors.max(0)
    step = np.where(high > low, (high - low) / 255, 1).astype(np.float32)
    return unit_length(low + step * np.rint((vectors - low) / step))


def unit_length(vectors: FloatArray) -> FloatArray:
    """Return vectors divided by their length."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)
