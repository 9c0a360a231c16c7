"""Which recipe continues which: the nodes and edges of the tree of runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.records import Metric, RunRecord
from workbench.selection.quality import value_of


@dataclass(frozen=True)
class LineageNode:
    """One run in the tree. All texts are raw, not yet escaped.

    Attributes
    ----------
    run_id, model, label, step, state : str
        ``step`` is what the run adds to the one it continues, in words; a base model's name.
    size_bytes : int or None
    value : float
        The metric, NaN where it was not measured.
    depth : int
        Steps between the run and its base model that were run themselves.
    """

    run_id: str
    model: str
    label: str
    step: str
    state: str
    size_bytes: int | None
    value: float
    depth: int


Nodes = tuple[LineageNode, ...]
Edges = tuple[tuple[str, str], ...]
"""Ids of a run and of one that continues it."""


def run_tree(records: Iterable[RunRecord], metric: Metric) -> tuple[Nodes, Edges]:
    """Return the tree of runs: every node after the one that it continues, and the edges.

    Parameters
    ----------
    records : iterable of RunRecord
        Of a study. A run continues its ``parent``; where that is gone, its base model.
    metric : Metric
    """
    known = {record.id: record for record in records}
    bases = {record.model: record.id for record in known.values() if not record.recipe.steps}
    below: dict[str | None, list[RunRecord]] = {}
    for record in known.values():
        parent = record.parent if record.parent in known else bases.get(record.model)
        below.setdefault(None if parent == record.id else parent, []).append(record)
    nodes: list[LineageNode] = []
    edges: list[tuple[str, str]] = []

    def place(record: RunRecord, depth: int, shared: int) -> None:
        nodes.append(_node(record, metric, depth, shared))
        for child in below.get(record.id, []):
            edges.append((record.id, child.id))
            place(child, depth + 1, len(record.recipe.steps))

    for root in below.get(None, []):
        place(root, 0, 0)
    return tuple(nodes), tuple(edges)


def _node(record: RunRecord, metric: Metric, depth: int, shared: int) -> LineageNode:
    """Describe a run whose first ``shared`` steps are those of the run that it continues."""
    steps = record.recipe.steps
    own = " → ".join(step.label for step in steps[shared:])
    return LineageNode(
        run_id=record.id,
        model=record.model,
        label=record.label if steps else f"{record.model} ({record.label} baseline)",
        step=own if steps else record.model,
        state=record.state.value,
        size_bytes=record.size_bytes,
        value=value_of(record, metric),
        depth=depth,
    )
