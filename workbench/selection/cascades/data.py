"""A cascade as plain data and back, for whoever computes it and whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from workbench.selection.cascades.cascade import Cascade, CascadePoint
from workbench.selection.cascades.latency import Percentiles
from workbench.tasks.uncertainty import Difference


def cascade_data(found: Cascade) -> dict[str, Any]:
    """Return a cascade as plain data; thresholds that pass everything on are infinite."""
    return asdict(found)


def cascade_of(data: Mapping[str, Any]) -> Cascade:
    """Return the cascade that :func:`cascade_data` described."""
    return Cascade(
        **{
            **data,
            "tiers": tuple(data["tiers"]),
            "costs": tuple(data["costs"]),
            "validation": _point(data["validation"]),
            "evaluation": _point(data["evaluation"]),
            "accuracy_interval": tuple(data["accuracy_interval"]),
            "share_interval": tuple(data["share_interval"]),
            "curve": tuple(_point(point) for point in data["curve"]),
            "difference": Difference(**data["difference"]),
            "alone": tuple(_point(point) for point in data["alone"]),
        }
    )


def _point(data: Mapping[str, Any]) -> CascadePoint:
    times = data["percentiles"]
    return CascadePoint(
        **{
            **data,
            "thresholds": tuple(data["thresholds"]),
            "shares": tuple(data["shares"]),
            "percentiles": None if times is None else Percentiles(**times),
        }
    )
