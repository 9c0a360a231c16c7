"""Send easy cases to a small model and hard ones on to a larger."""

from workbench.routing.cascade import Cascade, CascadePoint, Tier, cascade, facts
from workbench.routing.data import cascade_data, cascade_of
from workbench.routing.latency import Paths, Percentiles, percentiles
from workbench.routing.router import Answer, Router, Served
from workbench.routing.signals import SIGNALS, Signal, signal_named

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
