"""Send easy cases to a small model and hard ones on to a larger."""

from workbench.selection.cascades.cascade import Cascade, CascadePoint, Tier, cascade, facts
from workbench.selection.cascades.data import cascade_data, cascade_of
from workbench.selection.cascades.latency import Paths, Percentiles, percentiles
from workbench.selection.cascades.router import Answer, Router, Served
from workbench.selection.cascades.signals import SIGNALS, Signal, signal_named

__all__ = [
    "SIGNALS",
    "Answer",
    "Cascade",
    "CascadePoint",
    "Paths",
    "Percentiles",
    "Router",
    "Served",
    "Signal",
    "Tier",
    "cascade",
    "cascade_data",
    "cascade_of",
    "facts",
    "percentiles",
    "signal_named",
]
