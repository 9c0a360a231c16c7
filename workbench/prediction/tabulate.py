"""Build the table of predicted costs: every layer under every configuration, without a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.calibration.calibrate import CalibrationInputs, Calibrator, Statistics
from workbench.calibration.gradients import Gradients, collect_gradients
from workbench.compression.layerwise import FACTOR_CACHE_BYTES, is_undersampled
from workbench.errors import CompressionError, StudyError
from workbench.methods import LAYER_METHODS, MODEL_METHODS, GroupWeights, LayerMethod, ModelContext
from workbench.methods.embeddings import find_tables
from workbench.models.layers import LinearGroup
from workbench.models.load import LoadedModel
from workbench.models.loaded import tensor_identity
from workbench.models.scale_folding import find_fold
from workbench.prediction.cost_table import CostTable, LayerGroup, ModelSizes
from workbench.progress import SILENT, Monitor
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    MagnitudePruning,
    QuantizeEmbeddings,
    SparseGPT,
    Step,
    Wanda,
)

BITS = (4, 3, 2, 8)
GROUP_SIZES = (128, 32)
RATIOS = (0.5, 0.3, 0.7, 0.1)
GRID: tuple[Step, ...] = (
    *(method(b, group_size=g) for g in GROUP_SIZES for b in BITS for method in (GPTQ, RTN, AWQ)),
    *(method(r) for r in RATIOS for method in (MagnitudePruning, Wanda, SparseGPT)),
    *(method(0.5, n=2, m=4) for method in (MagnitudePruning, Wanda, SparseGPT)),
)
"""What is tabulated, the most asked-for first; what lies between is interpolated."""
COST_VERSION = 1
"""Grows whenever the costs or sizes of equal inputs change."""
WHOLE: tuple[Step, ...] = (QuantizeEmbeddings(8), QuantizeEmbeddings(4))
"""Steps beside the layers, whose divergence is measured on the judge half itself."""


@torch.no_grad()
def tabulate(
    model: LoadedModel,
    calibrator: Calibrator,
    path: Path,
    steps: Iterable[Step] | None = None,
    *,
    monitor: Monitor = SILENT,
) -> CostTable:
    """Solve every layer under every step, and judge each by the Fisher information.

    The cost of a layer is ½ · (rows / predictions) · tr(G ΔW H ΔWᵀ), with H and G of calibration
    data that no solver saw. Costs of layers add up: errors in different layers are taken as
    independent.

    Parameters
    ----------
    model : LoadedModel
        Dense, and bound to the calibrator's task. Not changed.
    calibrator : Calibrator
    path : Path
        A JSON file. What it has already is kept, also what another process writes meanwhile. It is
        written anew after every step (GPTQ's are solved together), so that predictions come one
        by one and a cancelled table goes on where it stopped.
    steps : iterable of Step, optional
        Default: :data:`GRID` and :data:`WHOLE`. Steps that do not work layer by layer must keep the
        architecture and need no statistics.
    monitor : Monitor
        Reports stage ``"predict"`` by steps.
    """
    model.need_resident("Prediction")
    statistics = calibrator.statistics(model, monitor=monitor)
    gradients = collect_gradients(model, calibrator, statistics, monitor=monitor)
    table = _opened(path) or CostTable(
        (_layer_group(model, group) for group in statistics.groups), _sizes(model, statistics)
    )
    todo = list(dict.fromkeys((*GRID, *WHOLE) if steps is None else steps))
    for done, step in enumerate(todo, 1):
        if step not in table:
            alike = [s for s in _alike(step, todo) if s not in table]
            try:
                if type(step) in LAYER_METHODS:
                    costs = step_costs(model, statistics, gradients, alike, monitor=monitor)
                    table.columns |= dict(zip(alike, costs, strict=True))
                else:
                    table.whole[step] = _whole(model, calibrator, step, monitor)
            except CompressionError as error:  # the others can be predicted all the same
                table.reasons |= dict.fromkeys(alike, str(error))
            if (others := _opened(path)) is not None and others.groups == table.groups:
                table.join(others)
            table.save(path)
        monitor.report("predict", done, len(todo), step.label)
    return table


def _alike(step: Step, others: Iterable[Step]) -> list[Step]:
    """Return the step, and those that are solved faster together with it."""
    method = LAYER_METHODS.get(type(step))
    kind = None if method is None else method.together(step)
    if method is None or kind is None:
        return [step]
    same = [other for other in others if type(other) is type(step) and other != step]
    return [step, *(other for other in same if method.together(other) == kind)]


def _opened(path: Path) -> CostTable | None:
    try:
        return CostTable.load(path) if path.exists() else None
    except StudyError:
        return None  # damaged or old: made again


@torch.no_grad()
def step_costs(
    model: LoadedModel,
    statistics: Statistics,
    gradients: Gradients,
    steps: Sequence[Step],
    *,
    monitor: Monitor = SILENT,
) -> list[NDArray[np.float64]]:
    """Return what steps of one kind cost in every group of layers, in nats per prediction.

    Parameters
    ----------
    model : LoadedModel
        Dense.
    statistics : Statistics
        Of the model.
    gradients : Gradients
        Of the model.
    steps : sequence of Step
        One step of a type in :data:`workbench.methods.LAYER_METHODS`, or several that the method
        solves together.
    monitor : Monitor
        May cancel.

    Returns
    -------
    list of ndarray of shape (n_groups,), float64
    """
    sites = [model.site(name) for group in statistics.groups for name in group.names]
    method = LAYER_METHODS[type(steps[0])].prepared((site.matrix for site in sites), steps[0])
    nats = np.full((len(steps), len(statistics.groups)), np.nan)
    keep_factors = statistics.factor_bytes <= FACTOR_CACHE_BYTES
    for index, group in enumerate(statistics.groups):
        monitor.check()
        nats[:, index] = _costs(model, statistics, gradients, method, group, steps)
        if not keep_factors:
            statistics.release(group.key)
    return list(nats)


def _costs(
    model: LoadedModel,
    statistics: Statistics,
    gradients: Gradients,
    method: LayerMethod,
    group: LinearGroup,
    steps: Sequence[Step],
) -> list[float]:
    own = seen = statistics[group.key]
    if is_undersampled(group, own, method, steps[0]):
        seen = own.without_solve()
    weights = {name: model.site(name).matrix for name in group.names}
    of_group = GroupWeights(weights, {}, model.stored_dtype, originals=weights)
    gram = own.judge.mean_gram
    return [
        sum(
            gradients.divergence(group.key, name, weight.dequantize() - weights[name], gram)
            for name, weight in solved.items()
        )
        for solved in method.solve_many(of_group, seen if method.needs else None, steps)
    ]


def _whole(model: LoadedModel, calibrator: Calibrator, step: Step, monitor: Monitor) -> float:
    """Return the KL divergence per prediction that a step causes on the judge half."""
    changed = MODEL_METHODS[type(step)].apply(model, ModelContext(model, None, monitor), step).model
    task = calibrator.task
    assert not isinstance(task, CalibrationInputs)  # collect_gradients has refused them
    total, count = 0.0, 0
    for batch in calibrator.judge_batches(model):
        monitor.check()
        dense, other = (task.predictions(m, batch) for m in (model, changed))
        total += float((dense.exp() * (dense - other)).sum())
        count += len(dense)
    return max(total / max(count, 1), 0.0)


def _layer_group(model: LoadedModel, group: LinearGroup) -> LayerGroup:
    fold = find_fold(model.hf_model, group)
    rows, columns = zip(*(model.site(name).shape for name in group.names), strict=True)
    return LayerGroup(
        group.key,
        group.block,
        group.names,
        tuple(zip(rows, columns, strict=True)),
        absorber="" if fold is None else "norm" if fold.is_norm else fold.name,
    )


def _sizes(model: LoadedModel, statistics: Statistics) -> ModelSizes:
    """Split the stored bytes of a dense model into layers, tables and the rest."""
    itemsize = model.stored_dtype.itemsize
    grouped = sum(
        model.site(name).matrix.numel() for group in statistics.groups for name in group.names
    )
    tables = [model.site(name).shape for name in find_tables(model.hf_model)]
    in_tables = sum(rows * columns for rows, columns in tables)
    values: dict[tuple[int, int], int] = {}
    for tensor in model.hf_model.state_dict().values():
        if tensor.is_floating_point():
            values[tensor_identity(tensor)] = tensor.numel()
    head = model.head
    floats = sum(values.values())
    floats += 0 if head is None else head.weight.numel() + head.bias.numel()
    other_bytes = model.size_bytes - floats * itemsize  # integers, and what is kept in float32
    return ModelSizes(itemsize, floats - grouped - in_tables, other_bytes, tuple(tables))
