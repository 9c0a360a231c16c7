"""Steps that go with others: corrections, embeddings, the format of what stays dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from workbench.errors import ConfigError
from workbench.recipes import options
from workbench.recipes.base import Step, option
from workbench.recipes.quantization import grid_group, stored_as
from workbench.recipes.schemes import GRIDS, BlockScheme, IntScheme


@dataclass(frozen=True)
class LowRankCorrection(Step):
    """Add to compressed layers what a low-rank product can restore (EoRA, Liu et al. 2024)."""

    title: ClassVar[str] = "Correction"
    about: ClassVar[str] = (
        "Store two thin matrices beside every compressed layer that give back the part of its"
        " output that compression lost most of. Follows a step that quantizes or prunes."
    )
    produces: ClassVar[str] = "corrected"
    keeps: ClassVar[frozenset[str]] = frozenset({"codes", "masks"})

    rank: int = option(
        16,
        "Columns of the first and rows of the second matrix, stored in float16. A higher rank"
        " restores more and stores more.",
        minimum=1,
        maximum=1024,
        positional=True,
    )

    @property
    def label(self) -> str:
        return f"{self.title} rank {self.rank}"


@dataclass(frozen=True)
class QuantizeEmbeddings(Step):
    """Quantize the token embeddings and the output head, which other methods leave dense."""

    title: ClassVar[str] = "Embeddings"
    about: ClassVar[str] = (
        "Round the table of token embeddings and the output head, row by row. In small models"
        " they are a large share of the bytes. Goes with any other method."
    )
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks", "codes", "corrected"})
    repeatable: ClassVar[bool] = False

    bits: int = option(
        8,
        "Bits per weight of the table; 8 is nearly always free, 4 needs a check.",
        unit="bits",
        minimum=2,
        maximum=8,
        positional=True,
    )
    group_size: int | None = option(
        None,
        "Consecutive weights of a row that share one scale. Smaller groups follow the weights"
        " more closely and store more scales.",
        unit="weights",
        minimum=8,
        maximum=65536,
        choices=(None, 32, 64, 128),
        none_means="one scale per token",
    )
    symmetric: bool = option(
        False,
        "Fix the zero point at the middle of the range; GGUF files hold tables of 8 bits only so.",
        later=True,
    )
    grid: str | None = options.grid()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is not None:
            grid_group("QuantizeEmbeddings", self.grid, self.bits, self.group_size, None)
            if self.group_size is not None or self.symmetric:
                raise ConfigError(
                    f"QuantizeEmbeddings: grid={self.grid!r} has groups and zero points of its own;"
                    " leave group_size and symmetric out."
                )

    def stored_as(self, in_features: int) -> IntScheme | BlockScheme:
        """Return the number format of a table whose rows have so many weights."""
        return stored_as(self.scheme, self.grid, in_features)

    @property
    def scheme(self) -> IntScheme:
        """The number format of whole numbers; on a grid, of tables whose width does not fit it."""
        if self.grid is not None:
            return GRIDS[self.grid].beside
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
        if self.grid is not None:
            return f"{self.title} {self.grid.upper()}"
        group = "" if self.group_size is None else f" g{self.group_size}"
        return f"{self.title} {self.bits}-bit{group}{' sym' if self.symmetric else ''}"


@dataclass(frozen=True)
class Cast(Step):
    """Store the weights that are not compressed in a 16-bit floating-point format."""

    title: ClassVar[str] = "Cast"
    about: ClassVar[str] = "Store every floating-point weight in 16 bits: half the size of float32."
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks", "codes", "corrected"})

    dtype: str = option(
        "float16",
        "float16 has more precision, bfloat16 more range.",
        choices=("float16", "bfloat16"),
        positional=True,
    )

    @property
    def label(self) -> str:
        return f"{self.title} {self.dtype}"
