"""The tree of runs as it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.records import Metric, RunRecord
from workbench.views.run_tree import Edges, Nodes, run_tree

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Lineage:
    """The tree of runs.

    Attributes
    ----------
    metric : Metric
        What the nodes' values are of.
    nodes : tuple of LineageNode
        Every node after the one that it continues.
    edges : tuple of (str, str)
        Ids of a run and of one that continues it.
    """

    metric: Metric
    nodes: Nodes
    edges: Edges

    @property
    def table(self) -> pd.DataFrame:
        """One row per run, in the order of the tree, indexed by the run's id."""
        import pandas as pd

        parents = {child: parent for parent, child in self.edges}
        rows = [
            {
                "run": node.run_id,
                "recipe": node.label,
                "depth": node.depth,
                "continues": parents.get(node.run_id, ""),
                "state": node.state,
                "size_mb": float("nan") if node.size_bytes is None else node.size_bytes / 1e6,
                self.metric.name: node.value,
            }
            for node in self.nodes
        ]
        names = ["run", "recipe", "depth", "continues", "state", "size_mb", self.metric.name]
        return pd.DataFrame(rows, columns=names).set_index("run")

    def plot(self, *, selected: tuple[str, ...] = ()) -> go.Figure:
        """Return the tree as a plotly figure: nodes sized by bytes, coloured by the metric.

        Parameters
        ----------
        selected : tuple of str
            Ids of the runs that get a ring.
        """
        from workbench.views.figures import lineage_figure

        return lineage_figure(self.metric, self.nodes, self.edges, selected=selected)


def lineage(records: Iterable[RunRecord], metric: Metric) -> Lineage:
    """Return the tree of runs; see :func:`workbench.views.run_tree.run_tree`."""
    return Lineage(metric, *run_tree(records, metric))
