"""One backward pass: how much each layer's output matters to the model's predictions.

The labels are drawn from the model's own predictions, so the second moments of the gradients are
the Fisher information (Martens 2020, "New insights and perspectives on the natural gradient
method", section 5), factored as in K-FAC (Martens and Grosse 2015): G at the output of every layer
beside the gram H at its input.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.calibrate import CalibrationInputs, Calibrator, Statistics
from workbench.errors import CalibrationError
from workbench.layers import find_linears
from workbench.models import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.statistics import OutputGram

FORMAT_VERSION = 1


@dataclass(frozen=True)
class GradientOptions:
    """How the gradients are collected.

    Attributes
    ----------
    predictions : int
        Labels to draw at least; a classifier's examples are used up to four times for it.
    block_size : int
        Rows of the diagonal blocks that are kept of a wider matrix; see
        :class:`workbench.statistics.OutputGram`.
    seed : int
        Of the labels.
    """

    predictions: int = 2048
    block_size: int = 1024
    seed: int = 0


class Gradients:
    """The output grams of one model on one task, memory-mapped from a folder.

    Attributes
    ----------
    key : str
        Depends on everything that changes the numbers.
    missing : tuple of str
        Layers without one: fused experts, whose outputs never appear as a tensor of their own.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self._folder = folder
        self.key: str = meta["key"]
        self.missing: tuple[str, ...] = tuple(meta["missing"])
        self._layers: dict[str, dict[str, Any]] = meta["layers"]
        self._predictions: int = meta["predictions"]

    def __getitem__(self, name: str) -> OutputGram:
        """Return a layer's output gram, per prediction."""
        layer = self._layers[name]
        shape = tuple(layer["shape"])
        path = str(self._folder / layer["file"])
        flat = torch.from_file(path, shared=False, size=math.prod(shape), dtype=torch.float32)
        return OutputGram(flat.view(shape), layer["rows"], self._predictions, layer["features"])


def collect_gradients(
    model: LoadedModel,
    calibrator: Calibrator,
    statistics: Statistics,
    options: GradientOptions | None = None,
    *,
    monitor: Monitor = SILENT,
) -> Gradients:
    """Collect the output grams on the judge half of the calibration data, or reopen them.

    Parameters
    ----------
    model : LoadedModel
        Dense, and bound to the calibrator's task. Not changed.
    calibrator : Calibrator
    statistics : Statistics
        Of the model; the result is kept beside them.
    options : GradientOptions, optional
    monitor : Monitor
        Reports stage ``"gradients"`` by batches; cancelling leaves nothing behind.

    Raises
    ------
    CalibrationError
        If the gradients are not finite.
    """
    options = options or GradientOptions()
    parts = json.dumps([FORMAT_VERSION, statistics.key, asdict(options)])
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    target = calibrator.folder / f"gradients-{key}"
    if (target / "meta.json").exists():
        return Gradients(target)
    building = calibrator.folder / f".gradients-{key}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    building.mkdir(parents=True)
    try:
        meta = _collect(model, calibrator, options, building, monitor)
        (building / "meta.json").write_text(json.dumps({"key": key, **meta}), encoding="utf-8")
        try:
            building.replace(target)
        except OSError:  # another process was first; its numbers are the same
            if not (target / "meta.json").exists():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Gradients(target)


def _collect(
    model: LoadedModel,
    calibrator: Calibrator,
    options: GradientOptions,
    folder: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    task = calibrator.task
    if isinstance(task, CalibrationInputs):
        raise CalibrationError(
            f"Predictions need a task whose loss can be differentiated, and {task.name!r} has"
            " inputs alone; give a LanguageModeling or TextClassification task."
        )
    sinks: dict[str, _Sum] = {}
    missing = []
    for index, (name, site) in enumerate(find_linears(model.hf_model).items()):
        if site.index is None:
            sinks[name] = _Sum(folder / f"{index:04d}.f32", site.shape[0], options.block_size)
        else:
            missing.append(name)
    batches = list(calibrator.judge_batches(model))
    per_pass = sum(task.count_predictions(ids, mask) for ids, mask in batches)
    draws = min(4, max(1, math.ceil(options.predictions / max(per_pass, 1))))
    generator = torch.Generator(model.device).manual_seed(options.seed)
    with _hearing(model.hf_model, sinks):
        for done, (ids, mask) in enumerate(batches * draws, 1):
            for sink in sinks.values():
                sink.mask = mask
            with torch.enable_grad():
                ids, mask = ids.to(model.device), mask.to(model.device)
                log_probabilities = task.predictions(model, ids, mask)
                labels = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
                (-log_probabilities.gather(-1, labels)).sum().backward()
            monitor.report("gradients", done, len(batches) * draws, "backward")
    for name, sink in sinks.items():
        if not bool(torch.isfinite(sink.blocks).all()):
            raise CalibrationError(
                f"The gradients at {name} are not finite on the calibration data. Load the model"
                ' with dtype="float32".'
            )
    return {
        "predictions": per_pass * draws,
        "missing": missing,
        "layers": {name: sink.describe() for name, sink in sinks.items()},
    }


class _Sum:
    """Adds Σ g gᵀ of one layer to a file, by diagonal blocks, without padded positions."""

    def __init__(self, path: Path, features: int, block_size: int) -> None:
        width = min(features, block_size)
        shape = (math.ceil(features / width), width, width)
        flat = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float32)
        self.blocks = flat.view(shape)
        self.mask: Tensor | None = None
        self._path, self._features, self._rows = path, features, 0

    def add(self, gradient: Tensor) -> None:
        """Add one gradient of shape (..., out_features)."""
        mask = self.mask
        rows = gradient.detach().reshape(-1, self._features)
        if mask is not None and tuple(gradient.shape[:-1]) == tuple(mask.shape):
            rows = rows[mask.reshape(-1).bool().to(rows.device)]
        rows = rows.float().cpu()
        width = self.blocks.shape[1]
        for block, part in zip(self.blocks, rows.split(width, dim=1), strict=True):
            n = part.shape[1]
            block[:n, :n].addmm_(part.T, part)
        self._rows += len(rows)

    def describe(self) -> dict[str, Any]:
        """Return what reads the file again."""
        shape, file = list(self.blocks.shape), self._path.name
        return {"file": file, "shape": shape, "rows": self._rows, "features": self._features}


@contextmanager
def _hearing(hf_model: nn.Module, sinks: dict[str, _Sum]) -> Iterator[None]:
    """Let every sink hear the gradients at its layer's output while the context is open."""

    def hook_for(sink: _Sum) -> Any:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(sink.add)

        return hook

    # The parameters need no gradient, so the graph has to begin at the embeddings.
    embeddings = hf_model.get_input_embeddings()  # type: ignore[operator]
    handles = [embeddings.register_forward_hook(lambda _m, _a, out: out.requires_grad_(True))]
    for name, sink in sinks.items():
        handles.append(hf_model.get_submodule(name).register_forward_hook(hook_for(sink)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
