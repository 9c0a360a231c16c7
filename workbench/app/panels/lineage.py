"""The tree of runs; selecting a run here selects it everywhere."""

from __future__ import annotations

import math
from typing import Any

from workbench.app.panels.base import StudyPanel
from workbench.app.parts.controls import card, columns
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.rows import Row, Rows
from workbench.app.session import Session


class LineagePanel(StudyPanel):
    """The tree as a figure, and as an indented table.

    Attributes
    ----------
    place : FigureSlot
    table : Rows
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._is_open = False
        self.place = FigureSlot()
        self.table = Rows(searchable=True, label="Filter runs", height="460px")
        self.table.observe(
            self._guard(lambda _: session.selection.set(self.table.selected)), names="selected"
        )
        session.selection.listen(self.refresh)
        left = card("", self.notice.widget, self.place.widget)
        self.widget = columns("wb-halves", left, card("", self.table))

    def code(self) -> str:
        """Return the Python that draws the tree."""
        return "study.lineage().plot()"

    def show(self, is_seen: bool) -> None:
        """Draw if the panel is seen from now on; one that is not seen is not drawn anew."""
        self._is_open = is_seen
        self.refresh()
        self.place.show(is_seen)

    def _refresh(self) -> None:
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
        self.place.draw(lambda: view.plot(selected=chosen), self._guard(self._clicked))

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds and trace.customdata:
            self._session.selection.toggle(trace.customdata[points.point_inds[0]])
