"""Steps that store the linear layers as integer codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from workbench.errors import ConfigError
from workbench.recipes import options
from workbench.recipes.base import Step, option
from workbench.recipes.schemes import IntScheme


@dataclass(frozen=True)
class Quantization(Step):
    """Base class of the methods that store integer codes."""

    produces: ClassVar[str] = "codes"
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks"})

    bits: int = options.bits()
    group_size: int | None = options.group_size()
    symmetric: bool = options.symmetric()

    @property
    def scheme(self) -> IntScheme:
        """The number format that the weights are stored in."""
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
        group = "per channel" if self.group_size is None else f"g{self.group_size}"
        symmetric = " sym" if self.symmetric else ""
        return f"{self.title} {self.bits}-bit {group}{symmetric}"


@dataclass(frozen=True)
class RTN(Quantization):
    """Round to nearest: each weight to the closest level of its group, no data needed."""

    title: ClassVar[str] = "RTN"
    about: ClassVar[str] = "Round every weight to its nearest level. Instant, needs no data."


@dataclass(frozen=True)
class GPTQ(Quantization):
    """Quantize column by column and correct the columns to come (Frantar et al. 2023)."""

    title: ClassVar[str] = "GPTQ"
    about: ClassVar[str] = (
        "Round column by column; every rounding error is compensated in the columns that follow,"
        " guided by the calibration data."
    )

    damping: float = options.damping()
    act_order: bool = option(
        True,
        "Quantize the inputs with the largest activations first; groups keep their places"
        " (static groups), so nothing more is stored.",
    )
    block_size: int = option(
        128,
        "Columns that are corrected together before the rest of the row; changes speed, not the"
        " result.",
        unit="columns",
        minimum=1,
        maximum=4096,
    )
    sequential: bool = option(
        False,
        "Solve block by block, each with the inputs that the quantized blocks before it give."
        " Pays at very few bits, and is many times slower; meant for the last few candidates.",
        later=True,
    )
    backend: str = options.backend()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequential and self.backend != options.OWN_BACKEND:
            raise ConfigError(
                f"GPTQ: sequential=True is the workbench's own; {self.backend} always goes block by"
                " block. Leave one of the two out."
            )

    @property
    def label(self) -> str:
        label = f"{super().label} sequential" if self.sequential else super().label
        return label if self.backend == options.OWN_BACKEND else f"{label} by {self.backend}"


@dataclass(frozen=True)
class AWQ(Quantization):
    """Scale salient input channels up before rounding (Lin et al. 2024)."""

    title: ClassVar[str] = "AWQ"
    about: ClassVar[str] = (
        "Scale the input channels that matter most before rounding, and undo the scale in the"
        " layer before."
    )

    n_grid: int = option(
        20,
        "Points of the search for the scale's exponent between 0 and 1.",
        unit="points",
        minimum=1,
        maximum=200,
    )
    clip: bool = option(
        True, "Also search for the range of each group that gives the smallest output error."
    )
    exportable: bool = option(
        False,
        "Scale only inputs whose scale the layer before can absorb, as AutoAWQ does, so that other"
        " programs' formats can hold the result. Costs a little accuracy where attention shares"
        " keys and values between heads.",
        later=True,
    )
    backend: str = options.backend()

    @property
    def label(self) -> str:
        label = f"{super().label} exportable" if self.exportable else super().label
        return label if self.backend == options.OWN_BACKEND else f"{label} by {self.backend}"
