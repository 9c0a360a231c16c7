"""The Jupyter widgets: thin skins over a study, one panel per file."""

from workbench.app.workbench import Workbench

__all__ = ["Workbench"]
