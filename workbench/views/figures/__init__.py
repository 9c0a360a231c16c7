"""Figures: one view per file, drawn from what ``compare`` and ``views`` computed."""

from workbench.views.figures.cascade import cascade_figure
from workbench.views.figures.confusion import confusion_figure
from workbench.views.figures.layers import layer_errors_figure, weight_histogram_figure
from workbench.views.figures.lineage import lineage_figure
from workbench.views.figures.live import Overlay, live_figure, update_live
from workbench.views.figures.page import write_html
from workbench.views.figures.plan import plan_figure
from workbench.views.figures.reliability import reliability_figure
from workbench.views.figures.sensitivity import sensitivity_figure
from workbench.views.figures.sparkline import Series, small_svg
from workbench.views.figures.static import static_svg
from workbench.views.figures.tradeoff import TradeoffFigure, tradeoff_figure, update_figure

__all__ = [
    "Overlay",
    "Series",
    "TradeoffFigure",
    "cascade_figure",
    "confusion_figure",
    "layer_errors_figure",
    "lineage_figure",
    "live_figure",
    "plan_figure",
    "reliability_figure",
    "sensitivity_figure",
    "small_svg",
    "static_svg",
    "tradeoff_figure",
    "update_figure",
    "update_live",
    "weight_histogram_figure",
    "write_html",
]
