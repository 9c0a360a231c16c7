"""What readers of compressed checkpoints share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from workbench.tensors.weights import CompressedWeight


class Tensors:
    """The tensors of a checkpoint, to take from layer by layer; what is left is dense."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.left = dict(tensors)

    def layers(self, mark: str) -> list[str]:
        """Return the names of all layers that have a tensor of this name."""
        return [name.removesuffix(f".{mark}") for name in self.left if name.endswith(f".{mark}")]

    def take(
        self, layer: str, needed: tuple[str, ...], more: tuple[str, ...] = ()
    ) -> dict[str, Tensor]:
        """Remove and return a layer's tensors by their short names.

        Raises
        ------
        KeyError
            If one of the needed ones is missing.
        """
        found = {part: self.left.pop(f"{layer}.{part}") for part in needed}
        for part in more:
            if f"{layer}.{part}" in self.left:
                found[part] = self.left.pop(f"{layer}.{part}")
        return found


@dataclass(frozen=True, eq=False)
class Codes:
    """What a checkpoint holds.

    Attributes
    ----------
    weights : dict of str to CompressedWeight
        By the layer's name in the checkpoint.
    dense : dict of str to Tensor
        Everything else by its name in the checkpoint.
    """

    weights: dict[str, CompressedWeight]
    dense: dict[str, Tensor]


Reader: TypeAlias = Callable[[dict[str, Any], Tensors], Codes]


def group_size_of(value: object) -> int | None:
    """Return a configuration's group size; -1 and null are one scale per output channel."""
    return None if value is None or int(str(value)) < 1 else int(str(value))
