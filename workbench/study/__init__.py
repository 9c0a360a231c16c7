"""The study, what users work with: :class:`Study`, and one file per question that it is asked."""

from workbench.selection.decision import Choice, Decision
from workbench.study.cascades import Routed
from workbench.study.run import Run
from workbench.study.searching import SearchResult
from workbench.study.study import Study
from workbench.study.trust import Trust
from workbench.views.sensitivity import Sensitivity

__all__ = ["Choice", "Decision", "Routed", "Run", "SearchResult", "Sensitivity", "Study", "Trust"]
