"""The tree of runs; selecting a run here selects it everywhere."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as w

from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.rows import Row, Rows
from workbench.app.session import Session


class LineagePanel:
    """The tree as a figure, and as an indented table.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    table : Rows
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_open = False
        self._place = FigureSlot()
        self.table = Rows(searchable=True, label="Filter runs", height="460px")
        self.table.observe(
            session.banner.guard(lambda _: session.selection.set(self.table.selected)),
            names="selected",
        )
        session.selection.listen(session.banner.guard(self.refresh))
        left, right = w.VBox([self._place.widget]), w.VBox([self.table])
        for part in (left, right):
            part.add_class("wb-card")
        self.widget = w.HBox([left, right])
        self.widget.add_class("wb-halves")

    def code(self) -> str:
        """Return the Python that draws the tree."""
        return "study.lineage().plot()"

    def show(self, is_seen: bool) -> None:
        """Draw if the panel is seen from now on; one that is not seen is not drawn anew."""
        self._is_open = is_seen
        self.refresh()
        self._place.show(is_seen)

    def refresh(self) -> None:
        """Show the tree as it is now."""
        if not self._is_open:
            return
        view = self._session.study.lineage()
        name = view.metric.name.replace("_", " ")
        rows: list[Row] = [
            (
                node.run_id,
                [
                    "    " * node.depth + node.step,
                    "–" if node.size_bytes is None else f"{node.size_bytes / 1e6:.2f}",
                    f"{node.value:.4g}" if math.isfinite(node.value) else "–",
                    node.state,
                ],
            )
            for node in view.nodes
        ]
        heads = [("run", "text wb-tree"), ("size (MB)", ""), (name, ""), ("state", "text")]
        self.table.fill(heads, rows, caption="No runs yet.")
        self.table.selected = list(self._session.selection.runs)
        chosen = self._session.selection.runs
        self._place.draw(
            lambda: view.plot(selected=chosen), self._session.banner.guard(self._clicked)
        )

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds and trace.customdata:
            self._session.selection.toggle(trace.customdata[points.point_inds[0]])
