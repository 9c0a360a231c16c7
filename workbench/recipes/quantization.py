"""Steps that store the linear layers as integer codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.recipes import options
from workbench.recipes.base import Step, option
from workbench.recipes.schemes import GRIDS, SUPER_BLOCK, BlockScheme, IntScheme


def grid_group(owner: str, grid: str, bits: int, group_size: int | None, default: Any) -> int:
    """Return the size of a grid's own groups, after making sure that nothing else was asked for.

    Raises
    ------
    ConfigError
        If the grid has other bits or other groups.
    """
    own = GRIDS[grid]
    if bits != own.bits:
        fitting = ", ".join(repr(name) for name, g in GRIDS.items() if g.bits == bits)
        instead = f", or a grid of {bits} bits ({fitting})" if fitting else ""
        raise ConfigError(
            f"{owner}: grid={grid!r} has codes of {own.bits} bits, not {bits}; give"
            f" {owner}({own.bits}, grid={grid!r}){instead}."
        )
    if group_size not in (default, own.length):
        raise ConfigError(
            f"{owner}: group_size={group_size} is not accepted with grid={grid!r}, whose groups are"
            f" of {own.length}. Leave group_size out."
        )
    return own.length


def stored_as(scheme: IntScheme, grid: str | None, in_features: int) -> IntScheme | BlockScheme:
    """Return the grid's number format where it fits a width, else that of whole numbers."""
    return scheme if grid is None or in_features % SUPER_BLOCK else GRIDS[grid]


@dataclass(frozen=True)
class Quantization(Step):
    """Base class of the methods that store integer codes."""

    produces: ClassVar[str] = "codes"

    bits: int = options.bits()
    group_size: int | None = options.group_size()
    symmetric: bool = options.symmetric()
    grid: str | None = options.grid()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is not None:
            group_size = grid_group(type(self).__name__, self.grid, self.bits, self.group_size, 128)
            object.__setattr__(self, "group_size", group_size)
            if self.symmetric:
                raise ConfigError(
                    f"{type(self).__name__}: symmetric=True is not accepted with"
                    f" grid={self.grid!r}, which fixes that itself. Leave symmetric out."
                )

    @property
    def scheme(self) -> IntScheme:
        """The number format of whole numbers; on a grid, of layers whose width does not fit it."""
        if self.grid is not None:
            return GRIDS[self.grid].beside
        return IntScheme(self.bits, self.group_size, self.symmetric)

    def stored_as(self, in_features: int) -> IntScheme | BlockScheme:
        """Return the number format of a layer with so many inputs."""
        return stored_as(self.scheme, self.grid, in_features)

    @property
    def keeps(self) -> frozenset[str]:  # type: ignore[override]
        # With minima there is no level at zero, so pruned weights would come back.
        bare = self.grid is not None and GRIDS[self.grid].minima
        return frozenset({"dense"} if bare else {"dense", "masks"})

    @property
    def implied(self) -> frozenset[str]:
        return frozenset() if self.grid is None else frozenset({"group_size"})

    @property
    def label(self) -> str:
        if self.grid is not None:
            return f"{self.title} {self.grid.upper()}"
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
        _own_grid(self, self.backend)

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

    def __post_init__(self) -> None:
        super().__post_init__()
        _own_grid(self, self.backend)

    @property
    def label(self) -> str:
        label = f"{super().label} exportable" if self.exportable else super().label
        return label if self.backend == options.OWN_BACKEND else f"{label} by {self.backend}"


def _own_grid(step: Quantization, backend: str) -> None:
    if step.grid is not None and backend != options.OWN_BACKEND:
        raise ConfigError(
            f"{type(step).__name__}: grid={step.grid!r} is the workbench's own; {backend} knows no"
            " k-quants. Leave one of the two out."
        )
