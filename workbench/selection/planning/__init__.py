"""Will it fit? Estimates from a model's configuration alone; no weights are read."""

from workbench.selection.planning.devices import Device, known_devices
from workbench.selection.planning.estimates import PlanRow, plan_rows
from workbench.selection.planning.footprint import Footprint, footprint_of
from workbench.selection.planning.precisions import PRECISIONS, Precision
from workbench.selection.planning.references import known_models

__all__ = [
    "PRECISIONS",
    "Device",
    "Footprint",
    "PlanRow",
    "Precision",
    "footprint_of",
    "known_devices",
    "known_models",
    "plan_rows",
]
