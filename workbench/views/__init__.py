"""What comparisons of runs show, computed before anything is drawn: one view per file."""

from workbench.views.confusion import Confusion, confusion
from workbench.views.differences import differences
from workbench.views.flips import Flip, FlipsView, flips
from workbench.views.layers import LayerErrors, WeightHistogram
from workbench.views.sensitivity import Sensitivity

__all__ = [
    "Confusion",
    "Flip",
    "FlipsView",
    "LayerErrors",
    "Sensitivity",
    "WeightHistogram",
    "confusion",
    "differences",
    "flips",
]
