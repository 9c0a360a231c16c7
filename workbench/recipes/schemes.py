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
