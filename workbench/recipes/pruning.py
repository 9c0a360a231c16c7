"""Steps that set single weights to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.recipes import options
from workbench.recipes.base import Step, option
from workbench.recipes.schemes import IntScheme, Sparsity


def _n() -> Any:
    return option(
        None,
        "Keep n of every m consecutive inputs (N:M sparsity, such as 2:4).",
        minimum=1,
        maximum=64,
        none_means="unstructured pruning by ratio",
    )


def _m() -> Any:
    return option(
        None,
        "Length of the pattern in N:M sparsity.",
        minimum=2,
        maximum=64,
        none_means="unstructured pruning by ratio",
    )


@dataclass(frozen=True)
class Pruning(Step):
    """Base class of the methods that set single weights to zero."""

    produces: ClassVar[str] = "masks"
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks"})

    ratio: float = option(
        0.5,
        "Share of the weights to remove (not used with n and m).",
        unit="share",
        minimum=0.0,
        maximum=0.99,
        positional=True,
    )
    n: int | None = _n()
    m: int | None = _m()

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.sparsity  # its own validation names n and m

    @property
    def sparsity(self) -> Sparsity:
        """The pattern of zeros."""
        if self.n is None and self.m is None:
            return Sparsity(ratio=self.ratio)
        return Sparsity(n=self.n, m=self.m)

    @property
    def label(self) -> str:
        if self.n is not None:
            return f"{self.title} {self.n}:{self.m}"
        return f"{self.title} {self.ratio:.0%}"


@dataclass(frozen=True)
class MagnitudePruning(Pruning):
    """Set the weights of smallest magnitude to zero (Han et al. 2015).

    Pruning in several rounds (Zhu & Gupta 2017) differs from one round only if the model is
    trained in between: without training the smallest weights of the second round are the ones
    that one round would have removed as well. The ratios of such rounds are
    :func:`workbench.tensors.masks.cubic_schedule`.
    """

    title: ClassVar[str] = "Magnitude"
    about: ClassVar[str] = (
        "Set the smallest weights to zero. Zeros stored densely save no bytes by themselves."
    )

    scope: str = option(
        "layer",
        "Compare magnitudes within each layer, or over the whole model (global), which spares"
        " the layers whose weights are large.",
        choices=("layer", "global"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n is not None and self.scope == "global":
            raise ConfigError(
                "MagnitudePruning: scope='global' has no meaning with n and m, because every"
                " group of m inputs keeps n; leave scope at 'layer'."
            )

    @property
    def label(self) -> str:
        return f"{super().label} global" if self.scope == "global" else super().label


@dataclass(frozen=True)
class Wanda(Pruning):
    """Remove the weights of smallest magnitude times input norm (Sun et al. 2024)."""

    title: ClassVar[str] = "Wanda"
    about: ClassVar[str] = (
        "Set to zero, in every row, the weights whose size times their input's is smallest. As"
        " fast as magnitude pruning and better, because it knows which inputs are large."
    )


@dataclass(frozen=True)
class SparseGPT(Pruning):
    """Prune column by column and correct the columns to come (Frantar & Alistarh 2023)."""

    title: ClassVar[str] = "SparseGPT"
    about: ClassVar[str] = (
        "Remove the weights that the others can best make up for, and correct those that stay;"
        " can quantize them in the same pass."
    )

    bits: int | None = option(
        None,
        "Quantize the weights that stay to so many bits in the same pass.",
        unit="bits",
        minimum=2,
        maximum=8,
        none_means="pruning only",
    )
    group_size: int | None = options.group_size()
    symmetric: bool = options.symmetric()
    damping: float = options.damping()
    block_size: int = option(
        128,
        "Columns whose mask is chosen together, from the weights as corrected so far.",
        unit="columns",
        minimum=1,
        maximum=4096,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits is None or self.m is None or self.group_size is None:
            return
        if self.group_size % self.m:
            raise ConfigError(
                f"SparseGPT: group_size={self.group_size} cuts through a pattern of m={self.m}"
                f" inputs; give a multiple of {self.m}, or None for one scale per output channel."
            )

    @property
    def produces(self) -> str:  # type: ignore[override]
        """Codes with bits, else masks."""
        return "masks" if self.bits is None else "codes"

    @property
    def scheme(self) -> IntScheme | None:
        """The number format of the weights that stay, None if they are not quantized."""
        if self.bits is None:
            return None
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
        if self.bits is None:
            return super().label
        group = "per channel" if self.group_size is None else f"g{self.group_size}"
        return f"{super().label} {self.bits}-bit {group}{' sym' if self.symmetric else ''}"
