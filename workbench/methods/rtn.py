"""Round to nearest: the baseline that every other quantization method must beat."""

from __future__ import annotations

from typing import ClassVar

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import RTN, Step
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, rounded


class RoundToNearest(LayerMethod):
    """Scales from each group's range, codes by rounding. Pruned weights stay exactly zero."""

    step: ClassVar[type[Step]] = RTN
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, RTN)
        return {
            name: rounded(weight, config.stored_as(weight.shape[1]))
            for name, weight in group.weights.items()
        }
