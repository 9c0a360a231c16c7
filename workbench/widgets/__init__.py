"""The Jupyter widgets: thin skins over a study, one panel per file."""

from workbench.widgets.app import Workbench

__all__ = ["Workbench"]
