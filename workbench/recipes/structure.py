"""Steps that leave a smaller architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.recipes import options
from workbench.recipes.base import Step, fields_of, option


def _seed() -> Any:
    return option(
        0, "Of the random choice, where the criterion is random.", minimum=0, maximum=2**31 - 1
    )


@dataclass(frozen=True)
class DepthPruning(Step):
    """Remove whole blocks of the model (ShortGPT, Men et al. 2024; by loss, Kim et al. 2024)."""

    title: ClassVar[str] = "Depth"
    about: ClassVar[str] = (
        "Remove the blocks that matter least. The model is smaller and faster everywhere, with no"
        " special kernels."
    )

    n_blocks: int = option(
        2,
        "Blocks to remove; at least one must stay.",
        unit="blocks",
        minimum=1,
        maximum=1000,
        positional=True,
    )
    criterion: str = option(
        "loss",
        "Which blocks go: one by one those whose removal changes the predictions least (loss, a"
        " pass per block that is left); those that turn their input the least (influence, one"
        " pass, for large models); the last ones; or random ones, to compare with.",
        choices=("loss", "influence", "last", "random"),
    )
    seed: int = _seed()

    @property
    def label(self) -> str:
        plural = "" if self.n_blocks == 1 else "s"
        return f"{self.title} −{self.n_blocks} block{plural}{_unless_default(self, 'criterion')}"


@dataclass(frozen=True)
class WidthPruning(Step):
    """Remove neurons and attention heads, the same number in every block."""

    title: ClassVar[str] = "Width"
    about: ClassVar[str] = (
        "Remove the neurons (and, if you like, the attention heads) that add least to the output,"
        " and refit the layers behind them. Smaller dense matrices: really smaller and faster."
    )

    ratio: float = option(
        0.25,
        "Share of the neurons, or heads, to remove from every block; rounded so that kernels run"
        " well, never to more.",
        unit="share",
        minimum=0.01,
        maximum=0.95,
        positional=True,
    )
    neurons: bool = option(True, "Remove neurons of the feed-forward networks.")
    heads: bool = option(
        False,
        "Remove attention heads, with the keys and values that they share. Only where the model's"
        " configuration states the head size by itself.",
    )
    compensate: bool = option(
        True,
        "Refit the layer behind by least squares, so that what stays makes up for what goes.",
    )
    criterion: str = option(
        "activation",
        "Which neurons and heads go: those that add least to the output on the calibration data"
        " (activation), or random ones, to compare with.",
        choices=("activation", "random"),
    )
    damping: float = options.damping()
    seed: int = _seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.neurons or self.heads):
            raise ConfigError(
                "WidthPruning: neurons=False and heads=False leave nothing to remove; give True"
                " for one of them."
            )

    @property
    def label(self) -> str:
        what = " heads" if not self.neurons else " with heads" if self.heads else ""
        plain = "" if self.compensate else " not refitted"
        return f"{self.title} −{self.ratio:.0%}{what}{plain}{_unless_default(self, 'criterion')}"


def _unless_default(step: Step, name: str) -> str:
    info = next(i for i in fields_of(type(step)) if i.name == name)
    value = getattr(step, name)
    return "" if value == info.default else f" ({value})"
