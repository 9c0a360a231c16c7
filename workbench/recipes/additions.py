"""Steps that go with others: corrections, embeddings, the format of what stays dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from workbench.recipes.base import Step, option
from workbench.recipes.schemes import IntScheme


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

    @property
    def scheme(self) -> IntScheme:
        """The number format that the tables are stored in."""
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
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
