"""When to believe a model: calibration, confident mistakes, flips, slices and consistency."""

from workbench.selection.trust.calibration import (
    Bin,
    Reliability,
    fit_temperature,
    reliability,
    tempered,
)
from workbench.selection.trust.flip_rates import Flips, confidently_wrong, find_flips
from workbench.selection.trust.perturbations import PERTURBATIONS, Perturbation
from workbench.selection.trust.slices import Slice, length_groups, rank_slices
from workbench.selection.trust.view import Changed, Mistake, TrustView

__all__ = [
    "PERTURBATIONS",
    "Bin",
    "Changed",
    "Flips",
    "Mistake",
    "Perturbation",
    "Reliability",
    "Slice",
    "TrustView",
    "confidently_wrong",
    "find_flips",
    "fit_temperature",
    "length_groups",
    "rank_slices",
    "reliability",
    "tempered",
]
