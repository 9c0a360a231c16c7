"""What is shown of one run's trust: plain numbers and texts that cross a process's border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.selection.trust.calibration import Bin, Reliability
from workbench.selection.trust.slices import Slice

MOST_EXAMPLES = 500
"""So many mistakes, and so many flips, are listed; the rates are of all of them."""


@dataclass(frozen=True)
class Mistake:
    """An example on which a run is wrong and sure of it."""

    text: str
    label: str
    prediction: str
    confidence: float


@dataclass(frozen=True)
class Changed:
    """An example that a run answers differently from its base model.

    Attributes
    ----------
    text, label, dense, run : str
        ``dense`` and ``run`` are the two answers.
    change : {"lost", "gained", "other"}
        "lost" was right and is wrong now.
    """

    text: str
    label: str
    dense: str
    run: str
    change: str


@dataclass(frozen=True)
class TrustView:
    """What :meth:`Study.trust` found about one run.

    Attributes
    ----------
    words : str
        All of it in a few sentences.
    before, after : Reliability
        Of the recorded confidence, and at the temperature.
    temperature, threshold : float
    wrong_rate : float
        Share of examples on which it is wrong and at least ``threshold`` sure.
    wrong_interval, flip_interval : (float, float)
        95 %.
    flip_rate : float
    lost, gained : int
    mistakes : tuple of Mistake
        Surest first, at most ``MOST_EXAMPLES``.
    changed : tuple of Changed
        At most ``MOST_EXAMPLES``.
    slices : tuple of Slice
        Where compression hurt most surely comes first.
    """

    words: str
    before: Reliability
    after: Reliability
    temperature: float
    threshold: float
    wrong_rate: float
    wrong_interval: tuple[float, float]
    flip_rate: float
    flip_interval: tuple[float, float]
    lost: int
    gained: int
    mistakes: tuple[Mistake, ...]
    changed: tuple[Changed, ...]
    slices: tuple[Slice, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the view as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrustView:
        """Return the view that :meth:`to_dict` described."""
        return cls(
            **{
                **data,
                "before": _reliability(data["before"]),
                "after": _reliability(data["after"]),
                "wrong_interval": tuple(data["wrong_interval"]),
                "flip_interval": tuple(data["flip_interval"]),
                "mistakes": tuple(Mistake(**row) for row in data["mistakes"]),
                "changed": tuple(Changed(**row) for row in data["changed"]),
                "slices": tuple(Slice(**row) for row in data["slices"]),
            }
        )


def _reliability(data: Mapping[str, Any]) -> Reliability:
    return Reliability(**{**data, "bins": tuple(Bin(**one) for one in data["bins"])})
