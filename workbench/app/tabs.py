"""All panels of one study, and the tabs that they are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as w

from workbench.app.panels.choose import ChoosePanel
from workbench.app.panels.code import CodePanel
from workbench.app.panels.compare import ComparePanel
from workbench.app.panels.cost import CostPanel
from workbench.app.panels.export import ExportPanel
from workbench.app.panels.frontier import FrontierPanel
from workbench.app.panels.lineage import LineagePanel
from workbench.app.panels.queue import QueuePanel
from workbench.app.panels.recipe import RecipePanel
from workbench.app.panels.report import ReportPanel
from workbench.app.panels.routing import RoutingPanel
from workbench.app.panels.trust import TrustPanel
from workbench.app.parts.hints import hints_html
from workbench.app.parts.subtabs import Subtab, Subtabs
from workbench.app.parts.table import TablePanel
from workbench.app.session import Session
from workbench.study.running.runner import Event

if TYPE_CHECKING:
    from workbench.recipes.recipe import Recipe


class Panels:
    """The panels of a study; making them computes nothing.

    Parameters
    ----------
    session : Session
    on_event : callable
        Called, in a background thread, when a job has started or ended.
    edit : callable
        Called with the recipe of a predicted point that was clicked.
    on_measured : callable
        Called, in a background thread, when speeds were measured.

    Attributes
    ----------
    queue, frontier, recipe, table, compare, lineage, trust, choose, export, report, cost, \
routing, code
        One each.
    deciding : Subtabs
        The bar, what it costs, and routing.
    """

    def __init__(
        self,
        session: Session,
        on_event: Callable[[Event], None],
        edit: Callable[[Recipe], None],
        on_measured: Callable[[], None],
    ) -> None:
        self.queue = QueuePanel(session, on_event)
        self.frontier = FrontierPanel(session, edit, on_measured)
        self.recipe = RecipePanel(session, self.queue.submit, self.frontier.show_draft)
        self.table = TablePanel(session)
        self.compare = ComparePanel(session)
        self.lineage = LineagePanel(session)
        self.trust = TrustPanel(session)
        self.choose = ChoosePanel(session, self.frontier.show_bar)
        self.export = ExportPanel(session)
        self.report = ReportPanel(session, self.choose)
        self.cost = CostPanel(session, on_measured)
        self.routing = RoutingPanel(session, self.report.refresh)
        self.code = CodePanel(session)
        keeping = w.VBox([self.export.widget, self.report.widget])
        keeping.add_class("wb-column")
        keep = w.HBox([self.choose.widget, keeping])
        keep.add_class("wb-keep")
        self.deciding = Subtabs(
            "what is decided",
            [
                Subtab("Choose", keep),
                Subtab("Cost", self.cost.widget),
                Subtab("Routing", self.routing.widget, self.routing.show),
            ],
            session.banner.guard,
        )

    def explore(self) -> w.Widget:
        """Return the recipe and the queue beside the plot and the table."""
        hints = w.HTML(f"<h3>Good to know</h3>{hints_html()}")
        plot = w.VBox([self.frontier.widget])
        table = w.VBox([w.HTML("<h3>Runs</h3>"), self.table.widget])
        for card in (hints, plot, table):
            card.add_class("wb-card")
        left = w.VBox([self.recipe.widget, self.queue.widget])
        right = w.VBox([plot, table, hints])
        both = w.HBox([left, right])
        both.add_class("wb-explore")
        return both

    def refreshing(self) -> list[Callable[[], None]]:
        """Return what shows the runs that there are by now, panel by panel."""
        return [
            self.frontier.refresh,
            self.table.refresh,
            self.choose.refresh,
            self.recipe.refresh,
            self.compare.refresh,
            self.lineage.refresh,
            self.trust.refresh,
            self.export.refresh,
            self.cost.refresh,
            self.routing.refresh,
        ]
