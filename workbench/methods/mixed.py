"""Mixed precision: every shared input by the quantization that it was assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from workbench.methods.base import GroupWeights, LayerMethod
from workbench.recipes import Mixed, Step
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight


class MixedSolver(LayerMethod):
    """Hands every group to the solver of its own step.

    Parameters
    ----------
    solvers : mapping of type to LayerMethod
        The table of methods.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __init__(self, solvers: Mapping[type[Step], LayerMethod]) -> None:
        self._solvers = solvers

    def acting(self, names: Sequence[str], config: Step) -> LayerMethod | None:
        assert isinstance(config, Mixed)
        step = config.step_of(names[0])
        return None if step is None else self._solvers[type(step)]

    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        assert isinstance(config, Mixed)
        step = config.step_of(next(iter(group.weights)))
        if step is None:
            return {}
        return self._solvers[type(step)].solve(group, statistics, step)
