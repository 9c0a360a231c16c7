"""Wanda (Sun et al. 2024): prune by the magnitude of a weight times the norm of its input."""

from __future__ import annotations

from typing import ClassVar

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import Step, Wanda
from workbench.tensors.masks import keep_mask
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, PrunedWeight


class WandaPruner(LayerMethod):
    """Scores are |W| · ‖x‖₂ (equation 1), compared within each row (section 3) or N:M group."""

    step: ClassVar[type[Step]] = Wanda
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})
    tokens_per_input: ClassVar[float] = 0.0  # each input's norm is estimated by itself

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, Wanda)
        assert statistics is not None
        norms = statistics.solve.mean_gram.diagonal().clamp(min=0).sqrt()
        solved: dict[str, CompressedWeight] = {}
        for name, weight in group.weights.items():
            mask = keep_mask(weight.abs() * norms.to(weight.device), config.sparsity, by_row=True)
            solved[name] = PrunedWeight((weight * mask).to(group.dtype), config.sparsity)
        return solved
