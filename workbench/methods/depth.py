"""Depth pruning: remove the blocks that matter least (ShortGPT, Men et al. 2024)."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.calibration.calibrate import CalibrationInputs
from workbench.errors import (
    CalibrationError,
    CompressionError,
    ConfigError,
)
from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.architectures import backbone
from workbench.models.load import LoadedModel
from workbench.models.structure import (
    architecture_of,
    block_names,
    check_uniform,
    drop_blocks,
    text_config,
)
from workbench.progress import Monitor
from workbench.recipes import DepthPruning, Step
from workbench.tasks.base import (
    BATCH_TOKENS,
    LOGITS_BYTES,
    Example,
    Task,
    batches_of,
)
from workbench.tensors.devices import in_float64

_LOSS_TOKENS = 4096
"""Tokens that removals are compared on: all see the same ones, so few tell them apart."""


class DepthPruner(ModelMethod):
    """Blocks are judged by the tokens that no solver sees, and the rest is renumbered."""

    step: ClassVar[type[Step]] = DepthPruning
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"windows"})
    changes_architecture: ClassVar[bool] = True

    def check(self, model: LoadedModel, config: Step) -> None:
        architecture_of(model)

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, DepthPruning)
        architecture = architecture_of(model)
        check_uniform(model, architecture)
        blocks = block_names(model)
        removable = list(range(architecture.keeps_first, len(blocks)))
        most = min(len(removable), len(blocks) - 1)
        if config.n_blocks > most:
            first = " and the first must stay" if architecture.keeps_first else ""
            raise ConfigError(
                f"DepthPruning: n_blocks={config.n_blocks} is not accepted for"
                f" {model.source.name}, which has {len(blocks)} blocks{first}; give 1 to {most}."
            )
        dropped, scores = _choose(model, blocks, removable, context, config)
        fact: dict[str, Any] = {"step": config.label, "dropped_blocks": dropped}
        if scores:
            fact["block_scores"] = scores
        return ModelResult(drop_blocks(model, dropped), {"structure": [fact]})


def _choose(
    model: LoadedModel,
    blocks: Sequence[str],
    removable: Sequence[int],
    context: ModelContext,
    config: DepthPruning,
) -> tuple[list[int], list[float]]:
    """Return the blocks to remove, sorted, and a score: per block, or per removal for "loss"."""
    if config.criterion == "last":
        return list(removable)[-config.n_blocks :], []
    if config.criterion == "random":
        generator = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(removable), generator=generator).tolist()
        return sorted(removable[i] for i in order[: config.n_blocks]), []
    assert context.calibrator is not None
    windows = context.calibrator.windows(model)["judge"]
    if not windows:
        raise CalibrationError(
            f"DepthPruning judges blocks by calibration tokens that no solver sees, and there are"
            f" none (judge_tokens={context.calibrator.options.judge_tokens}). Give judge_tokens of"
            " at least one window, or criterion='last'."
        )
    if config.criterion == "influence":
        scores = block_influence(model, blocks, windows, context.monitor)
        least = sorted(removable, key=lambda i: scores[i])[: config.n_blocks]
        return sorted(least), scores
    few = list(itertools.accumulate(map(len, windows)))
    windows = windows[: bisect.bisect_left(few, _LOSS_TOKENS) + 1]
    task = context.calibrator.task
    assert not isinstance(task, CalibrationInputs)  # windows() has refused these
    return _greedy(model, blocks, removable, windows, config.n_blocks, task, context.monitor)


@torch.no_grad()
def block_influence(
    model: LoadedModel,
    blocks: Sequence[str],
    windows: Sequence[list[int]],
    monitor: Monitor,
) -> list[float]:
    """Return 1 − the mean cosine between each block's input and output (ShortGPT, equation 1).

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    blocks : sequence of str
        Module names.
    windows : sequence of list of int
        Tokens; padding does not count.
    monitor : Monitor
        Told after every batch, stage ``"depth"``.
    """
    sums = torch.zeros(len(blocks), dtype=torch.float64)
    n_tokens = 0
    modules = [model.hf_model.get_submodule(name) for name in blocks]
    batches = list(batches_of(model, _examples(windows), BATCH_TOKENS))
    for done, batch in enumerate(batches, 1):
        mask = batch.to(model.device).attention_mask
        with _recording(modules) as states:
            backbone(model.hf_model)(**batch.to(model.device).inputs)
        for index, (before, output) in enumerate(states):
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(in_float64(before), in_float64(after), dim=-1)
            kept = cosine if mask is None else cosine[mask.bool().to(cosine.device)]
            sums[index] += float(kept.sum())
        n_tokens += sum(len(e.tokens) for e in batch.examples)
        monitor.report("depth", done, len(batches), "influence")
    return _finite([float(value) for value in 1 - sums / n_tokens])


@torch.no_grad()
def _greedy(
    model: LoadedModel,
    blocks: Sequence[str],
    removable: Sequence[int],
    windows: Sequence[list[int]],
    n_blocks: int,
    task: Task,
    monitor: Monitor,
) -> tuple[list[int], list[float]]:
    """Remove, one at a time, the block without which the predictions change least (KL, nats)."""
    vocabulary = text_config(model).vocab_size if model.is_decoder else 1
    most = min(BATCH_TOKENS, LOGITS_BYTES // (4 * vocabulary))
    batches = list(batches_of(model, _examples(windows), most))
    modules = [model.hf_model.get_submodule(name) for name in blocks]
    dropped: list[int] = []
    divergences: list[float] = []
    lengths: list[int] = []
    for step in range(n_blocks):
        skipped = {modules[i]: _passing(lengths[i]) for i in dropped}
        candidates = [i for i in removable if i not in dropped]
        sums = dict.fromkeys(candidates, 0.0)
        n_predictions = 0
        for done, batch in enumerate(batches, 1):
            mask = batch.to(model.device).attention_mask
            dense = _predictions(task.logits(model, batch), mask)
            n_predictions += len(dense)
            with _forwards(skipped), _recording(modules) as states:
                task.logits(model, batch)
            lengths = [len(output) if isinstance(output, tuple) else 0 for _, output in states]
            for index in candidates:
                # What lies before the candidate is known, so it is not computed again.
                known = {modules[i]: _giving(states[i][1]) for i in range(index)}
                known[modules[index]] = _giving(_shaped(states[index][0], lengths[index]))
                with _forwards({**skipped, **known}):
                    changed = _predictions(task.logits(model, batch), mask)
                sums[index] += float((dense.exp() * (dense - changed)).sum())
            monitor.report("depth", step * len(batches) + done, n_blocks * len(batches), "loss")
        _finite(list(sums.values()))
        best = min(candidates, key=lambda i: sums[i])
        dropped.append(best)
        divergences.append(sums[best] / n_predictions)
    return sorted(dropped), divergences


def _shaped(hidden: Tensor, length: int) -> Any:
    """Return hidden states as a block does: alone, or first in a tuple of this length."""
    return (hidden, *[None] * (length - 1)) if length else hidden


def _passing(length: int) -> Callable[..., Any]:
    """Return the forward pass of a block that changes nothing."""
    return lambda *args, **kwargs: _shaped(_hidden_in(args, kwargs), length)


def _giving(output: Any) -> Callable[..., Any]:
    """Return the forward pass of a block whose output is known."""
    return lambda *_args, **_kwargs: output


@contextmanager
def _forwards(replaced: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules run other forward passes while the context is open."""
    before = {module: dict(vars(module)) for module in replaced}
    try:
        for module, forward in replaced.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            del vars(module)["forward"]
            if "forward" in own:  # another library has replaced it before
                vars(module)["forward"] = own["forward"]


@contextmanager
def _recording(modules: Sequence[nn.Module]) -> Iterator[list[tuple[Tensor, Any]]]:
    """Collect the hidden states before, and the output of, each module in the open context."""
    states: list[tuple[Tensor, Any]] = []

    def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        states.append((_hidden_in(args, kwargs), output))

    hooks = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield states
    finally:
        for handle in hooks:
            handle.remove()


def _finite(scores: list[float]) -> list[float]:
    if not all(map(math.isfinite, scores)):
        raise CompressionError(
            "The model's outputs are not finite on the calibration data, so its blocks cannot be"
            ' compared. Load it with dtype="float32", or check it with model.generate(...).'
        )
    return scores


def _predictions(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return log-probabilities, (predictions, classes), without padded positions."""
    if logits.ndim == 3:
        logits = logits.flatten(0, 1) if mask is None else logits[mask.bool()]
    return torch.log_softmax(logits.float(), -1)


def _hidden_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(hidden, Tensor):
        raise CompressionError(
            "A block of this model does not take hidden states, so its influence cannot be"
            " measured; give criterion='last'."
        )
    return hidden


def _examples(windows: Sequence[list[int]]) -> list[Example]:
    return [Example(index, index, row) for index, row in enumerate(windows)]
