"""What one calibration pass leaves behind: sums over tokens at every shared input."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.tensors.linalg import InverseFactor, inverse_factor


@dataclass(frozen=True)
class InputStatistics:
    """Sums over the tokens that entered a linear layer. Two of them merge by addition.

    Attributes
    ----------
    gram : Tensor of shape (in_features, in_features), float32
        Σ x xᵀ.
    abs_sum : Tensor of shape (in_features,), float32
        Σ |x|.
    n_tokens : int
        Tokens in the sums; padding is never counted.
    """

    gram: Tensor
    abs_sum: Tensor
    n_tokens: int

    def __add__(self, other: InputStatistics) -> InputStatistics:
        return InputStatistics(
            self.gram + other.gram, self.abs_sum + other.abs_sum, self.n_tokens + other.n_tokens
        )

    @classmethod
    def uncorrelated(cls, in_features: int) -> InputStatistics:
        """Return what is assumed of inputs nobody saw: all of size one, none like another."""
        return cls(torch.eye(in_features), torch.ones(in_features), 1)

    @property
    def mean_gram(self) -> Tensor:
        """Mean of x xᵀ per token."""
        return self.gram / max(self.n_tokens, 1)

    @property
    def abs_mean(self) -> Tensor:
        """Mean of |x| per token."""
        return self.abs_sum / max(self.n_tokens, 1)


@dataclass(frozen=True)
class GroupStatistics:
    """Statistics at one shared input, in two halves of disjoint data.

    Attributes
    ----------
    solve : InputStatistics
        What solvers may see.
    judge : InputStatistics
        What predictions and error reports are made with.
    """

    solve: InputStatistics
    judge: InputStatistics
    _factors: dict[tuple[float, bool], InverseFactor] = field(
        default_factory=dict, repr=False, compare=False
    )

    def without_solve(self) -> GroupStatistics:
        """Return statistics whose solvers learn nothing of the inputs; the judge's stay.

        With them GPTQ rounds to nearest, and Wanda and SparseGPT prune by magnitude.
        """
        return GroupStatistics(InputStatistics.uncorrelated(len(self.solve.gram)), self.judge)

    def inverse_factor(self, *, damping: float, act_order: bool) -> InverseFactor:
        """Return the factor for GPTQ, computed once per damping and order (see linalg)."""
        key = (damping, act_order)
        if key not in self._factors:
            self._factors[key] = inverse_factor(
                self.solve.mean_gram, damping=damping, act_order=act_order
            )
        return self._factors[key]


@dataclass(frozen=True)
class OutputGram:
    """Σ g gᵀ of the loss's gradient g at a layer's output: the Fisher's other factor.

    A wide layer keeps the diagonal blocks alone, so that memory grows with its width and not with
    the square: rows in different blocks are taken as independent.

    Attributes
    ----------
    blocks : Tensor of shape (n_blocks, block_size, block_size), float32
        The last one is padded with zeros.
    n_predictions : int
        Predictions whose losses were differentiated.
    out_features : int
    """

    blocks: Tensor
    n_predictions: int
    out_features: int

    def divergence(self, delta: Tensor, mean_gram: Tensor) -> float:
        """Return tr(G ΔW H ΔWᵀ) / (2 · predictions), with G a sum and H a mean over the same rows.

        To second order this is the KL divergence per prediction from the model to the one whose
        weight is changed by ΔW (Martens 2020, section 5), in nats.

        Parameters
        ----------
        delta : Tensor of shape (out_features, in_features), float32
        mean_gram : Tensor of shape (in_features, in_features), float32
            Mean of x xᵀ per row.
        """
        outer = delta @ mean_gram
        width = self.blocks.shape[1]
        total = 0.0
        for index, block in enumerate(self.blocks):
            rows = slice(index * width, min((index + 1) * width, self.out_features))
            n = rows.stop - rows.start
            total += float(((block[:n, :n] @ outer[rows]) * delta[rows]).sum())
        return 0.5 * total / max(self.n_predictions, 1)
