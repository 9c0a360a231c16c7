"""One backward pass: how much each layer's output matters to the model's predictions.

The labels are drawn from the model's own predictions, so the second moments of the gradients are
the Fisher information (Martens 2020, "New insights and perspectives on the natural gradient
method", section 5), factored as in K-FAC (Martens and Grosse 2015): G at the output of every layer
beside the gram H at its input.

Where one prediction is made from many tokens (classification, an encoder-decoder's encoder), the
gradients at the tokens of one example are far from independent. Inputs and gradients are then
split into their mean over the example's tokens and the rest, and each part has factors of its own:
what K-FAC-reduce and K-FAC-expand (Eschenhagen et al. 2023) see, added.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.calibration.calibrate import CalibrationInputs, Calibrator, Statistics
from workbench.calibration.calibration_data import token_masks
from workbench.errors import CalibrationError
from workbench.models.input_hooks import hearing_experts, listening
from workbench.models.layers import find_linears
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks import Batch, Task
from workbench.tasks.base import batch_of
from workbench.tensors.devices import seeded_generator
from workbench.tensors.memory_mapped import build_folder, mapped_floats, read_meta
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import OutputGram

FORMAT_VERSION = 4
_MOST_DRAWS = 4
_FEW_CLASSES = 8
"""Up to so many, each label gets a pass of its own in place of drawn ones."""


@dataclass(frozen=True)
class GradientOptions:
    """How the gradients are collected.

    Attributes
    ----------
    predictions : int
        Labels to draw at least; a classifier's examples are used up to four times for it,
        or once per label where there are few.
    block_size : int
        Rows of the diagonal blocks that are kept of a wider matrix; see
        :class:`workbench.tensors.statistics.OutputGram`.
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
    """

    def __init__(self, folder: Path) -> None:
        meta = read_meta(folder)
        self._folder = folder
        self.key: str = meta["key"]
        self._layers: dict[str, dict[str, Any]] = meta["layers"]
        self._inputs: dict[str, dict[str, Any]] = meta["inputs"]
        self._predictions: int = meta["predictions"]

    def divergence(self, key: str, name: str, delta: Tensor, mean_gram: Tensor) -> float:
        """Return the KL divergence per prediction that a change of one layer causes, in nats.

        Parameters
        ----------
        key : str
            Of the layer's group.
        name : str
            Of the layer.
        delta : Tensor of shape (out_features, in_features), float32
        mean_gram : Tensor of shape (in_features, in_features), float32
            Of the group's inputs, per row; not read where inputs were collected with the gradients.
        """
        tokens = self._output_gram(name, "tokens")
        if key not in self._inputs:
            return tokens.divergence(delta, mean_gram)
        around, means = self._input_grams(key)
        return tokens.divergence(delta, around) + self._output_gram(name, "sums").divergence(
            delta, means
        )

    def _output_gram(self, name: str, part: str) -> OutputGram:
        layer = self._layers[name]
        blocks = mapped_floats(
            self._folder / f"{layer['file']}.{part}.f32", layer["shape"], shared=False
        )
        return OutputGram(blocks, self._predictions, layer["features"])

    def _input_grams(self, key: str) -> list[Tensor]:
        group = self._inputs[key]
        shape = [group["features"], group["features"]]
        return [
            mapped_floats(self._folder / f"{group['file']}.{part}.f32", shape, shared=False)
            / max(group[part], 1)
            for part in ("around", "means")
        ]


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
    model.need_resident("Collecting gradients")
    options = options or GradientOptions()
    parts = json.dumps([FORMAT_VERSION, statistics.key, asdict(options)])
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    target = calibrator.folder / f"gradients-{key}"

    def build(building: Path) -> dict[str, Any]:
        return {"key": key, **_collect(model, calibrator, statistics, options, building, monitor)}

    build_folder(target, build)
    return Gradients(target)


def _collect(
    model: LoadedModel,
    calibrator: Calibrator,
    statistics: Statistics,
    options: GradientOptions,
    folder: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    task = calibrator.task
    if isinstance(task, CalibrationInputs):
        raise CalibrationError(
            f"Predictions need a task whose loss can be differentiated, and {task.name!r} has"
            " inputs alone; give a task, such as LanguageModeling or Extraction."
        )
    inputs: dict[str, _InputSums] = {}
    for index, group in enumerate(statistics.groups):
        # Every token of an encoder takes part in every prediction of the decoder.
        if not group.routed and (task.output.is_pooled or group.side == "encoder"):
            inputs[group.key] = _InputSums(folder / f"input-{index:04d}", group.in_features)
    group_of = {name: group for group in statistics.groups for name in group.names}
    sinks: dict[str, _OutputSums] = {}
    for index, (name, site) in enumerate(find_linears(model.hf_model).items()):
        pooled = group_of[name].key in inputs
        file = folder / f"{index:04d}"
        sinks[name] = _OutputSums(file, site.shape[0], options.block_size, pooled)
    batches = list(calibrator.judge_batches(model))
    per_pass = sum(map(task.count_predictions, batches))
    n_classes = _count_classes(model, task, batches[0])
    exact = n_classes <= _FEW_CLASSES
    draws = min(_MOST_DRAWS, max(1, math.ceil(options.predictions / max(per_pass, 1))))
    draws = n_classes if exact else draws
    generator = seeded_generator(model.device, options.seed)
    heard = [group for group in statistics.groups if group.key in inputs]
    with _hearing(model.hf_model, sinks), fast_products():
        for done, batch in enumerate(batches * draws):
            masks = token_masks(batch.inputs)
            for name, output in sinks.items():
                output.mask = masks.get(group_of[name].side)
            for group in heard:
                inputs[group.key].mask = masks.get(group.side)
            with ExitStack() as stack:
                if done < len(batches):  # the inputs are the same in every pass
                    stack.enter_context(
                        listening(model.hf_model, heard, lambda key, x, _t=None: inputs[key].add(x))
                    )
                stack.enter_context(torch.enable_grad())
                log_probabilities = task.predictions(model, batch)
                draw = done // len(batches)
                _loss(log_probabilities, generator, draw if exact else None).backward()
            monitor.report("gradients", done + 1, len(batches) * draws, "backward")
    for name, sink in sinks.items():
        if not bool(torch.isfinite(sink.tokens).all()):
            raise CalibrationError(
                f"The gradients at {name} are not finite on the calibration data. Load the model"
                ' with dtype="float32".'
            )
    return {
        "predictions": per_pass if exact else per_pass * draws,
        "layers": {name: sink.describe() for name, sink in sinks.items()},
        "inputs": {key: sum_.describe() for key, sum_ in inputs.items()},
    }


def _count_classes(model: LoadedModel, task: Task, batch: Batch) -> int:
    with torch.no_grad():
        return task.predictions(model, batch_of(model, batch.part, batch.examples[:1])).shape[-1]


def _loss(log_probabilities: Tensor, generator: torch.Generator, label: int | None) -> Tensor:
    """Return the loss whose gradients' second moments are the Fisher information.

    With ``label`` None, -log p of one drawn label per prediction. Else √p · -log p of that label:
    over all labels the squares add up to the expectation over draws, which a classifier that is
    nearly certain would hardly ever show.
    """
    probabilities = log_probabilities.detach().exp()
    if label is None:
        labels = torch.multinomial(probabilities, 1, generator=generator)
        return -log_probabilities.gather(-1, labels).sum()
    return -(probabilities[:, label].sqrt() * log_probabilities[:, label]).sum()


class _OutputSums:
    """Adds Σ g gᵀ of one layer to files, by diagonal blocks, without padded positions.

    With ``pooled``, ``tokens`` has the gradients around their example's mean, and ``sums`` has
    their sum over each example.
    """

    def __init__(self, file: Path, features: int, block_size: int, pooled: bool) -> None:
        width = min(features, block_size)
        self._shape = [math.ceil(features / width), width, width]
        self._file, self._features = file, features
        self.mask: Tensor | None = None
        self.tokens = mapped_floats(file.with_suffix(".tokens.f32"), self._shape, shared=True)
        self.sums = None
        if pooled:
            self.sums = mapped_floats(file.with_suffix(".sums.f32"), self._shape, shared=True)

    def add(self, gradient: Tensor) -> None:
        """Add one gradient of shape (..., out_features)."""
        gradient = _shaped(gradient.detach().float().cpu(), self.mask)
        if self.sums is None or not _fits(gradient, self.mask):
            self._add(self.tokens, _rows(gradient, self.mask))
            return
        around, means, counts = _split(gradient, self.mask)
        self._add(self.tokens, around)
        self._add(self.sums, means * counts)

    def add_routed(self, gradient: Tensor, tokens: Tensor) -> None:
        """Add one gradient of an expert, (rows, out_features), of the positions ``tokens``."""
        kept = None if self.mask is None else self.mask.reshape(-1).bool()[tokens.cpu()]
        rows = gradient.detach().float().cpu()
        self._add(self.tokens, rows if kept is None else rows[kept])

    def _add(self, blocks: Tensor, rows: Tensor) -> None:
        width = blocks.shape[1]
        for block, part in zip(blocks, rows.split(width, dim=1), strict=True):
            n = part.shape[1]
            block[:n, :n].addmm_(part.T, part)

    def describe(self) -> dict[str, Any]:
        """Return what reads the files again."""
        return {"file": self._file.name, "shape": self._shape, "features": self._features}


class _InputSums:
    """Adds the grams of the inputs of one group: of the examples' means, and around them."""

    def __init__(self, file: Path, features: int) -> None:
        self._file, self._features = file, features
        self.mask: Tensor | None = None
        self._parts = {
            part: mapped_floats(file.with_suffix(f".{part}.f32"), [features, features], shared=True)
            for part in ("around", "means")
        }
        self._counts = dict.fromkeys(self._parts, 0)

    def add(self, x: Tensor) -> None:
        """Add one input of shape (..., in_features)."""
        x = _shaped(x.detach().float().cpu(), self.mask)
        if not _fits(x, self.mask):
            self._add("around", _rows(x, None))
            return
        around, means, _ = _split(x, self.mask)
        self._add("around", around)
        self._add("means", means)

    def _add(self, part: str, rows: Tensor) -> None:
        self._parts[part].addmm_(rows.T, rows)
        self._counts[part] += len(rows)

    def describe(self) -> dict[str, Any]:
        """Return what reads the files again."""
        return {"file": self._file.name, "features": self._features, **self._counts}


def _shaped(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return an input or a gradient as (batch, tokens, features), if it was flattened (OPT)."""
    if mask is not None and x.ndim == 2 and len(x) == mask.numel():
        return x.reshape(*mask.shape, x.shape[-1])
    return x


def _fits(x: Tensor, mask: Tensor | None) -> bool:
    return mask is not None and tuple(x.shape[:-1]) == tuple(mask.shape)


def _rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the rows of a tensor (..., features) that are not padding."""
    rows = x.reshape(-1, x.shape[-1])
    return rows[mask.reshape(-1).bool()] if mask is not None and _fits(x, mask) else rows


def _split(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows around their example's mean, the means, and how many rows each is of."""
    assert mask is not None
    kept = mask.to(x.dtype)[..., None]
    counts = kept.sum(1).clamp(min=1)
    means = (x * kept).sum(1) / counts
    return _rows(x - means[:, None], mask), means, counts


@contextmanager
def _hearing(hf_model: nn.Module, sinks: dict[str, _OutputSums]) -> Iterator[None]:
    """Let every sink hear the gradients at its layer's output while the context is open."""

    def hook_for(sink: _OutputSums) -> Any:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            if not output.requires_grad:  # DeBERTa's positions do not come from the embeddings
                output = output.detach().requires_grad_(True).clone()
            output.register_hook(sink.add)
            return output

        return hook

    def hear_expert(name: str, y: Tensor, tokens: Tensor) -> None:
        if y.requires_grad:
            y.register_hook(lambda gradient: sinks[name].add_routed(gradient, tokens))

    linears = find_linears(hf_model)
    # The parameters need no gradient, so the graph has to begin at the embeddings.
    handles = [
        embeddings.register_forward_hook(lambda _m, _a, out: out.requires_grad_(True))
        for embeddings in _embeddings(hf_model)
    ]
    for name, sink in sinks.items():
        if linears[name].index is None:
            handles.append(linears[name].owner.register_forward_hook(hook_for(sink)))
    try:
        with hearing_experts(hf_model, hear_expert):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _embeddings(hf_model: Any) -> set[nn.Module]:
    """Return what looks tokens up; each side of an encoder-decoder has its own, or one together."""
    sides = [hf_model]
    if getattr(hf_model.config, "is_encoder_decoder", False):
        sides += [hf_model.get_encoder(), hf_model.get_decoder()]
    return {side.get_input_embeddings() for side in sides}
