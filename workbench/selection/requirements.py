"""What a run must do to be chosen: the bar, as one plain record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from workbench.errors import ConfigError
from workbench.selection.cost import CostModel


@dataclass(frozen=True)
class Requirements:
    """A bar for quality, passed with confidence unless that is None, and limits.

    Parameters
    ----------
    accuracy : float, optional
        The least acceptable quality. Relative: a share of the base model's (0.97 for 97 %; of a
        metric where lower is better it may be at most the base model's divided by the share).
        Absolute: a value of the metric itself.
    relative : bool
        Whether ``accuracy`` is a share of the base model's.
    size_bytes, latency_ms, memory_bytes : float, optional
        The most that is acceptable; the last two must have been measured.
    cost_per_1k_usd : float, optional
        Most dollars for 1,000 queries; needs ``cost``.
    cost : CostModel, optional
        Your prices.
    confidence : float or None
        1 minus the chance that is accepted of choosing a run that truly fails ``accuracy``,
        however many runs there are to choose from. None: its measured value decides.

    Raises
    ------
    ConfigError
        If nothing is asked for, or a number has no meaning.

    Examples
    --------
    >>> print(Requirements(0.97, size_bytes=4e6))
    at least 97 % of the base model's quality, at most 4.00 MB; with 95 % confidence
    """

    accuracy: float | None = None
    relative: bool = True
    size_bytes: float | None = None
    latency_ms: float | None = None
    memory_bytes: float | None = None
    cost_per_1k_usd: float | None = None
    cost: CostModel | None = None
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        limits = {
            "accuracy": "a number above 0, such as 0.97 for 97 % of the base model's quality",
            "size_bytes": "a number above 0, in bytes, such as 5e6 for 5 MB",
            "latency_ms": "a number above 0, in milliseconds",
            "memory_bytes": "a number above 0, in bytes",
            "cost_per_1k_usd": "a number above 0, in dollars",
        }
        if all(getattr(self, name) is None for name in limits):
            raise ConfigError(
                "Requirements() asks for nothing: give accuracy=0.97 (a share of the base"
                " model's), size_bytes=…, latency_ms=…, memory_bytes=… or cost_per_1k_usd=…."
            )
        for name, accepted in limits.items():
            value = getattr(self, name)
            if value is None:
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            free = name == "accuracy" and not self.relative
            if not is_number or not math.isfinite(value) or (value <= 0 and not free):
                wanted = "a finite value of the metric" if free else accepted
                raise ConfigError(f"{name}={value!r} is not accepted; give {wanted}.")
        if self.accuracy is not None and self.relative and self.accuracy > 2:
            raise ConfigError(
                f"accuracy={self.accuracy:g} is a share of the base model's and would ask for"
                f" {self.accuracy:g} times its quality; for {self.accuracy:g} % give"
                f" {self.accuracy / 100:g}, for a value of the metric give relative=False."
            )
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            raise ConfigError(
                f"confidence={self.confidence!r} is not accepted; give a number from 0.5 up to,"
                " but not 1, such as 0.95, or None to judge by the measured value."
            )
        if self.cost_per_1k_usd is not None and self.cost is None:
            raise ConfigError(
                f"cost_per_1k_usd={self.cost_per_1k_usd:g} needs your prices: give"
                " cost=CostModel(price_per_hour_usd=…) too."
            )

    def __str__(self) -> str:
        parts = []
        if self.accuracy is not None and self.relative:
            parts.append(f"at least {100 * self.accuracy:g} % of the base model's quality")
        elif self.accuracy is not None:
            parts.append(f"a quality of {self.accuracy:g} or better")
        if self.size_bytes is not None:
            parts.append(f"at most {self.size_bytes / 1e6:.2f} MB")
        if self.latency_ms is not None:
            parts.append(f"at most {self.latency_ms:g} ms")
        if self.memory_bytes is not None:
            parts.append(f"at most {self.memory_bytes / 1e6:.2f} MB of memory")
        if self.cost_per_1k_usd is not None:
            parts.append(f"at most {self.cost_per_1k_usd:g} dollars for 1,000 queries")
        text = ", ".join(parts)
        if self.accuracy is not None and self.confidence is not None:
            text += f"; with {100 * self.confidence:g} % confidence"
        return text
