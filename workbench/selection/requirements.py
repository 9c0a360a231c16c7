"""What a run must do to be chosen: the bar, as one plain record."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.fields import flag, number, shown
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
    reference : str, optional
        Id of the run that ``accuracy`` is a share of, such as a fine-tuned teacher's. None: the
        base model.

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
    reference: str | None = None

    def __post_init__(self) -> None:
        units = {
            "accuracy": "such as 0.97 for 97 % of the base model's quality",
            "size_bytes": "bytes, such as 5e6 for 5 MB",
            "latency_ms": "milliseconds",
            "memory_bytes": "bytes",
            "cost_per_1k_usd": "dollars",
        }
        object.__setattr__(self, "relative", flag("Requirements", "relative", self.relative))
        if all(getattr(self, name) is None for name in units):
            raise ConfigError(
                "Requirements() asks for nothing: give accuracy=0.97 (a share of the base"
                " model's), size_bytes=…, latency_ms=…, memory_bytes=… or cost_per_1k_usd=…."
            )
        for name, unit in units.items():
            least = None if name == "accuracy" and not self.relative else 0
            given, meaning = getattr(self, name), "no limit"
            value = number("Requirements", name, given, above=least, unit=unit, none_means=meaning)
            object.__setattr__(self, name, value)
        if self.accuracy is not None and self.relative and self.accuracy >= 2:
            raise ConfigError(
                f"accuracy={self.accuracy:g} is a share of the base model's and would ask for"
                f" {self.accuracy:g} times its quality; for {self.accuracy:g} % give"
                f" {self.accuracy / 100:g}, for a value of the metric give relative=False."
            )
        sure = number(
            "Requirements",
            "confidence",
            self.confidence,
            minimum=0.5,
            below=1,
            none_means="judging by the measured value",
        )
        object.__setattr__(self, "confidence", sure)
        if self.cost is not None and not isinstance(self.cost, CostModel):
            raise ConfigError(
                f"Requirements: cost={shown(self.cost)} is not accepted; give CostModel(…)."
            )
        run = getattr(self.reference, "id", self.reference)  # a run stands for its id
        object.__setattr__(self, "reference", run)
        if run is not None and not isinstance(run, str):
            raise ConfigError(
                f"Requirements: reference={shown(run)} is not accepted; give a run, or its id."
            )
        if run is not None and not self.relative:
            raise ConfigError(
                f"Requirements: reference={run!r} with relative=False is not accepted: a value of"
                " the metric itself refers to no run. Leave one of the two out."
            )
        if self.cost_per_1k_usd is not None and self.cost is None:
            raise ConfigError(
                f"cost_per_1k_usd={self.cost_per_1k_usd:g} needs your prices: give"
                " cost=CostModel(price_per_hour_usd=…) too."
            )

    def __str__(self) -> str:
        parts = []
        if self.accuracy is not None and self.relative:
            whose = "the base model" if self.reference is None else f"run {self.reference}"
            parts.append(f"at least {100 * self.accuracy:g} % of {whose}'s quality")
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
