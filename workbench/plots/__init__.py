"""Figures: one view per file, drawn from what ``compare`` and ``views`` computed."""

from workbench.plots.cascade import cascade_figure
from workbench.plots.confusion import confusion_figure
from workbench.plots.layers import layer_errors_figure, weight_histogram_figure
from workbench.plots.lineage import lineage_figure
from workbench.plots.live import Overlay, live_figure, update_live
from workbench.plots.page import write_html, write_page
from workbench.plots.plan import plan_figure
from workbench.plots.reliability import reliability_figure
from workbench.plots.sensitivity import sensitivity_figure
from workbench.plots.small import Series, small_svg
from workbench.plots.static import static_svg
from workbench.plots.tradeoff import TradeoffFigure, tradeoff_figure, update_figure

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
    "write_page",
]
