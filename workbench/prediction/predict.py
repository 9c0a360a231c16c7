"""Predict what a recipe will do from the table of costs and the runs measured so far.

The sum of a recipe's costs over the layers (``raw``) ranks recipes. Its level is learned from the
study's own runs: a power law from raw to measured KL divergence, and a power law from KL to the
loss of the task's metric. Both are monotone, have priors that stand in until there are runs, and
give 90 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.prediction.cost_table import Costs, CostTable, LayerGroup
from workbench.recipes import (
    AWQ,
    GPTQ,
    OWN_BACKEND,
    Cast,
    LowRankCorrection,
    Mixed,
    Pruning,
    Quantization,
    QuantizeEmbeddings,
    SparseGPT,
    Step,
)
from workbench.recipes.recipe import Recipe
from workbench.records import Metric

KL_METRIC = "kl"
TRUSTED_NATS = 0.3
"""Above this divergence the second-order estimate only says "bad"."""

_REFERENCE = math.log(0.02)
_TAIL = 0.05  # a 90 % interval leaves this at either end

# Priors of log KL - _REFERENCE = level + slope * (log raw - _REFERENCE), and of the standard
# deviation of what is left; chosen on two of the four pairs of benchmarks/predictions.py (the
# decoder on its own task, the encoder on banking77), the other two check them.
_LEVEL, _LEVEL_SD = math.log(1.35), 0.4
_SLOPE, _SLOPE_SD = 1.08, 0.12
_LEAST_SLOPE = 0.3
_NOISE_SD, _NOISE_WEIGHT = 0.16, 3.0

# Priors of the metric's loss = scale * KL ** power.
_METRIC_SD = 0.6
_MOST_SPREAD = 2.0  # of the scale, relative: where runs say that nothing was lost at all
_POWERS = {True: 0.85, False: 1.0}  # higher is better (accuracies), lower is better (perplexities)
_SCALES = {True: 0.2, False: 0.9}


@dataclass(frozen=True)
class Prediction:
    """What a recipe is expected to do. Never a measurement.

    Attributes
    ----------
    recipe : Recipe
    size_bytes : int or None
        Exact, for recipes of steps whose stored form follows from the shapes.
    kl : float or None
        KL divergence from the dense model per prediction, in nats; None where ``reason`` says why.
    kl_interval : tuple of (float, float) or None
        90 % interval of ``kl``.
    metric : str
    value : float or None
        The metric.
    interval : tuple of (float, float) or None
        90 % interval of ``value``.
    n_runs : int
        Measured runs that the level was learned from.
    notes : tuple of str
        What the numbers rest on, such as an interpolation.
    reason : str or None
        Why there is no prediction of the loss.
    """

    recipe: Recipe
    size_bytes: int | None
    kl: float | None
    kl_interval: tuple[float, float] | None
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    n_runs: int = 0
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def label(self) -> str:
        """The recipe in words."""
        return self.recipe.label

    def __str__(self) -> str:
        size = "unknown size" if self.size_bytes is None else f"{self.size_bytes / 1e6:.2f} MB"
        if self.kl is None or self.value is None or self.interval is None:
            return f"{self.label}: {size}; no prediction of the loss: {self.reason}"
        low, high = self.interval
        text = (
            f"{self.label}: {size}, predicted {self.metric} {self.value:.4g} (90 % {low:.4g} to"
            f" {high:.4g}), KL {self.kl:.3g} nats"
        )
        return text + (f" ({'; '.join(self.notes)})" if self.notes else "")


@dataclass(frozen=True)
class Observation:
    """A measured run that predictions learn from.

    Attributes
    ----------
    recipe : Recipe
    kl, kl_stderr : float
        Nats per prediction.
    value : float
        The metric.
    """

    recipe: Recipe
    kl: float
    kl_stderr: float
    value: float


class Predictor:
    """Predictions of one base model on one task.

    Parameters
    ----------
    table : CostTable
    metric : Metric
    baseline : float
        The metric of the base model.
    baseline_stderr : float
        Its standard error, zero if not known.
    observations : iterable of Observation
        Runs whose recipes the table does not know are left aside.
    """

    def __init__(
        self,
        table: CostTable,
        metric: Metric,
        baseline: float,
        baseline_stderr: float = 0.0,
        observations: Iterable[Observation] = (),
    ) -> None:
        self.table = table
        self.metric = metric
        # A study of thousands of runs asks for the same ones again and again.
        costs: dict[Recipe, RawCost] = table.derived("raw costs", dict)
        known = []
        for observed in observations:
            if observed.recipe not in costs:
                costs[observed.recipe] = raw_cost(table, observed.recipe)
            known.append((observed, costs[observed.recipe]))
        # A divergence within its own error says nothing of the level; far up the law breaks; and a
        # cost that stands in for another one would teach the difference between the two.
        used = [
            (observed, cost.nats)
            for observed, cost in known
            if cost.nats
            and not cost.stands_in
            and 2 * observed.kl_stderr < observed.kl < 2 * TRUSTED_NATS
        ]
        self._n_runs = len(used)
        self._level = _Level(
            np.log([raw for _, raw in used]),
            np.log([observed.kl for observed, _ in used]),
            [observed.kl_stderr / observed.kl for observed, _ in used],
        )
        self._losses = _MetricLoss(metric, baseline, baseline_stderr, [o for o, _ in known])

    def predict(self, recipe: Recipe) -> Prediction:
        """Return the prediction for a recipe; microseconds to a few milliseconds."""
        # Neither depends on what has been measured since, and a search asks for thousands.
        known: dict[Recipe, tuple[int | None, RawCost]] = self.table.derived("parts", dict)
        if recipe not in known:
            known[recipe] = size_bytes(self.table, recipe), raw_cost(self.table, recipe)
        size, cost = known[recipe]
        if cost.nats is None:
            return Prediction(
                recipe, size, None, None, self.metric.name, None, None, reason=cost.reason
            )
        kl, low, high, log_sd = self._level.predict(cost.nats)
        value, interval = self._losses.predict(kl, log_sd)
        if self.metric.name == KL_METRIC:
            value, interval = kl, (low, high)
        notes = cost.notes
        if kl > TRUSTED_NATS:
            notes += (f"above {TRUSTED_NATS} nats only 'bad' is certain",)
        return Prediction(
            recipe, size, kl, (low, high), self.metric.name, value, interval, self._n_runs, notes
        )


@dataclass(frozen=True)
class RawCost:
    """A recipe's summed cost in nats to second order, before its level is learned."""

    nats: float | None
    notes: tuple[str, ...] = ()
    reason: str | None = None
    stands_in: bool = False
    """Whether the cost is that of another recipe, or a sum over steps."""


def raw_cost(table: CostTable, recipe: Recipe) -> RawCost:
    """Return the sum of a recipe's costs over its steps and layers."""
    total = 0.0
    notes: list[str] = []
    n_layered = 0
    stands_in = False
    for step in recipe.steps:
        if isinstance(step, Cast):
            continue  # 16 bits: below every other cost
        if getattr(step, "backend", OWN_BACKEND) != OWN_BACKEND:
            return RawCost(None, reason=f"{step.label} is another program's; run it to know")
        if step in table.reasons:
            return RawCost(None, reason=f"{step.label} could not be solved: {table.reasons[step]}")
        if step in table.whole:
            total += table.whole[step]
            continue
        costs = _step_costs(table, step)
        if costs is None:
            return RawCost(None, reason=_reason(step))
        notes += costs.note.split("; ") if costs.note else []
        stands_in |= costs.stands_in
        if not np.isfinite(costs.nats).all():
            missing = [
                g.key for g, x in zip(table.groups, costs.nats, strict=True) if math.isnan(x)
            ]
            return RawCost(
                None, reason=f"{missing[0]} has no predicted cost under it; run it instead"
            )
        total += float(costs.nats.sum())
        n_layered += 1
    if n_layered > 1:
        notes.append("costs of the steps are added")
    return RawCost(total, tuple(dict.fromkeys(notes)), stands_in=stands_in or n_layered > 1)


def _step_costs(table: CostTable, step: Step) -> Costs | None:
    """Return a step's cost per group, with what it rests on in the note."""
    if isinstance(step, Mixed):
        step.check(group.key for group in table.groups)
        nats, notes, stands_in = np.zeros(len(table.groups)), [], False
        for part in step.parts:
            costs = table.costs(part)
            if costs is None:
                return None
            notes += [f"{part.label}: {costs.note}"] if costs.note else []
            stands_in |= costs.stands_in
            for i, group in enumerate(table.groups):
                if step.step_of(group.key) == part:
                    nats[i] = costs.nats[i]
        return Costs(nats, "; ".join(notes), stands_in)
    if isinstance(step, SparseGPT) and step.bits is not None:
        pruned = table.costs(replace(step, bits=None))
        quantized = table.costs(
            GPTQ(
                step.bits,
                group_size=step.group_size,
                symmetric=step.symmetric,
                damping=step.damping,
            )
        )
        if pruned is None or quantized is None:
            return None
        notes = [f"{step.label}: {c.note}" for c in (pruned, quantized) if c.note]
        notes.append("costs of pruning and quantizing are added")
        return Costs(pruned.nats + quantized.nats, "; ".join(dict.fromkeys(notes)), True)
    found = table.costs(step)
    if found is None or not found.note:
        return found
    return Costs(found.nats, f"{step.label}: {found.note}", found.stands_in)


def _reason(step: Step) -> str:
    if isinstance(step, LowRankCorrection):
        return f"{step.label} depends on the steps before it; run it to know"
    if isinstance(step, (Quantization, Pruning, QuantizeEmbeddings)):
        return f"{step.label} lies outside of what has been tabulated so far"
    return f"{step.label} changes the architecture or trains, which no table knows; run it to know"


def size_bytes(table: CostTable, recipe: Recipe) -> int | None:
    """Return the exact bytes of a recipe's result in the canonical packing, without making it.

    None for steps that change the architecture.
    """
    sizes = table.sizes
    itemsize = sizes.itemsize
    coded: dict[str, int] = {}
    pruned = False
    correction = 0
    tables: int | None = None
    for step in recipe.steps:
        if isinstance(step, Cast):
            itemsize = 2
        elif isinstance(step, (Quantization, Mixed)):
            coded = group_bytes(table.groups, step)
        elif isinstance(step, SparseGPT) and step.scheme is not None:
            scheme = step.scheme
            coded = {
                g.key: sum(scheme.stored_bytes(n, k) for n, k in g.shapes) for g in table.groups
            }
        elif isinstance(step, QuantizeEmbeddings):
            tables = sum(step.stored_as(k).stored_bytes(n, k) for n, k in sizes.tables)
        elif isinstance(step, LowRankCorrection):
            groups = [g for g in table.groups if pruned or g.key in coded]
            shapes = [shape for group in groups for shape in group.shapes]
            correction = sum(2 * (n + k) * min(step.rank, n, k) for n, k in shapes)
        elif isinstance(step, Pruning):
            pruned = True
        else:
            return None
    total = sizes.other_bytes + sizes.other_floats * itemsize + correction
    total += sum(coded.get(g.key, g.n_weights * itemsize) for g in table.groups)
    dense_tables = sum(n * k for n, k in sizes.tables) * itemsize
    return total + (dense_tables if tables is None else tables)


def group_bytes(groups: Iterable[LayerGroup], step: Quantization | Mixed) -> dict[str, int]:
    """Return the stored bytes of every group that a quantization stores as codes.

    Parameters
    ----------
    groups : iterable of LayerGroup
    step : RTN, GPTQ, AWQ or Mixed
    """
    groups = tuple(groups)
    if isinstance(step, Mixed):
        step.check(group.key for group in groups)
    own = {g.key: step.step_of(g.key) if isinstance(step, Mixed) else step for g in groups}
    coded = {name for g in groups if own[g.key] is not None for name in g.names}
    result = {}
    for group in groups:
        part = own[group.key]
        if part is None:
            continue
        total = sum(part.stored_as(k).stored_bytes(n, k) for n, k in group.shapes)
        absorbed = group.absorber == "norm" or group.absorber in coded
        if isinstance(part, AWQ) and not absorbed and not part.exportable:
            total += 2 * group.in_features * len(group.shapes)
        result[group.key] = total
    return result


class _Level:
    """Bayesian linear regression of log KL on log raw, with unknown noise (normal-inverse-gamma).

    Gelman et al., Bayesian Data Analysis (3rd edition), section 14.2 and 14.8.

    Parameters
    ----------
    log_raw, log_kl : array-like of shape (n_runs,)
    log_sd : array-like of shape (n_runs,)
        Standard error of ``log_kl``; runs that are known less well count less.
    """

    def __init__(self, log_raw: ArrayLike, log_kl: ArrayLike, log_sd: ArrayLike) -> None:
        log_raw = np.asarray(log_raw, dtype=float)
        noise = _NOISE_SD**2
        root = np.sqrt(noise / (noise + np.asarray(log_sd, dtype=float) ** 2))
        x = np.column_stack([np.ones(len(log_raw)), np.asarray(log_raw) - _REFERENCE])
        x = x * root[:, None]
        y = (np.asarray(log_kl, dtype=float) - _REFERENCE) * root
        prior = np.array([_LEVEL, _SLOPE])
        precision = np.diag([noise / _LEVEL_SD**2, noise / _SLOPE_SD**2])
        posterior = precision + x.T @ x
        self._mean = np.linalg.solve(posterior, precision @ prior + x.T @ y)
        if self._mean[1] < _LEAST_SLOPE:  # runs that contradict each other must not turn the order
            rest = precision[0, 0] * _LEVEL + x[:, 0] @ (y - _LEAST_SLOPE * x[:, 1])
            self._mean = np.array([rest / posterior[0, 0], _LEAST_SLOPE])
        self._covariance = np.linalg.inv(posterior)
        left, moved = y - x @ self._mean, self._mean - prior
        squares = _NOISE_WEIGHT * noise + left @ left + moved @ precision @ moved
        self._freedom = _NOISE_WEIGHT + len(y)
        self._noise = max(float(squares) / self._freedom, 1e-6)
        self._quantile = float(stats.t.ppf(1 - _TAIL, self._freedom))

    def predict(self, raw: float) -> tuple[float, float, float, float]:
        """Return KL with the ends of its 90 % interval, and the standard deviation of its log."""
        if raw <= 0:
            return 0.0, 0.0, 0.0, 0.0
        at = np.array([1.0, math.log(raw) - _REFERENCE])
        centre = _REFERENCE + float(at @ self._mean)
        sd = math.sqrt(self._noise * (1 + float(at @ self._covariance @ at)))
        half = self._quantile * sd
        kl = math.exp(centre)
        # Where second order ends the divergence grows faster than the law, never slower.
        beyond = max(0.0, centre - math.log(TRUSTED_NATS))
        return kl, math.exp(centre - half), math.exp(centre + half + beyond), sd


class _MetricLoss:
    """How much of the metric a divergence costs: scale · KL ** power, scale learned from runs."""

    def __init__(
        self, metric: Metric, baseline: float, stderr: float, runs: list[Observation]
    ) -> None:
        self._higher = metric.higher_is_better
        self._logs = not self._higher and baseline > 0
        self._baseline = baseline
        self._power = _POWERS[self._higher]
        # Two models on the same examples differ by less than either errs.
        relative = stderr / baseline if self._logs else stderr
        self._error = 0.25 * relative
        # A model that scores nothing has nothing to lose.
        prior = _SCALES[self._higher] * (max(abs(baseline), 1e-3) if self._higher else 1.0)
        runs = [run for run in runs if 0 < run.kl < 2 * TRUSTED_NATS]
        x = np.array([run.kl**self._power for run in runs])
        y = np.array([self._loss(run.value) for run in runs])
        variance = (0.3 * prior * x) ** 2 + self._error**2 + 1e-12
        weight = 1 / (_METRIC_SD * prior) ** 2
        precision = weight + float((x * x / variance).sum())
        self._scale = max((weight * prior + float((x * y / variance).sum())) / precision, 1e-9)
        self._scale_sd = math.sqrt(1 / precision)

    def _loss(self, value: float) -> float:
        if self._logs:
            return math.log(max(value, 1e-12) / self._baseline)
        return self._baseline - value if self._higher else value - self._baseline

    def _value(self, loss: float) -> float:
        if self._logs:
            return self._baseline * math.exp(min(loss, 50.0))
        if not self._higher:
            return self._baseline + loss
        # A share stays between none and all.
        value = self._baseline - loss
        return min(max(value, 0.0), 1.0) if 0 <= self._baseline <= 1 else value

    def predict(self, kl: float, log_sd: float) -> tuple[float, tuple[float, float]]:
        """Return the metric and the ends of its 90 % interval."""
        loss = self._scale * kl**self._power
        z = float(stats.norm.ppf(1 - _TAIL))
        spread = min(self._scale_sd / self._scale, _MOST_SPREAD)
        factor = math.exp(z * math.hypot(self._power * log_sd, spread, 0.2))
        error = z * self._error
        less = loss - math.hypot(loss - loss / factor, error)
        more = loss + math.hypot(loss * factor - loss, error)
        ends = (self._value(less), self._value(more))
        return self._value(loss), (min(ends), max(ends))
