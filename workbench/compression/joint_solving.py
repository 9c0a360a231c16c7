"""Solve what is asked for together with what will be asked for next, where that is faster."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.methods import GroupWeights, LayerMethod
from workbench.recipes import Step
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight

BUDGET_BYTES = 1 << 30
"""Default of the most bytes of weights that are kept for steps to come."""

_BYTES_PER_WEIGHT = 1.375
"""Codes are kept as bytes; scales and zero points of groups of 8 add three eighths to them."""


class SolvedAhead:
    """Weights of steps that are known to come, kept until each is asked for.

    A sweep over ten GPTQ configurations takes little longer than two of them if the rows of all
    go through the columns together. The first one of them that is asked for has all of them
    solved, group by group; of the others the weights are kept as codes and handed out once. What
    comes out is the same to the last bit as without, see
    :meth:`workbench.methods.LayerMethod.solve_many`.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of weights to keep; as many steps are solved ahead as fit.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._expected: tuple[Step, ...] = ()
        self._kept: dict[tuple[Step, str], dict[str, CompressedWeight]] = {}
        self._counts: dict[Step, int] = {}

    def __contains__(self, step: Step) -> bool:
        """Return whether weights are kept for a step."""
        return any(step == known for known, _ in self._kept)

    def expect(self, steps: Sequence[Step]) -> None:
        """Say which steps come next, on the same model; what is kept for others is forgotten."""
        self._expected = tuple(dict.fromkeys(steps))
        for step, place in list(self._kept):
            if step not in self._expected:
                del self._kept[step, place]
        self._counts = {s: n for s, n in self._counts.items() if s in self._expected}

    def count(self, step: Step) -> int:
        """Return how many steps were solved together when this one was, itself included."""
        return self._counts.get(step, 1)

    def companions(self, method: LayerMethod, step: Step, n_weights: int) -> tuple[Step, ...]:
        """Return the steps that are solved together with one, for a model of so many weights."""
        kind = method.together(step)
        if kind is None:
            return ()
        kept = {known for known, _ in self._kept if method.together(known) != kind}
        room = int(self._budget // (_BYTES_PER_WEIGHT * max(n_weights, 1))) - len(kept)
        others = (s for s in self._expected if s != step and type(s) is type(step))
        return tuple(s for s in others if method.together(s) == kind)[: max(room, 0)]

    def solve(
        self,
        method: LayerMethod,
        group: GroupWeights,
        statistics: GroupStatistics | None,
        step: Step,
        companions: Sequence[Step],
        *,
        place: str,
    ) -> dict[str, CompressedWeight]:
        """Return the weights of one group, and keep those of the companions.

        Parameters
        ----------
        method, group, statistics, step
            As for :meth:`workbench.methods.LayerMethod.solve`.
        companions : sequence of Step
            From :meth:`companions`.
        place : str
            Says which group of which model's statistics this is.
        """
        kept = self._kept.pop((step, place), None)
        if kept is not None:
            return kept
        others = [other for other in companions if (other, place) not in self._kept]
        own, *rest = method.solve_many(group, statistics, [step, *others])
        for other, weights in zip(others, rest, strict=True):
            self._kept[other, place] = weights
        self._counts |= dict.fromkeys([step, *others], 1 + len(others))
        return own
