"""Magnitude pruning (Han et al. 2015): the smallest weights are set to zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import MagnitudePruning, Step
from workbench.tensors.masks import global_threshold, keep_mask
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, PrunedWeight


class MagnitudePruner(LayerMethod):
    """Per layer, by N:M pattern, or against one threshold for the whole model.

    Parameters
    ----------
    threshold : float, optional
        Magnitude at or below which a weight is removed, for global pruning; set by
        :meth:`prepared`.
    """

    step: ClassVar[type[Step]] = MagnitudePruning
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, threshold: float | None = None) -> None:
        self._threshold = threshold

    def prepared(self, weights: Iterable[Tensor], config: Step) -> MagnitudePruner:
        """Return the pruner for a model: global scope needs to see all weights once."""
        assert isinstance(config, MagnitudePruning)
        if config.scope == "layer":
            return self
        return MagnitudePruner(global_threshold((w.abs() for w in weights), config.ratio))

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, MagnitudePruning)
        solved: dict[str, CompressedWeight] = {}
        for name, weight in group.weights.items():
            scores = weight.abs()
            if self._threshold is None:
                mask = keep_mask(scores, config.sparsity)
            else:
                mask = scores > self._threshold
            solved[name] = PrunedWeight((weight * mask).to(group.dtype), config.sparsity)
        return solved
