"""Width pruning: remove neurons and heads by what they add, and refit the layers behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.calibration.calibrate import Statistics
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.load import LoadedModel
from workbench.models.structure import (
    Attention,
    architecture_of,
    block_names,
    changed_config,
    rebuild,
    text_config,
)
from workbench.recipes import Step, WidthPruning
from workbench.tensors.least_squares import input_energy, refit, relative_error

_MULTIPLES = (32, 16, 1)
"""What the number of neurons is made a multiple of, the first that fits: packed kernels read
groups of 32 weights and write 16 rows at once."""

_SLACK = 1 / 16
"""Most that rounding may keep beyond what was asked for, as a share of all neurons."""


class WidthPruner(ModelMethod):
    """The same number of neurons and heads goes from every block, so that a configuration fits."""

    step: ClassVar[type[Step]] = WidthPruning
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})
    changes_architecture: ClassVar[bool] = True

    def check(self, model: LoadedModel, config: Step) -> None:
        architecture_of(model)

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, WidthPruning)
        pruning = _Pruning(model, context, config)
        if config.heads:
            pruning.remove_heads()
        if config.neurons:
            pruning.remove_neurons()
        smaller = rebuild(model, pruning.changes, pruning.tensors)
        return ModelResult(smaller, {"structure": [pruning.fact]})


class _Pruning:
    """The tensors, configuration fields and facts of one step, as they come together."""

    def __init__(self, model: LoadedModel, context: ModelContext, config: WidthPruning) -> None:
        self._model, self._context, self._config = model, context, config
        self._architecture = architecture_of(model)
        self._blocks = block_names(model)
        self._random = torch.Generator().manual_seed(config.seed)
        self._statistics: Statistics | None = None
        if config.compensate or config.criterion == "activation":
            assert context.calibrator is not None
            self._statistics = context.calibrator.statistics(
                context.origin, monitor=context.monitor
            )
        self.tensors: dict[str, Tensor] = dict(model.hf_model.state_dict())
        self.changes: dict[str, Any] = {}
        self.fact: dict[str, Any] = {"step": config.label, "output_errors": {}}

    def remove_neurons(self) -> None:
        layers = self._architecture.feed_forward
        if layers is None:
            raise UnsupportedArchitectureError(
                f"The neurons of {self._model.source.name} are spread over experts, which"
                " WidthPruning does not cut. DepthPruning removes whole blocks, and the quantizing"
                " steps make experts smaller."
            )
        n_all = self._shape(layers.output)[1]
        rounded = round_kept(n_all, self._config.ratio)
        if rounded is None:
            raise ConfigError(
                f"WidthPruning: ratio={self._config.ratio:g} removes none of the {n_all} neurons of"
                f" a block of {self._model.source.name}; give at least {1 / n_all:.2g}."
            )
        for done, block in enumerate(self._blocks, 1):
            keep = self._cut_columns(f"{block}.{layers.output}", rounded.kept)
            rows = torch.cat([keep + part * n_all for part in range(layers.parts)])
            for inputs in layers.inputs:
                self._cut_rows(f"{block}.{inputs}", rows)
            self._context.monitor.report("width", done, len(self._blocks), f"{block} neurons")
        self.changes[layers.size] = rounded.kept
        self.fact["neurons"] = [n_all, rounded.kept]
        self.fact["neurons_rounded_to"] = rounded.multiple

    def remove_heads(self) -> None:
        layers = self._architecture.attention
        config = text_config(self._model)
        if layers is None:
            raise UnsupportedArchitectureError(
                f"The configuration of {self._model.source.name} ({type(config).__name__}) cannot"
                " state fewer heads of the same size: its head size is the hidden size divided by"
                " the number of heads. Give heads=False; neurons can be removed."
            )
        n_heads = config.num_attention_heads
        n_shared = getattr(config, "num_key_value_heads", None) or n_heads
        size = self._shape(layers.output)[1] // n_heads
        per_group = n_heads // n_shared
        kept = self._accepted_groups(n_shared, per_group, size)
        for done, block in enumerate(self._blocks, 1):
            name = f"{block}.{layers.output}"
            columns = self._cut_columns(name, kept, per_group * size)
            groups = columns[:: per_group * size] // (per_group * size)
            self._cut_projections(block, layers, columns, _spread(groups, size), n_heads * size)
            self._context.monitor.report("width", done, len(self._blocks), f"{block} heads")
        self.changes |= _heads(kept, per_group, size)
        self.fact["heads"] = [n_heads, kept * per_group]
        self.fact["key_value_heads"] = [n_shared, kept]

    def _cut_projections(
        self, block: str, layers: Attention, queries: Tensor, shared: Tensor, n_queries: int
    ) -> None:
        rows = [queries, shared, shared]
        if len(layers.projections) == 1:
            n_shared = (self._shape(layers.projections[0])[0] - n_queries) // 2
            rows = [torch.cat([queries, n_queries + shared, n_queries + n_shared + shared])]
        for projection, chosen in zip(layers.projections, rows, strict=True):
            self._cut_rows(f"{block}.{projection}", chosen)

    def _shape(self, suffix: str) -> tuple[int, int]:
        """Return (out_features, in_features) of a layer, the same in every block."""
        return self._model.site(f"{self._blocks[0]}.{suffix}").shape

    def _accepted_groups(self, n_shared: int, per_group: int, size: int) -> int:
        """Return how many groups of heads stay: as few as asked, or more if that is refused."""
        accepted = []
        for kept in range(1, n_shared):
            try:
                changed_config(self._model, _heads(kept, per_group, size))
            except UnsupportedArchitectureError:
                continue
            accepted.append(kept)
        wanted = [k for k in accepted if k >= n_shared * (1 - self._config.ratio) - 1e-9]
        if wanted:
            return min(wanted)
        name = self._model.source.name
        if not accepted:
            raise UnsupportedArchitectureError(
                f"{name} has {n_shared} key-value head{'s' * (n_shared > 1)}, which heads share and"
                " go with, and its configuration accepts no smaller number; give heads=False."
            )
        ratios = ", ".join(f"{1 - k / n_shared:.3g}" for k in reversed(accepted))
        raise ConfigError(
            f"WidthPruning: ratio={self._config.ratio:g} removes no heads of {name}: of its"
            f" {n_shared} key-value heads (of {per_group} heads each) its configuration accepts"
            f" {', '.join(map(str, reversed(accepted)))}. Give heads=False, or one of the ratios"
            f" {ratios} (in a step of its own with neurons=False, if neurons are to lose less)."
        )

    def _cut_columns(self, name: str, n_kept: int, group: int = 1) -> Tensor:
        """Choose the inputs of a layer that stay (``n_kept`` groups of them), cut and refit it."""
        weight = self._model.site(name).matrix.cpu()
        gram = self._gram(name, "solve")
        if self._config.criterion == "random":
            scores = torch.rand(weight.shape[1] // group, generator=self._random)
        else:
            assert gram is not None
            scores = input_energy(weight, gram, group)
        best = torch.argsort(scores, descending=True, stable=True)[:n_kept]
        keep = _spread(best.sort().values, group)
        cut = weight[:, keep]
        if self._config.compensate:
            assert gram is not None
            cut = refit(weight, gram, keep, damping=self._config.damping)
            cut = cut.to(self._model.stored_dtype).float()  # computed with as it will be stored
        self._put(name, cut)
        if gram is not None:
            judged = self._gram(name, "judge")
            assert judged is not None
            self.fact["output_errors"][name] = relative_error(weight, judged, keep, cut)
        return keep

    def _cut_rows(self, name: str, rows: Tensor) -> None:
        self._put(name, self._model.site(name).matrix.cpu()[rows])
        bias = f"{name}.bias"
        if bias in self.tensors:
            self.tensors[bias] = self.tensors[bias][rows.to(self._model.device)]

    def _put(self, name: str, matrix: Tensor) -> None:
        site = self._model.site(name)
        self.tensors[f"{name}.weight"] = (matrix.T if site.transposed else matrix).to(site.stored)

    def _gram(self, name: str, half: str) -> Tensor | None:
        """Return the mean gram matrix of a layer's input."""
        if self._statistics is None:
            return None
        key = next(g.key for g in self._statistics.groups if name in g.names)
        gram: Tensor = getattr(self._statistics[key], half).mean_gram
        return gram


@dataclass(frozen=True)
class Rounded:
    """How many of something stay, and what that number is a multiple of."""

    kept: int
    multiple: int


def round_kept(n_all: int, ratio: float) -> Rounded | None:
    """Return how many of a block's neurons stay: never fewer than asked for.

    Parameters
    ----------
    n_all : int
        Neurons before.
    ratio : float
        Share to remove.

    Returns
    -------
    Rounded or None
        A multiple of 32 or 16 where that keeps at most a sixteenth more of all neurons than asked
        for; None where nothing would be removed.
    """
    wanted = max(1, math.ceil(n_all * (1 - ratio) - 1e-9))
    for multiple in _MULTIPLES:
        kept = math.ceil(wanted / multiple) * multiple
        if kept < n_all and kept - wanted <= _SLACK * n_all:
            return Rounded(kept, multiple)
    return None


def _spread(groups: Tensor, size: int) -> Tensor:
    """Return the members of groups of consecutive indices."""
    return (groups[:, None] * size + torch.arange(size)).reshape(-1)


def _heads(kept: int, per_group: int, size: int) -> dict[str, int]:
    """Return the configuration of so many groups of heads."""
    return {
        "num_attention_heads": kept * per_group,
        "num_key_value_heads": kept,
        "head_dim": size,
    }
