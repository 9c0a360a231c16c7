"""All panels of one study, and the tabs that they are in."""

from __future__ import annotations

import ipywidgets as w

from workbench.app.panels.base import Panel
from workbench.app.panels.choose import ChoosePanel
from workbench.app.panels.code import CodePanel
from workbench.app.panels.compare import ComparePanel
from workbench.app.panels.cost import CostPanel
from workbench.app.panels.curate import CuratePanel
from workbench.app.panels.curves import CurvesPanel
from workbench.app.panels.export import ExportPanel
from workbench.app.panels.frontier import FrontierPanel
from workbench.app.panels.handover import HandOverPanel
from workbench.app.panels.lineage import LineagePanel
from workbench.app.panels.next_step import NextStepPanel
from workbench.app.panels.queue import QueuePanel
from workbench.app.panels.recipe import RecipePanel
from workbench.app.panels.report import ReportPanel
from workbench.app.panels.routing import RoutingPanel
from workbench.app.panels.runs import TablePanel
from workbench.app.panels.search import SearchPanel
from workbench.app.panels.trust import TrustPanel
from workbench.app.panels.tryout import TryPanel
from workbench.app.parts.controls import card, classed, columns
from workbench.app.parts.hints import hints_html
from workbench.app.parts.subtabs import Subtab, Subtabs
from workbench.app.session import Session

START, PLAN, EXPLORE, COMPARE, TRY, LINEAGE, TRUST, KEEP, CODE = (
    "start",
    "plan",
    "explore",
    "compare",
    "try",
    "lineage",
    "trust",
    "keep",
    "code",
)
TABS = (
    ("Start", START),
    ("Plan", PLAN),
    ("Frontier", EXPLORE),
    ("Compare", COMPARE),
    ("Try it", TRY),
    ("Lineage", LINEAGE),
    ("Trust", TRUST),
    ("Choose & keep", KEEP),
    ("Code", CODE),
)


class Panels:
    """The panels of a study; making them computes nothing.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    queue, frontier, recipe, table, compare, lineage, trust, choose, search, export, report, cost, \
routing, code
        One each.
    of : dict of str to tuple of Panel
        By tab, in the order in which they are refreshed.
    deciding : Subtabs
        The bar, what it costs, and routing.
    """

    def __init__(self, session: Session) -> None:
        self.queue = QueuePanel(session)
        self.recipe = RecipePanel(session)
        self.frontier = FrontierPanel(session)
        self.next_step = NextStepPanel(session)
        self.curves = CurvesPanel(session)
        self.choose = ChoosePanel(session)
        self.search = SearchPanel(session)
        self.cost = CostPanel(session)
        self.routing = RoutingPanel(session)
        self.trust = TrustPanel(session)
        self.table = TablePanel(session)
        self.curate = CuratePanel(session, self.table)
        self.compare = ComparePanel(session)
        self.tryout = TryPanel(session)
        self.lineage = LineagePanel(session)
        self.export = ExportPanel(session)
        self.handover = HandOverPanel(session, self.export)
        self.report = ReportPanel(session)
        self.code = CodePanel(session)
        self.of: dict[str, tuple[Panel, ...]] = {
            EXPLORE: (
                self.recipe, self.frontier, self.next_step, self.curves, self.table, self.curate,
            ),
            COMPARE: (self.compare,),
            TRY: (self.tryout,),
            LINEAGE: (self.lineage,),
            TRUST: (self.trust,),
            KEEP: (
                self.choose, self.cost, self.routing, self.export, self.handover, self.report,
            ),
        }  # fmt: skip
        keeping = classed(
            w.VBox([self.export.widget, self.handover.widget, self.report.widget]), "wb-column"
        )
        asking = classed(w.VBox([self.choose.widget, self.search.widget]), "wb-column")
        keep = columns("wb-keep", asking, keeping)
        deciding = [
            Subtab("Choose", keep),
            Subtab("Cost", self.cost.widget),
            Subtab("Routing", self.routing.widget, self.routing.show),
        ]
        if not self.routing.is_possible:
            del deciding[2]
        self.deciding = Subtabs("what is decided", deciding, session.notice.guard)

    def explore(self) -> w.Widget:
        """Return the recipe and the queue beside the plot and the table."""
        plot, table = (
            card("", self.frontier.widget, self.next_step.widget),
            card("Runs", self.table.widget, self.curate.widget),
        )
        hints = card("Good to know", w.HTML(hints_html()))
        left = w.VBox([self.recipe.widget, self.queue.widget])
        right = w.VBox([classed(plot, "wb-first"), self.curves.widget, table, hints])
        return columns("wb-explore", self.queue.strip, left, right)
