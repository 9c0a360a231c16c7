"""Send easy cases to a small model and hard ones on to a larger."""

from workbench.routing.cascade import Cascade, CascadePoint, Tier, cascade
from workbench.routing.router import Answer, Router
from workbench.routing.signals import SIGNALS, Signal, signal_named

__all__ = [
    "SIGNALS",
    "Answer",
    "Cascade",
    "CascadePoint",
    "Router",
    "Signal",
    "Tier",
    "cascade",
    "signal_named",
]
