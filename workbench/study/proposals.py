"""Which recipe a search tries next: the one that is expected to save most bytes.

The chance that a recipe passes comes from its prediction, which learns from every run. A recipe
that is predicted to lose no less than one that was found short is not tried. Where no recipe is
left, quantized ones are looked at again with a training that gives a part of the loss back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.recipes import (
    Distillation,
    LowRankCorrection,
    Mixed,
    Quantization,
    QuantizeEmbeddings,
    Step,
    Training,
)
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord
from workbench.selection.compare import pareto_front
from workbench.selection.decision import PASSES, Decision, Verdict, worst_accepted
from workbench.selection.quality import Z95, is_measured, value_of

if TYPE_CHECKING:
    from workbench.study.forecast import Forecast

LEAST_CHANCE = 0.1
"""A recipe that is less likely to pass is not tried."""

LEAST_SAVING = 0.01
"""Nor is one that is not by so much smaller than what has passed."""

N_MIXED = 24
"""Recipes of mixed precision that a search begins with."""

_NORMAL = NormalDist()
_Z90 = _NORMAL.inv_cdf(0.95)
_KEPT, _KEPT_SD = 0.5, 0.25
"""Share of the loss that a training leaves, and how far that may be off, before any was seen."""

_PAIRED = 0.3
"""Error of a difference on the same examples, by that of one model, before any was measured."""

_LEAST_LOST = 0.01
_EIGHT_BITS, _FOUR_BITS = QuantizeEmbeddings(8), QuantizeEmbeddings(4)
_TRAININGS: tuple[Distillation, ...] = (
    Distillation("scales"),
    Distillation("lora", rank=4),
)


@dataclass(frozen=True)
class Proposal:
    """A recipe to try.

    Attributes
    ----------
    recipe : Recipe
    size_bytes : int
        Predicted; exact where nothing is trained.
    value : float
        Predicted value of the metric.
    chance : float
        That it passes.
    """

    recipe: Recipe
    size_bytes: int
    value: float
    chance: float


class Proposals:
    """The recipes of one search, and what is known of them.

    Parameters
    ----------
    forecast : Forecast
        The predictions at the beginning.
    """

    def __init__(self, forecast: Forecast) -> None:
        self._recipes: list[Recipe] = []
        self._looked: set[int] = set()
        self._add(found.recipe for found in forecast.frontier(N_MIXED))

    def next(
        self,
        forecast: Forecast,
        decision: Decision,
        base: RunRecord,
        reference: RunRecord,
        done: Mapping[Recipe, RunRecord],
        out: Iterable[Recipe] = (),
    ) -> Proposal | None:
        """Return the recipe with the largest expected saving, None if none is worth a run.

        Parameters
        ----------
        forecast : Forecast
            Learned from all runs by now.
        decision : Decision
            On all runs by now.
        base, reference : RunRecord
            The base model's own run, and the one that the bar refers to.
        done : mapping of Recipe to RunRecord
            The finished runs of the base model.
        out : iterable of Recipe
            Not to be tried, such as those that failed.
        """
        state = _State(forecast, decision, base, reference, done, {*done, *out})
        found = state.best(state.plain(self._recipes))
        while found is None and self._refine(forecast, state):
            found = state.best(state.plain(self._recipes))
        return found or state.best(state.trained(self._recipes))

    def _refine(self, forecast: Forecast, state: _State) -> bool:
        """Add recipes between the smallest that passes and the next smaller; whether any is new."""
        target = state.between()
        if target is None or target in self._looked:
            return False
        self._looked.add(target)
        with contextlib.suppress(ConfigError):  # nothing is so small
            self._add(found.recipe for found in forecast.candidates(size_bytes=target)[:2])
        return True

    def _add(self, recipes: Iterable[Recipe]) -> None:
        """Take recipes among those of the search, with token embeddings of four bits too."""
        for recipe in recipes:
            steps = (_FOUR_BITS if step == _EIGHT_BITS else step for step in recipe.steps)
            for one in (recipe, Recipe(tuple(steps))):
                if one not in self._recipes:
                    self._recipes.append(one)


class _State:
    """What is known at one moment of a search."""

    def __init__(
        self,
        forecast: Forecast,
        decision: Decision,
        base: RunRecord,
        reference: RunRecord,
        done: Mapping[Recipe, RunRecord],
        out: set[Recipe],
    ) -> None:
        self._forecast, self._decision, self._done, self._out = forecast, decision, done, out
        self._metric = decision.metric
        self._sign = 1 if self._metric.higher_is_better else -1
        self._base = value_of(base, self._metric)
        wanted = decision.requirements
        chosen = decision.verdict if decision.run is not None else None
        smallest = reference if chosen is None else chosen.run
        self._limit = wanted.size_bytes or math.inf
        self._size = min(smallest.size_bytes or 0, self._limit)
        self._saving_from = smallest.size_bytes or 0
        self._has_tried = bool(decision.verdicts)
        self._needed = _needed(decision, base, reference)
        short = [
            v.run for v in decision.verdicts if self._is_short(v) and v.run.model == base.model
        ]
        self._short = [run for run in short if run.recipe in done]

    def best(self, proposals: Iterable[Proposal]) -> Proposal | None:
        """Return the proposal with the largest expected saving among those worth a run."""
        least = self._saving_from * (1 - LEAST_SAVING)
        able = [
            p
            for p in proposals
            if p.recipe not in self._out and p.size_bytes <= min(least, self._limit)
        ]
        worth = [p for p in able if p.chance >= LEAST_CHANCE]
        if not worth and not self._has_tried:  # what the test asks is known after the first run
            return max(able, key=lambda p: p.chance, default=None)
        return max(worth, key=lambda p: p.chance * (self._saving_from - p.size_bytes), default=None)

    def plain(self, recipes: Iterable[Recipe]) -> list[Proposal]:
        """Return what is predicted of recipes, but of those that lose no less than a short one."""
        most = self._kl_of(run.recipe for run in self._short)
        found = []
        for recipe in recipes:
            predicted = self._forecast.predict(recipe)
            if predicted.kl is None or predicted.value is None or predicted.interval is None:
                continue
            if predicted.size_bytes is None or predicted.kl >= most:
                continue
            low, high = predicted.interval
            chance = self._chance(predicted.value, (high - low) / (2 * _Z90))
            found.append(Proposal(recipe, predicted.size_bytes, predicted.value, chance))
        return found

    def trained(self, recipes: Iterable[Recipe]) -> list[Proposal]:
        """Return quantized recipes with a training behind, from what they lose without it."""
        found = []
        for training in _TRAININGS:
            kept, spread = self._kept(training)
            short = (run.recipe for run in self._short if training in run.recipe.steps)
            most = self._kl_of(_without(recipe, training) for recipe in short)
            for recipe in dict.fromkeys((*self._least_short(), *recipes)):
                made = with_training(recipe, training)
                predicted = self._forecast.predict(recipe)
                size = _size_with(self._forecast, recipe, training)
                if made is None or size is None or predicted.kl is None or predicted.kl >= most:
                    continue
                loss = self._loss(recipe, predicted.value)
                if loss is None or loss <= 0:
                    continue
                value = self._base - self._sign * kept * loss
                found.append(Proposal(made, size, value, self._chance(value, spread * loss)))
        return found

    def _least_short(self) -> list[Recipe]:
        """Return the recipes of short runs than which no smaller one loses less.

        A training leaves a share of the loss, so none of the others is the better one to train.
        """
        values = [value_of(run, self._metric) for run in self._short]
        sizes = [run.size_bytes or 0 for run in self._short]
        front = pareto_front(sizes, values, higher_is_better=self._metric.higher_is_better)
        return [run.recipe for run, is_best in zip(self._short, front, strict=True) if is_best]

    def between(self) -> int | None:
        """Return the size halfway from the smallest that passes to the largest smaller that fails.

        None where these are so near that nothing would be saved.
        """
        below = [r.size_bytes or 0 for r in self._short if (r.size_bytes or 0) < self._size]
        if not below or max(below) >= self._size * (1 - 2 * LEAST_SAVING):
            return None
        return (max(below) + int(self._size)) // 2

    def _chance(self, value: float, spread: float) -> float:
        above = self._sign * (value - self._needed)
        if not math.isfinite(above):
            return 0.0
        return _NORMAL.cdf(above / spread) if spread > 0 else float(above >= 0)

    def _is_short(self, verdict: Verdict) -> bool:
        """Return whether a run is not good enough, whatever it is else."""
        if verdict.p_value is not None:
            return verdict.answer != PASSES
        return self._sign * (value_of(verdict.run, self._metric) - self._needed) < 0

    def _kl_of(self, recipes: Iterable[Recipe]) -> float:
        known = [self._forecast.predict(recipe).kl for recipe in recipes]
        return min((kl for kl in known if kl is not None), default=math.inf)

    def _loss(self, recipe: Recipe, predicted: float | None) -> float | None:
        """Return by how much a recipe is worse than the base model: as measured, or predicted."""
        run = self._done.get(recipe)
        if run is not None and is_measured(run, self._metric):
            return self._sign * (self._base - value_of(run, self._metric))
        return None if predicted is None else self._sign * (self._base - predicted)

    def _kept(self, training: Distillation) -> tuple[float, float]:
        """Return what share of the loss a training leaves: by the runs that had it, and a guess."""
        shares = [_KEPT]
        for recipe, run in self._done.items():
            if training in recipe.steps and is_measured(run, self._metric):
                before = self._loss(_without(recipe, training), None)
                if before is not None and before > 0:
                    left = self._sign * (self._base - value_of(run, self._metric))
                    shares.append(min(max(left / before, 0.0), 2.0))
        return sum(shares) / len(shares), _KEPT_SD / math.sqrt(len(shares))


def _needed(decision: Decision, base: RunRecord, reference: RunRecord) -> float:
    """Return the value that is needed to pass: the bar, and what the test asks above it."""
    wanted, metric = decision.requirements, decision.metric
    bar = worst_accepted(reference, metric, wanted)
    assert bar is not None
    if wanted.confidence is None:
        return bar
    sign = 1 if metric.higher_is_better else -1
    # Half of the allowed error: the larger runs that pass hand theirs on, those that fail do not.
    z = _NORMAL.inv_cdf(1 - (1 - wanted.confidence) / 2)
    near = [v for v in decision.verdicts if v.interval is not None and v.quality is not None]
    measured = base.measurement(metric.name)
    error = 0.0 if measured is None or measured.stderr is None else measured.stderr
    if wanted.relative and not near:
        error *= _PAIRED
    elif wanted.relative:
        accuracy = float(wanted.accuracy or 0.0)
        nearest = min(near, key=lambda v: abs((v.quality or 0.0) - accuracy))
        assert nearest.interval is not None
        width = (nearest.interval.high - nearest.interval.low) / (2 * Z95)
        # The fewer examples two models differ on, the smaller is the error of their difference.
        lost = max(1 - (nearest.quality or 0.0), _LEAST_LOST)
        width *= math.sqrt(min(1.0, max(1 - accuracy, _LEAST_LOST) / lost))
        error = width * abs(value_of(reference, metric))
    return bar + sign * z * error


def with_training(recipe: Recipe, training: Distillation) -> Recipe | None:
    """Return a recipe with a training behind its quantization, None where that cannot be."""
    steps = recipe.steps
    if any(isinstance(step, Training) for step in steps):
        return None
    for place, step in reversed(list(enumerate(steps, 1))):
        if isinstance(step, (Quantization, Mixed)):
            with contextlib.suppress(ConfigError):
                return Recipe((*steps[:place], training, *steps[place:]))
    return None


def _without(recipe: Recipe, step: Step) -> Recipe:
    return Recipe(tuple(other for other in recipe.steps if other != step))


def _size_with(forecast: Forecast, recipe: Recipe, training: Distillation) -> int | None:
    """Return a recipe's bytes with a training behind: scales add none, a product what it holds."""
    from workbench.prediction.predict import size_bytes  # with scipy, which opening does not need

    if training.method == "scales":
        return size_bytes(forecast.table, recipe)
    steps = (*recipe.steps, LowRankCorrection(training.rank))
    with contextlib.suppress(ConfigError):
        return size_bytes(forecast.table, Recipe(steps))
    return None
