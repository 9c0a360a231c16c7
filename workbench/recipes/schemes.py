"""Number formats and sparsity patterns, as plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from workbench.errors import ConfigError


@dataclass(frozen=True)
class IntScheme:
    """Uniform integer quantization of a weight of shape (out_features, in_features).

    Attributes
    ----------
    bits : int
        Bits per code, 2 to 8.
    group_size : int or None
        Consecutive input channels that share one scale; the last group may be shorter. None
        means one scale per output channel.
    symmetric : bool
        True: the zero point is fixed at ``2**(bits - 1)`` and not stored.

    Examples
    --------
    >>> IntScheme(4, 128).n_groups(300)
    3
    """

    bits: int
    group_size: int | None = 128
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits} is not accepted; give a whole number from 2 to 8.")
        if self.group_size is not None and self.group_size < 1:
            raise ConfigError(
                f"group_size={self.group_size} is not accepted; give a positive number such as"
                " 32, 64 or 128, or None for one scale per output channel."
            )

    @property
    def max_code(self) -> int:
        """Largest code, ``2**bits - 1``."""
        return 2**self.bits - 1

    @property
    def middle(self) -> int:
        """The zero point of symmetric schemes, ``2**(bits - 1)``."""
        return 2 ** (self.bits - 1)

    def n_groups(self, in_features: int) -> int:
        """Return how many groups a row of ``in_features`` weights has."""
        return 1 if self.group_size is None else math.ceil(in_features / self.group_size)

    def group_length(self, in_features: int) -> int:
        """Return the length of a full group in a row of ``in_features`` weights."""
        return in_features if self.group_size is None else min(self.group_size, in_features)

    def block_length(self, in_features: int, sizes: Iterable[int]) -> int | None:
        """Return the first of a format's block sizes that divides every group, None without one.

        >>> IntScheme(4, 256).block_length(1024, (128, 64, 32))
        128
        >>> IntScheme(4, 16).block_length(1024, (128, 64, 32)) is None
        True
        """
        length = self.group_length(in_features)
        if in_features % length:
            return None
        return next((size for size in sizes if length % size == 0), None)

    def stored_bytes(self, out_features: int, in_features: int) -> int:
        """Return the bytes of a packed weight: codes, float16 scales, and zero points if any.

        >>> IntScheme(4, 128).stored_bytes(16, 256)
        2128
        """
        n_scales = out_features * self.n_groups(in_features)
        total = (out_features * in_features * self.bits + 7) // 8 + 2 * n_scales
        return total if self.symmetric else total + (n_scales * self.bits + 7) // 8


@dataclass(frozen=True)
class BlockScheme:
    """One of llama.cpp's k-quants: super-blocks of 256 weights, whose scales are quantized too.

    Attributes
    ----------
    name : str
        As in ``GPTQ(4, grid=name)``, and as llama.cpp names it but for the case.
    bits : int
        Bits per code.
    length : int
        Consecutive input channels that share a sub-scale.
    top_scale : int
        The largest sub-scale.
    minima : bool
        True: ``value = d·scale·code − dmin·minimum``, with sub-scales from 0. False:
        ``value = d·scale·(code − middle)``, with sub-scales of both signs.
    block_bytes : int
        Bytes of a super-block.

    Examples
    --------
    >>> GRIDS["q4_k"].stored_bytes(16, 512)
    4608
    """

    name: str
    bits: int
    length: int
    top_scale: int
    minima: bool
    block_bytes: int

    @property
    def max_code(self) -> int:
        """Largest code, ``2**bits - 1``."""
        return 2**self.bits - 1

    @property
    def middle(self) -> int:
        """The code of zero where there are no minima, ``2**(bits - 1)``; else 0."""
        return 0 if self.minima else 2 ** (self.bits - 1)

    @property
    def beside(self) -> IntScheme:
        """What rows are stored as whose length is no multiple of 256.

        llama.cpp's own choice, except that it takes IQ4_NL, of the same size, where this is Q4_0.
        """
        return _BESIDE[self.name]

    def stored_bytes(self, out_features: int, in_features: int) -> int:
        """Return the bytes of a packed weight, which are those of a GGUF file."""
        return out_features * in_features // SUPER_BLOCK * self.block_bytes


SUPER_BLOCK = 256
"""Weights of a super-block."""

GRIDS: dict[str, BlockScheme] = {
    scheme.name: scheme
    for scheme in (
        BlockScheme("q2_k", 2, 16, 15, True, 84),
        BlockScheme("q3_k", 3, 16, 31, False, 110),
        BlockScheme("q4_k", 4, 32, 63, True, 144),
        BlockScheme("q5_k", 5, 32, 63, True, 176),
        BlockScheme("q6_k", 6, 16, 127, False, 210),
    )
}
"""Every k-quant by its name."""

_BESIDE = {
    "q2_k": IntScheme(4, 32, True),
    "q3_k": IntScheme(4, 32, True),
    "q4_k": IntScheme(5, 32, True),
    "q5_k": IntScheme(5, 32, False),
    "q6_k": IntScheme(8, 32, True),
}


@dataclass(frozen=True)
class Sparsity:
    """Which share of the weights is removed.

    Either ``ratio`` (unstructured: that share of all weights is set to zero) or ``n`` and ``m``
    (keep ``n`` weights of every ``m`` consecutive input channels).
    """

    ratio: float | None = None
    n: int | None = None
    m: int | None = None

    def __post_init__(self) -> None:
        if (self.n is None) != (self.m is None):
            raise ConfigError(f"n={self.n}, m={self.m}: give both (keep n of m), or neither.")
        if (self.ratio is None) == (self.n is None):
            raise ConfigError("Give either ratio (such as 0.5) or n and m (such as 2 and 4).")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise ConfigError(
                f"ratio={self.ratio} is not accepted; give a share of weights to remove from 0"
                " up to, not including, 1 (0.5 removes half)."
            )
        if self.n is not None and self.m is not None and not 0 < self.n < self.m:
            raise ConfigError(f"n={self.n}, m={self.m}: n must be at least 1 and below m.")
