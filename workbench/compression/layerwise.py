"""Run a method that works layer by layer over all layers of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from workbench.calibration.calibrate import Statistics
from workbench.compression.folding import fold_input_scales
from workbench.compression.joint_solving import SolvedAhead
from workbench.errors import NotFiniteError
from workbench.methods import LAYER_METHODS, GroupWeights, LayerMethod
from workbench.models import layers
from workbench.models.load import LoadedModel
from workbench.models.scale_folding import find_fold
from workbench.progress import Monitor
from workbench.recipes import AWQ, Mixed, Quantization, Step
from workbench.tensors.linalg import output_error
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight, PrunedWeight, QuantizedWeight

FACTOR_CACHE_BYTES = 2 << 30
"""Factors of all groups are kept between runs while one set of them stays below this."""

Solve: TypeAlias = Callable[
    [GroupWeights, GroupStatistics | None, Step], dict[str, CompressedWeight]
]

_LEAST_TOKENS = 64
"""Fewer tokens than these tell nothing of an expert, however few inputs it has."""


@torch.no_grad()
def apply_layer_method(
    dense: LoadedModel,
    model: LoadedModel,
    step: Step,
    statistics: Statistics | None,
    facts: dict[str, Any],
    monitor: Monitor,
    *,
    fold: bool = True,
    ahead: SolvedAhead | None = None,
) -> None:
    """Compress every linear layer of ``model`` in place, one shared input at a time.

    Parameters
    ----------
    dense : LoadedModel
        What ``statistics`` are of, and ``layer_errors`` are relative to; not changed.
    model : LoadedModel
        Changed.
    step : Step
        Of a type in :data:`workbench.methods.LAYER_METHODS`.
    statistics : Statistics or None
        None only where the method needs none.
    facts : dict
        What happened is added to it.
    monitor : Monitor
        Reports a stage by groups of layers.
    fold : bool
        Whether layers before may absorb input scales (AWQ). False where a step to come compares
        the weights with the dense ones, which knows the inputs as the statistics do.
    ahead : SolvedAhead, optional
        Solves steps to come together with this one. ``model`` must be as dense as ``dense``.
    """
    method = LAYER_METHODS[type(step)]
    linears = layers.find_linears(model.hf_model)
    groups = statistics.groups if statistics else layers.shared_inputs(model.hf_model)
    if isinstance(step, Mixed):
        step.check(group.key for group in groups)
    if left := layers.left_dense(model.hf_model, groups):
        facts["left_dense"] = left
    method = method.prepared((site.matrix for site in linears.values()), step)
    stage = step.title.lower()
    errors: dict[str, float] = {}
    keep_factors = statistics is not None and statistics.factor_bytes <= FACTOR_CACHE_BYTES
    companions: tuple[Step, ...] = ()
    if ahead is not None:
        n_weights = sum(site.stored.numel() for site in linears.values())
        companions = ahead.companions(method, step, n_weights)
    for index, group in enumerate(groups):
        own = statistics[group.key] if statistics is not None and method.needs else None
        solve = method.solve
        if ahead is not None and statistics is not None:
            place = f"{statistics.key} {group.key}"
            solve = partial(ahead.solve, method, companions=companions, place=place)
        unscaled = _without_scales(model, group, step)
        solve_group(method, dense, model, group, own, unscaled or step, facts, solve=solve)
        for name in group.names if unscaled else ():
            model.set_weight(name, model.weights[name].without_input_scales())
        if statistics is not None and statistics[group.key].judge.n_tokens:
            gram = statistics[group.key].judge.mean_gram
            errors.update(layer_errors(dense, model, group, gram, statistics.outputs))
        if statistics is not None and not keep_factors:
            statistics.release(group.key)
        monitor.report(stage, index + 1, len(groups), group.key)
    if errors:
        facts["layer_errors"] = errors
    if ahead is not None and ahead.count(step) > 1:
        facts["solved_together"] = ahead.count(step)
    for group in groups if fold else ():
        fold_input_scales(model, group, facts)


def _without_scales(model: LoadedModel, group: layers.LinearGroup, step: Step) -> Step | None:
    """Return an exportable AWQ step that leaves inputs unscaled which no layer could absorb.

    None where the step is another one, or the layer before can absorb the scales.
    """
    acting = step.step_of(group.key) if isinstance(step, Mixed) else step
    if not isinstance(acting, AWQ) or not acting.exportable:
        return None
    if find_fold(model.hf_model, group) is not None:
        return None
    # With one point of the search, exponent 0, every scale is 1.
    unscaled = dataclasses.replace(acting, n_grid=1)
    return Mixed([unscaled], {group.key: 0}) if isinstance(step, Mixed) else unscaled


def solve_group(
    method: LayerMethod,
    dense: LoadedModel,
    model: LoadedModel,
    group: layers.LinearGroup,
    statistics: GroupStatistics | None,
    step: Step,
    facts: dict[str, Any],
    *,
    solve: Solve | None = None,
) -> None:
    """Compress the layers of one shared input of ``model`` in place.

    ``solve`` takes the place of the method's own, and returns the same.
    """
    if statistics is not None and is_undersampled(group, statistics, method, step):
        fewer = dict.fromkeys(group.names, statistics.solve.n_tokens)
        facts.setdefault("undersampled", {}).update(fewer)
        statistics = statistics.without_solve()
    known = {name: model.weights[name] for name in group.names if name in model.weights}
    weights = GroupWeights(
        weights={name: model.site(name).matrix for name in group.names},
        masks={name: w.mask for name, w in known.items() if isinstance(w, PrunedWeight)},
        dtype=model.stored_dtype,
        originals={name: dense.site(name).matrix for name in group.names},
        compressed=known,
    )
    try:
        solved = (solve or method.solve)(weights, statistics, step)
    except NotFiniteError as error:
        raise NotFiniteError(f"{', '.join(group.names)}: {error}") from error
    acting = step.step_of(group.key) if isinstance(step, Mixed) else step
    for name, weight in solved.items():
        model.set_weight(name, weight)
        if isinstance(acting, Quantization) and acting.grid and isinstance(weight, QuantizedWeight):
            facts.setdefault("beside_grid", {})[name] = dataclasses.asdict(weight.scheme)


def layer_errors(
    dense: LoadedModel,
    model: LoadedModel,
    group: layers.LinearGroup,
    gram: Tensor,
    outputs: dict[str, float] | None = None,
) -> dict[str, float]:
    """Return each layer's squared output error relative to its squared output.

    ``outputs`` keeps the latter, by layer, for the next call on the same dense model and data.
    """
    errors = {}
    outputs = {} if outputs is None else outputs
    with fast_products():
        for name in group.names:
            weight = dense.site(name).matrix
            if name not in outputs:
                outputs[name] = float(output_error(weight, gram).sum())
            error = float(output_error(model.site(name).matrix - weight, gram).sum())
            errors[name] = error / outputs[name] if outputs[name] else 0.0
    return errors


def is_undersampled(
    group: layers.LinearGroup, statistics: GroupStatistics, method: LayerMethod, step: Step
) -> bool:
    """Return whether too few tokens were routed to an expert for a method to learn from them.

    Layers that every token enters are never left out: of those the calibration as a whole has
    enough tokens or is refused.
    """
    acting = method.acting(group.names, step)
    if not group.routed or acting is None or not acting.needs:
        return False
    least = max(_LEAST_TOKENS, acting.tokens_per_input * group.in_features)
    return statistics.solve.n_tokens < least
