"""The study, what users work with: its parts by what they do, one file each."""

from workbench.selection.decision import Choice, Decision
from workbench.study.handles import Run
from workbench.study.predicting import Sensitivity
from workbench.study.routing import Routed
from workbench.study.study import Study
from workbench.study.trusting import Trust

__all__ = ["Choice", "Decision", "Routed", "Run", "Sensitivity", "Study", "Trust"]
