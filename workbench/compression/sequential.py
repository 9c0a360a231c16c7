"""Solve block by block, each with the inputs that the compressed blocks before it give."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from workbench.calibration.calibrate import Calibrator
from workbench.calibration.calibration_data import token_masks
from workbench.calibration.input_sums import InputSums
from workbench.compression.layerwise import layer_errors, solve_group
from workbench.errors import CalibrationError, UnsupportedArchitectureError
from workbench.methods import LAYER_METHODS
from workbench.models.architectures import backbone
from workbench.models.input_hooks import listening
from workbench.models.layers import LinearGroup, block_sides, find_blocks, left_dense
from workbench.models.loaded import LoadedModel
from workbench.models.weight_access import find_site
from workbench.progress import Monitor
from workbench.recipes import Step
from workbench.tensors.products import fast_products
from workbench.tensors.statistics import GroupStatistics, InputStatistics


@torch.no_grad()
@fast_products()
def apply_sequentially(
    dense: LoadedModel,
    model: LoadedModel,
    step: Step,
    calibrator: Calibrator,
    facts: dict[str, Any],
    monitor: Monitor,
) -> None:
    """Compress every linear layer of ``model`` in place, in the order of the forward pass.

    The statistics of a shared input are collected when it is reached, from the model as it is
    compressed by then (Frantar et al. 2023, section 4, "true sequential" within a block). The
    hidden states of all solve windows, in the model's dtype, and what else the blocks are called
    with (attention masks) stay in memory meanwhile. Every block runs once per shared input, as
    far as that, and once more to the end. An encoder-decoder's encoder comes first, then its
    decoder, with what the compressed encoder gives.

    Parameters
    ----------
    dense : LoadedModel
        What ``layer_errors`` are relative to, as in
        :func:`workbench.compression.layerwise.apply_layer_method`: judged with the dense
        model's statistics.
    model : LoadedModel
        Changed.
    step : Step
        Of a type in :data:`workbench.methods.LAYER_METHODS`.
    calibrator : Calibrator
        Gives the windows.
    facts : dict
        What happened is added to it.
    monitor : Monitor
        Reports a stage by groups of layers; may cancel between batches.

    Raises
    ------
    UnsupportedArchitectureError
        If something other than the blocks, one after the other, changes the hidden states.
    CalibrationError
        If a layer's inputs are not finite.
    """
    statistics = calibrator.statistics(dense, monitor=monitor)
    method = LAYER_METHODS[type(step)]
    if left := left_dense(model.hf_model, statistics.groups):
        facts["left_dense"] = left
    batches = calibrator.batches(dense)["solve"]
    errors: dict[str, float] = {}
    done = 0
    # A decoder's blocks read what the encoder gives by then, so the model is run again for them.
    for side in dict.fromkeys(block_sides(model.hf_model).values()):
        hidden = _HiddenStates(model, statistics.groups, batches, side, monitor)
        for block in hidden.blocks:
            for stage in hidden.stages(block):
                solves = hidden.collect(block, stage, monitor)
                for group in stage:
                    judge = statistics[group.key].judge
                    own = GroupStatistics(solves[group.key], judge)
                    solve_group(method, dense, model, group, own, step, facts)
                    if judge.n_tokens:
                        errors |= layer_errors(dense, model, group, judge.mean_gram)
                    done += 1
                    monitor.report(step.title.lower(), done, len(statistics.groups), group.key)
            hidden.advance(block, monitor)
    facts["layer_errors"] = errors


@dataclass(frozen=True)
class _Call:
    """What a block was called with, but for its hidden states, which come first."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str | None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Call, Tensor]:
        """Return the call and its hidden states."""
        if args:
            return cls(args[1:], kwargs, None), args[0]
        name = next(iter(kwargs))
        return cls((), {k: v for k, v in kwargs.items() if k != name}, name), kwargs[name]

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        if self.name is None:
            return _first(block(hidden, *self.args, **self.kwargs))
        return _first(block(**{self.name: hidden}, **self.kwargs))


def _first(output: Any) -> Tensor:
    """Return the hidden states of a block's output, which some give in a tuple."""
    found = output[0] if isinstance(output, (tuple, list)) else output
    assert isinstance(found, Tensor)
    return found


class _Reached(Exception):
    """No error: what follows in the block need not be computed."""


class _HiddenStates:
    """What enters the next block of one side, batch by batch, and how every block is called.

    Attributes
    ----------
    blocks : tuple of str
        In the order of the forward pass.
    """

    def __init__(
        self,
        model: LoadedModel,
        groups: Sequence[LinearGroup],
        batches: Sequence[Mapping[str, Tensor]],
        side: str,
        monitor: Monitor,
    ) -> None:
        self._model = model
        sides = block_sides(model.hf_model)
        self._modules = {
            name: block
            for name, block in find_blocks(model.hf_model).items()
            if sides[name] == side
        }
        self._batches = batches
        self._calls: dict[str, list[_Call]] = {}
        self._states: list[Tensor] = []
        self._order: Counter[str] = Counter()  # how often each group is read, in this order
        reads: list[str] = []
        self._groups = {group.key: group for group in groups}
        with listening(model.hf_model, groups, lambda key, *_: reads.append(key)):
            for index, batch in enumerate(batches):
                self._record(batch, check=index == 0)
                if index == 0:
                    self._order = Counter(reads)
                monitor.check()
        for key in [*reads, *self._groups]:  # experts that the first batch did not reach
            self._order.setdefault(key, 0)
        self.blocks = tuple(self._calls)

    def _record(self, batch: Mapping[str, Tensor], *, check: bool) -> None:
        """Run the model once, and keep how its blocks are called."""
        passed: list[tuple[str, Tensor, Tensor]] = []

        def hook_for(name: str) -> Any:
            def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                call, hidden = _Call.of(args, kwargs)
                self._calls.setdefault(name, []).append(call)
                if name == next(iter(self._calls)):
                    self._states.append(hidden)
                if check:
                    passed.append((name, hidden, _first(output)))

            return hook

        hf_model = self._model.hf_model
        hooks = [
            block.register_forward_hook(hook_for(name), with_kwargs=True)
            for name, block in self._modules.items()
        ]
        run = backbone(hf_model)
        # A block that runs again would add its keys and values to a cache again.
        takes_cache = "use_cache" in inspect.signature(run.forward).parameters
        options = {"use_cache": False} if takes_cache else {}
        try:
            run(**{n: t.to(self._model.device) for n, t in batch.items()}, **options)
        finally:
            for hook in hooks:
                hook.remove()
        for (before, _, given), (after, taken, _) in pairwise(passed):
            if given.shape != taken.shape or not torch.equal(given, taken):
                raise UnsupportedArchitectureError(
                    f"{type(hf_model).__name__} changes the hidden states between {before} and"
                    f" {after}, so its blocks cannot be solved one after the other. Leave"
                    " sequential at False for this model."
                )

    def stages(self, block: str) -> list[list[LinearGroup]]:
        """Return the groups of a block in the order of the forward pass.

        Experts' matrices of one kind come together: none of them feeds another one.
        """
        found: dict[object, list[LinearGroup]] = {}
        for key in self._order:
            group = self._groups[key]
            if group.block == block:
                site = find_site(self._model.hf_model, key)
                kind = (site.owner, site.parameter) if group.routed else key
                found.setdefault(kind, []).append(group)
        return list(found.values())

    def collect(
        self, block: str, stage: Sequence[LinearGroup], monitor: Monitor
    ) -> dict[str, InputStatistics]:
        """Return the sums over what enters some groups of the block as it is now."""
        sums = {
            group.key: (
                torch.zeros(group.in_features, group.in_features),
                torch.zeros(group.in_features),
            )
            for group in stage
        }
        sink = InputSums(sums, {group.key: group.side for group in stage})
        module = self._model.hf_model.get_submodule(block)
        left = 0

        def add(key: str, x: Tensor, tokens: Tensor | None = None) -> None:
            nonlocal left
            sink.add(key, x, tokens)
            left -= 1
            if not left:
                raise _Reached

        with listening(self._model.hf_model, stage, add):
            for batch, call, state in zip(
                self._batches, self._calls[block], self._states, strict=True
            ):
                sink.begin_batch(token_masks(batch))
                # Which experts are read differs between batches: then the block runs to its end.
                left = -1 if stage[0].routed else self._order[stage[0].key]
                with suppress(_Reached):
                    call(module, state)
                monitor.check()
        sink.finish()
        for key, (gram, _) in sums.items():
            if not bool(torch.isfinite(gram).all()):
                raise CalibrationError(
                    f"The inputs of {key} are not finite once the blocks before it are compressed."
                    " Give more bits, or leave sequential at False."
                )
        return {
            key: InputStatistics(gram, abs_sum, sink.counts[key])
            for key, (gram, abs_sum) in sums.items()
        }

    def advance(self, block: str, monitor: Monitor) -> None:
        """Replace the hidden states by what the block makes of them; forget its calls."""
        module = self._model.hf_model.get_submodule(block)
        for index, call in enumerate(self._calls.pop(block)):
            self._states[index] = call(module, self._states[index])
            monitor.check()
