"""Figures: one view per file, drawn from what ``compare`` computed."""

from workbench.plots.cascade import cascade_figure
from workbench.plots.page import write_html, write_page
from workbench.plots.plan import plan_figure
from workbench.plots.reliability import reliability_figure
from workbench.plots.sensitivity import sensitivity_figure
from workbench.plots.small import Series, small_svg
from workbench.plots.static import static_svg
from workbench.plots.tradeoff import TradeoffFigure, tradeoff_figure, update_figure

__all__ = [
    "Series",
    "TradeoffFigure",
    "cascade_figure",
    "plan_figure",
    "reliability_figure",
    "sensitivity_figure",
    "small_svg",
    "static_svg",
    "tradeoff_figure",
    "update_figure",
    "write_html",
    "write_page",
]
