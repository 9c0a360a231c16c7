"""Run a method that works layer by layer over all layers of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench import layers
from workbench.calibrate import Statistics
from workbench.folding import fold_input_scales
from workbench.linalg import output_error
from workbench.methods import LAYER_METHODS, GroupWeights, LayerMethod
from workbench.models import LoadedModel
from workbench.progress import Monitor
from workbench.statistics import GroupStatistics
from workbench.steps import Step
from workbench.weights import PrunedWeight

FACTOR_CACHE_BYTES = 2 << 30
"""Factors of all groups are kept between runs while one set of them stays below this."""

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
    """
    method = LAYER_METHODS[type(step)]
    linears = layers.find_linears(model.hf_model)
    groups = statistics.groups if statistics else layers.shared_inputs(model.hf_model)
    method = method.prepared((site.matrix for site in linears.values()), step)
    stage = step.title.lower()
    errors: dict[str, float] = {}
    keep_factors = statistics is not None and statistics.factor_bytes <= FACTOR_CACHE_BYTES
    for index, group in enumerate(groups):
        own = statistics[group.key] if statistics is not None and method.needs else None
        solve_group(method, dense, model, group, own, step, facts)
        if statistics is not None and statistics[group.key].judge.n_tokens:
            gram = statistics[group.key].judge.mean_gram
            errors.update(layer_errors(dense, model, group, gram))
        if statistics is not None and not keep_factors:
            statistics.release(group.key)
        monitor.report(stage, index + 1, len(groups), group.key)
    if errors:
        facts["layer_errors"] = errors
    for group in groups if fold else ():
        fold_input_scales(model, group, facts)


def solve_group(
    method: LayerMethod,
    dense: LoadedModel,
    model: LoadedModel,
    group: layers.LinearGroup,
    statistics: GroupStatistics | None,
    step: Step,
    facts: dict[str, Any],
) -> None:
    """Compress the layers of one shared input of ``model`` in place."""
    if statistics is not None and is_undersampled(group, statistics, method):
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
    for name, weight in method.solve(weights, statistics, step).items():
        model.set_weight(name, weight)


def layer_errors(
    dense: LoadedModel, model: LoadedModel, group: layers.LinearGroup, gram: Tensor
) -> dict[str, float]:
    """Return each layer's squared output error relative to its squared output."""
    errors = {}
    for name in group.names:
        weight = dense.site(name).matrix
        delta = model.site(name).matrix - weight
        total = float(output_error(weight, gram).sum())
        errors[name] = float(output_error(delta, gram).sum()) / total if total else 0.0
    return errors


def is_undersampled(
    group: layers.LinearGroup, statistics: GroupStatistics, method: LayerMethod
) -> bool:
    """Return whether too few tokens were routed to an expert for a method to learn from them.

    Layers that every token enters are never left out: of those the calibration as a whole has
    enough tokens or is refused.
    """
    least = max(_LEAST_TOKENS, method.tokens_per_input * group.in_features)
    return group.routed and statistics.solve.n_tokens < least
