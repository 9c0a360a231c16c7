"""Apply a recipe to a copy of a model, and say what was really compressed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from workbench.calibration.calibrate import Calibrator
from workbench.compression.joint_solving import SolvedAhead
from workbench.compression.layerwise import apply_layer_method
from workbench.compression.needs import RecipeNeeds
from workbench.compression.sequential import apply_sequentially
from workbench.methods import LAYER_METHODS, MODEL_METHODS, ModelContext
from workbench.methods.backends import backend_of
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.progress import SILENT, Monitor
from workbench.recipes import GPTQ, Step
from workbench.recipes.recipe import Recipe
from workbench.training import CheckpointFile


@dataclass(frozen=True)
class Start:
    """What the first steps of a recipe left already, the last of them one that trains.

    Attributes
    ----------
    model : LoadedModel
        Not changed.
    steps : int
        How many steps of the recipe are in it.
    make_teacher : callable
        Returns what steps that distil learn from.
    facts : dict
        Of the steps that were applied.
    """

    model: LoadedModel
    steps: int
    make_teacher: Callable[[], LoadedModel]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Compressed:
    """A compressed model, and JSON-ready facts about how it came to be.

    Attributes
    ----------
    model : LoadedModel
    facts : dict
        ``compressed_share`` (of all parameters, 0 to 1), ``zero_share`` (zeros among the weights of
        compressed layers), ``bits_per_weight`` (stored bits per weight of those layers),
        ``kept_dense`` ({name: values} of all matrices that no step compressed),
        ``left_dense`` ({name: reason} of those in the blocks that no step of this kind can),
        ``layer_errors`` ({module name: output error relative to the output, on tokens that no
        solver saw; an expert that no such token was routed to is left out}), ``undersampled``
        ({module name: tokens} of experts with too few tokens to learn from: they are solved as
        if their inputs were uncorrelated, so GPTQ rounds them to nearest), ``scales_folded`` and
        ``scales_stored`` for AWQ, ``beside_grid`` ({module name: number format} of layers whose
        width does not fit the grid that was asked for), ``embeddings`` (what was quantized outside
        of the blocks), ``structure`` (a list of what each structural step removed),
        ``training`` (a list of how each training went, see :class:`workbench.training.Trained`),
        ``loss_curve`` (of the last training done here, [{``step``, ``loss``}]),
        ``solved_together`` (in a sweep, how many configurations were solved at once, this one among
        them),
        ``method_versions``.
    """

    model: LoadedModel
    facts: dict[str, Any]


@torch.no_grad()
def compress(
    model: LoadedModel,
    recipe: Recipe,
    calibrator: Calibrator | None = None,
    *,
    monitor: Monitor = SILENT,
    ahead: SolvedAhead | None = None,
    start: Start | None = None,
    load_run: Callable[[str], LoadedModel] | None = None,
    checkpoint: CheckpointFile | None = None,
) -> Compressed:
    """Apply the steps of a recipe in order to a copy of the model.

    Parameters
    ----------
    model : LoadedModel
        Never changed.
    recipe : Recipe
    calibrator : Calibrator, optional
        Gives the statistics; may be left out where :class:`RecipeNeeds` says so. Steps that change
        weights in place go on with the statistics of the model before them; after a step that
        changes the architecture or trains, statistics are collected anew. Steps that train read
        the calibrator's task.
    monitor : Monitor
        Reports a stage per step by groups of layers.
    ahead : SolvedAhead, optional
        Where the caller knows which recipes come next on this model: first steps that can be
        are solved together.
    start : Start, optional
        What the recipe's first steps left of this very model; the others are applied to it.
    load_run : callable, optional
        Returns the model of a study's run, for a step that names one as its teacher.
    checkpoint : CheckpointFile, optional
        Where the recipe's last training keeps its state while it goes on.

    Raises
    ------
    CompressionError
        If a solver fails; nothing is replaced by a fallback.
    """
    for step in recipe.steps:
        if not takes_streamed(step):
            model.need_resident(step.title)
        if type(step) in MODEL_METHODS:
            MODEL_METHODS[type(step)].check(model, step)
    # What statistics and layer errors refer to: the model when it last changed its architecture
    # or was trained.
    origin = model if start is None else start.model
    result = origin.copy()
    needs = RecipeNeeds.of(recipe)
    teacher, teaching = model, len(needs.teaching_prefix.steps)
    facts: dict[str, Any] = {"method_versions": needs.method_versions}
    facts |= {} if start is None else start.facts
    for index, step in enumerate(recipe.steps):
        if start is not None and index < start.steps:
            continue
        backend = backend_of(step)
        if backend is not None:
            assert calibrator is not None
            windows = calibrator.windows(origin)["solve"]
            result = backend.apply(result, step, windows, monitor)
        elif type(step) in LAYER_METHODS:
            needed = bool(LAYER_METHODS[type(step)].needs)
            statistics = None
            if calibrator is not None and (needed or calibrator.has(origin)):
                statistics = calibrator.statistics(origin, monitor=monitor)
            if isinstance(step, GPTQ) and step.sequential:
                assert calibrator is not None
                apply_sequentially(origin, result, step, calibrator, facts, monitor)
                continue
            fold = not any(type(later) in LAYER_METHODS for later in recipe.steps[index + 1 :])
            first = ahead if index == 0 and not model.weights else None
            apply_layer_method(
                origin, result, step, statistics, facts, monitor, fold=fold, ahead=first
            )
        else:
            method = MODEL_METHODS[type(step)]
            context = ModelContext(
                origin,
                calibrator,
                monitor,
                partial(_given, teacher) if start is None else start.make_teacher,
                load_run,
                checkpoint if index == needs.last_training else None,
            )
            applied = method.apply(result, context, step)
            result = applied.model
            _add_facts(facts, applied.facts)
            if method.renews_statistics:
                origin = result.copy()
            if index < teaching:
                teacher = origin
    facts.update(_shares(result))
    return Compressed(result, facts)


def takes_streamed(step: Step) -> bool:
    """Return whether a step takes a model whose weights are in their files."""
    sequential = isinstance(step, GPTQ) and step.sequential
    return type(step) in LAYER_METHODS and backend_of(step) is None and not sequential


def _given(model: LoadedModel) -> LoadedModel:
    return model


def _add_facts(facts: dict[str, Any], new: dict[str, Any]) -> None:
    """Add a step's facts; lists of several steps are joined, but for the loss of the last one."""
    for name, value in new.items():
        joined = isinstance(value, list) and name != "loss_curve"
        facts[name] = facts.get(name, []) + value if joined else value


def _shares(model: LoadedModel) -> dict[str, Any]:
    """Return what share of the model was really compressed, from the stored weights themselves."""
    compressed = stored_bytes = zeros = 0
    left = {tensor_identity(p): p.numel() for p in model.hf_model.parameters() if p.ndim > 1}
    for name, weight in model.weights.items():
        left[tensor_identity(model.site(name).whole)] -= weight.shape[0] * weight.shape[1]
        count = weight.shape[0] * weight.shape[1]
        compressed += count
        stored_bytes += weight.stored_bytes
        dense = model.site(name).matrix
        zeros += int((dense == 0).sum())  # count_nonzero takes five times as long
    return {
        "compressed_share": compressed / model.n_parameters,
        "compressed_layers": len(model.weights),
        "zero_share": zeros / compressed if compressed else 0.0,
        "bits_per_weight": 8 * stored_bytes / compressed if compressed else None,
        "kept_dense": {
            name: left[tensor_identity(parameter)]
            for name, parameter in model.hf_model.named_parameters()
            if left.get(tensor_identity(parameter), 0) > 0
        },
    }
