"""Run a method that works layer by layer over all layers of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench import layers
from workbench.calibrate import Statistics
from workbench.folding import fold_input_scales
from workbench.linalg import output_error
from workbench.methods import LAYER_METHODS, GroupWeights
from workbench.models import LoadedModel
from workbench.progress import Monitor
from workbench.steps import Step
from workbench.weights import PrunedWeight

_FACTOR_CACHE_BYTES = 2 << 30
"""Factors of all groups are kept between runs while one set of them stays below this."""


@torch.no_grad()
def apply_layer_method(
    dense: LoadedModel,
    model: LoadedModel,
    step: Step,
    statistics: Statistics | None,
    facts: dict[str, Any],
    monitor: Monitor,
) -> None:
    """Compress every linear layer of ``model`` in place, one shared input at a time.

    Parameters
    ----------
    dense : LoadedModel
        What ``layer_errors`` are relative to; not changed.
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
    """
    method = LAYER_METHODS[type(step)]
    linears = layers.find_linears(model.hf_model)
    groups = statistics.groups if statistics else layers.shared_inputs(model.hf_model)
    method = method.prepared((site.matrix for site in linears.values()), step)
    stage = step.title.lower()
    errors: dict[str, float] = {}
    keep_factors = statistics is not None and statistics.factor_bytes <= _FACTOR_CACHE_BYTES
    for index, group in enumerate(groups):
        weights = {name: linears[name].matrix for name in group.names}
        masks = {
            name: compressed.mask
            for name in group.names
            if isinstance(compressed := model.weights.get(name), PrunedWeight)
        }
        own = statistics[group.key] if statistics is not None and method.needs else None
        solved = method.solve(GroupWeights(weights, masks, model.stored_dtype), own, step)
        for name, weight in solved.items():
            model.set_weight(name, weight)
        if statistics is not None:
            gram = statistics[group.key].judge.mean_gram
            errors.update(_layer_errors(dense, model, group, gram))
        if statistics is not None and not keep_factors:
            statistics.release(group.key)
        monitor.report(stage, index + 1, len(groups), group.key)
    if errors:
        facts["layer_errors"] = errors
    for group in groups:
        fold_input_scales(model, group, facts)


def _layer_errors(
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
