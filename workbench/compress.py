"""Apply a recipe to a copy of a model, and say what was really compressed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench import layers
from workbench.calibrate import Statistics
from workbench.linalg import output_error
from workbench.methods import LAYER_METHODS, GroupWeights
from workbench.models import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.recipe import Recipe
from workbench.steps import Cast, Step
from workbench.weights import PrunedWeight, QuantizedWeight

_FACTOR_CACHE_BYTES = 2 << 30
"""Factors of all groups are kept between runs while one set of them stays below this."""


@dataclass(frozen=True)
class Compressed:
    """A compressed model, and JSON-ready facts about how it came to be.

    Attributes
    ----------
    model : LoadedModel
    facts : dict
        ``compressed_share`` (of all parameters, 0 to 1), ``zero_share`` (zeros among the weights of
        compressed layers), ``bits_per_weight`` (stored bits per weight of those layers),
        ``layer_errors`` ({module name: output error relative to the output, on tokens that no
        solver saw}), ``scales_folded`` and ``scales_stored`` for AWQ, ``method_versions``.
    """

    model: LoadedModel
    facts: dict[str, Any]


def needs_statistics(recipe: Recipe) -> bool:
    """Return whether a step of the recipe reads calibration statistics."""
    return any(
        LAYER_METHODS[type(step)].needs for step in recipe.steps if type(step) in LAYER_METHODS
    )


def method_versions(recipe: Recipe) -> dict[str, int]:
    """Return the version of every method that the recipe uses; part of every run's identity."""
    return {
        type(step).__name__: LAYER_METHODS[type(step)].version
        for step in recipe.steps
        if type(step) in LAYER_METHODS
    }


@torch.no_grad()
def compress(
    model: LoadedModel,
    recipe: Recipe,
    statistics: Statistics | None,
    *,
    monitor: Monitor = SILENT,
) -> Compressed:
    """Apply the steps of a recipe in order to a copy of the model.

    Parameters
    ----------
    model : LoadedModel
        Never changed.
    recipe : Recipe
    statistics : Statistics or None
        Of this model; may be None if :func:`needs_statistics` says so. Later steps use the same
        statistics as the first, those of the dense model.
    monitor : Monitor
        Reports a stage per step by groups of layers.

    Raises
    ------
    CompressionError
        If a solver fails; nothing is replaced by a fallback.
    """
    result = model.copy()
    facts: dict[str, Any] = {"method_versions": method_versions(recipe)}
    for step in recipe.steps:
        if isinstance(step, Cast):
            result = _cast(result, step)
        else:
            _apply_layer_method(model, result, step, statistics, facts, monitor)
    facts.update(_shares(result))
    return Compressed(result, facts)


def _apply_layer_method(
    dense: LoadedModel,
    model: LoadedModel,
    step: Step,
    statistics: Statistics | None,
    facts: dict[str, Any],
    monitor: Monitor,
) -> None:
    method = LAYER_METHODS[type(step)]
    linears = layers.find_linears(model.hf_model)
    groups = statistics.groups if statistics else layers.shared_inputs(model.hf_model)
    method = method.prepared((layers.weight_of(m) for m in linears.values()), step)
    stage = step.title.lower()
    errors: dict[str, float] = {}
    keep_factors = statistics is not None and statistics.factor_bytes <= _FACTOR_CACHE_BYTES
    for index, group in enumerate(groups):
        weights = {name: layers.weight_of(linears[name]) for name in group.names}
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
        _fold_input_scales(model, group, facts)


def _layer_errors(
    dense: LoadedModel, model: LoadedModel, group: layers.LinearGroup, gram: Tensor
) -> dict[str, float]:
    """Return each layer's squared output error relative to its squared output."""
    errors = {}
    for name in group.names:
        weight = layers.weight_of(dense.hf_model.get_submodule(name))
        delta = layers.weight_of(model.hf_model.get_submodule(name)) - weight
        total = float(output_error(weight, gram).sum())
        errors[name] = float(output_error(delta, gram).sum()) / total if total else 0.0
    return errors


def _fold_input_scales(
    model: LoadedModel, group: layers.LinearGroup, facts: dict[str, Any]
) -> None:
    """Let the layer before absorb a group's input scales where that is exact.

    A norm's weight and bias, or the rows of the linear layer before, are divided by the scales;
    for a quantized layer that is a change of its own scales, so its codes stay as they are.
    """
    members = [model.weights[name] for name in group.names]
    first = members[0]
    if not isinstance(first, QuantizedWeight) or first.input_scales is None:
        return
    found = layers.find_fold(model.hf_model, group)
    if found is None:
        facts["scales_stored"] = facts.get("scales_stored", 0) + 1
        return
    name, is_norm = found
    producer = model.hf_model.get_submodule(name)
    divisor = first.input_scales.float()
    compressed = model.weights.get(name)
    if isinstance(compressed, QuantizedWeight):
        scales = (compressed.scales.float() / divisor[:, None]).half()
        if not bool(torch.isfinite(scales).all()) or bool((scales == 0).any()):
            facts["scales_stored"] = facts.get("scales_stored", 0) + 1
            return
        model.set_weight(name, dataclasses.replace(compressed, scales=scales))
    elif is_norm:
        _divide(producer.weight, divisor, model.stored_dtype)
    else:
        facts["scales_stored"] = facts.get("scales_stored", 0) + 1
        return
    if isinstance(bias := getattr(producer, "bias", None), Tensor):
        _divide(bias, divisor, model.stored_dtype)
    for member_name, member in zip(group.names, members, strict=True):
        assert isinstance(member, QuantizedWeight)
        model.set_weight(member_name, dataclasses.replace(member, input_scales=None))
    facts["scales_folded"] = facts.get("scales_folded", 0) + 1


def _divide(parameter: object, divisor: Tensor, dtype: torch.dtype) -> None:
    """Divide a parameter in place, rounded to what is stored."""
    assert isinstance(parameter, Tensor)
    parameter.copy_((parameter.float() / divisor).to(dtype))


def _cast(model: LoadedModel, step: Cast) -> LoadedModel:
    """Round every dense tensor to the 16-bit format it is stored in from now on."""
    dtype = getattr(torch, step.dtype)
    for tensor in [*model.hf_model.parameters(), *model.hf_model.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
    for name, weight in list(model.weights.items()):
        if isinstance(weight, PrunedWeight):
            model.set_weight(name, dataclasses.replace(weight, values=weight.values.to(dtype)))
        elif isinstance(weight, QuantizedWeight):
            model.set_weight(name, weight)
    head = model.head
    if head is not None:
        head = dataclasses.replace(
            head, weight=head.weight.to(dtype).float(), bias=head.bias.to(dtype).float()
        )
    return dataclasses.replace(model, stored_dtype=dtype, head=head)


def _shares(model: LoadedModel) -> dict[str, Any]:
    """Return what share of the model was really compressed, from the stored weights themselves."""
    compressed = stored_bytes = zeros = 0
    for name, weight in model.weights.items():
        count = weight.shape[0] * weight.shape[1]
        compressed += count
        stored_bytes += weight.stored_bytes
        dense = layers.weight_of(model.hf_model.get_submodule(name))
        zeros += count - int(torch.count_nonzero(dense))
    return {
        "compressed_share": compressed / model.n_parameters,
        "compressed_layers": len(model.weights),
        "zero_share": zeros / compressed if compressed else 0.0,
        "bits_per_weight": 8 * stored_bytes / compressed if compressed else None,
    }
