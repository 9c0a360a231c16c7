"""What a method is: a pure function from weights and statistics to compressed weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.calibration.calibrate import Calibrator
from workbench.models.finite import check_weight
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.recipes import Step
from workbench.tensors.statistics import GroupStatistics
from workbench.tensors.weights import CompressedWeight
from workbench.training import CheckpointFile


@dataclass(frozen=True)
class GroupWeights:
    """The weights of linear layers that share an input.

    Attributes
    ----------
    weights : mapping of name to Tensor of shape (out_features, in_features), float32
    masks : mapping of name to Tensor of bool
        For layers that were pruned before: True where a weight was kept.
    dtype : torch.dtype
        What dense values are stored in.
    originals : mapping of name to Tensor of shape (out_features, in_features), float32
        The weights before any step compressed them; the statistics are those of this model.
    compressed : mapping of name to CompressedWeight
        What the steps before left, of the layers that are compressed already; ``weights`` holds
        its dense values.

    Raises
    ------
    NotFiniteError
        If a weight is infinite or not a number: rounding would hide it.
    """

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    dtype: torch.dtype = torch.float32
    originals: Mapping[str, Tensor] = field(default_factory=dict)
    compressed: Mapping[str, CompressedWeight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_weight(name, weight)

    def stacked(self) -> Tensor:
        """Return all rows as one matrix (sum of out_features, in_features)."""
        return torch.cat(list(self.weights.values()))

    def stacked_mask(self) -> Tensor | None:
        """Return the masks as one matrix like :meth:`stacked`, or None if nothing is pruned."""
        if not self.masks:
            return None
        return torch.cat(
            [
                self.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
                for name, weight in self.weights.items()
            ]
        )

    def split(self, stacked: Tensor) -> dict[str, Tensor]:
        """Cut a matrix with the rows of :meth:`stacked` into the layers' own."""
        parts = stacked.split([len(w) for w in self.weights.values()])
        return dict(zip(self.weights, parts, strict=True))


class LayerMethod(ABC):
    """A method that compresses the layers of one shared input at a time.

    ``step`` is the step that it carries out. ``version`` changes whenever the result for equal
    inputs changes; ``needs`` names the statistics that must have been collected, such as
    ``{"gram"}``.
    """

    step: ClassVar[type[Step]]
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    tokens_per_input: ClassVar[float] = 1.0
    """Below so many tokens per input an expert's statistics are not used, and the run says so.

    Measured on the bundled model (3 bits, groups of 32, 8 shared inputs), output error on unseen
    tokens relative to round to nearest, median and worst. GPTQ with K/2 tokens for K inputs: 1.00
    and 2.2; K: 0.71 and 1.95; 2K: 0.51 and 1.1. AWQ, which learns little more than a scale per
    input, with K/16: 0.83 and 1.04; K/8: 0.77 and 0.99; K: 0.71 and 0.82.
    """

    def prepared(self, weights: Iterable[Tensor], config: Step) -> LayerMethod:
        """Return the solver for one model; most methods need not see all of its weights first."""
        return self

    def acting(self, names: Sequence[str], config: Step) -> LayerMethod | None:
        """Return the method that solves a group's layers; None if they are left as they are."""
        return self

    @abstractmethod
    def solve(
        self, group: GroupWeights, statistics: GroupStatistics | None, config: Step
    ) -> dict[str, CompressedWeight]:
        """Return a compressed weight for every layer of the group; mutates nothing.

        Parameters
        ----------
        group : GroupWeights
        statistics : GroupStatistics or None
            None only where ``needs`` is empty.
        config : Step
            Of the type that the method is listed under.

        Raises
        ------
        CompressionError
            If no usable weight can be found; never a silent fallback.
        """

    def together(self, config: Step) -> Hashable | None:
        """Return what configurations agree in that are solved faster together.

        None where nothing is gained by it.
        """
        return None

    def solve_many(
        self,
        group: GroupWeights,
        statistics: GroupStatistics | None,
        configs: Sequence[Step],
    ) -> list[dict[str, CompressedWeight]]:
        """Return what :meth:`solve` returns for each configuration, to the last bit.

        Parameters
        ----------
        group, statistics
            As for :meth:`solve`.
        configs : sequence of Step
            At least one; :meth:`together` gives the same for all of them.
        """
        return [self.solve(group, statistics, config) for config in configs]


@dataclass(frozen=True)
class ModelContext:
    """What a method that works on whole models may read beside the model.

    Attributes
    ----------
    origin : LoadedModel
        The model that statistics refer to: the dense one, or what the last step left that changed
        the architecture.
    calibrator : Calibrator or None
        None only where the method's ``needs`` is empty.
    monitor : Monitor
        To report to, and to be cancelled by.
    make_teacher : callable, optional
        Returns what :meth:`teacher` does; called only where a step learns from it.
    load_run : callable, optional
        Returns the model of a study's run by its id.
    checkpoint : CheckpointFile or None
        Where a training keeps its state; None to keep none.
    """

    origin: LoadedModel
    calibrator: Calibrator | None = None
    monitor: Monitor = SILENT
    make_teacher: Callable[[], LoadedModel] | None = None
    load_run: Callable[[str], LoadedModel] | None = None
    checkpoint: CheckpointFile | None = None

    def teacher(self) -> LoadedModel:
        """Return the model before it was made smaller: the base, or its leading fine-tuning's."""
        return self.origin if self.make_teacher is None else self.make_teacher()


@dataclass(frozen=True)
class ModelResult:
    """A changed model, and JSON-ready facts for the run's record."""

    model: LoadedModel
    facts: dict[str, Any] = field(default_factory=dict)


class ModelMethod(ABC):
    """A method that needs the whole model at once: structure, formats, training.

    ``step``, ``version`` and ``needs`` are as in :class:`LayerMethod`, and ``needs`` may also name
    ``"windows"``, the calibration tokens themselves; ``changes_architecture`` says that shapes or
    the number of blocks change, ``trains`` that the model learns; statistics of the model before do
    not apply after either.
    """

    step: ClassVar[type[Step]]
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    changes_architecture: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    @property
    def renews_statistics(self) -> bool:
        """Whether statistics have to be collected again for the steps that follow."""
        return self.changes_architecture or self.trains

    def check(self, model: LoadedModel, config: Step) -> None:
        """Raise what :meth:`apply` would for any model of this architecture, before all steps."""
        return

    @abstractmethod
    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        """Return a new model; mutates nothing.

        Parameters
        ----------
        model : LoadedModel
            What the steps before left.
        context : ModelContext
        config : Step
            Of the type that the method is listed under.

        Raises
        ------
        CompressionError
            If no usable model can be made; never a silent fallback.
        """
