"""Where compression hurt: slices of the data, ranked by the evidence and tested together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.selection.hypothesis_tests import tilted_p_value
from workbench.selection.trust.flip_rates import check_same
from workbench.tasks.outcomes import Outcomes

LEAST_EXAMPLES = 10
"""Smaller slices are left out: nothing could be told of them."""


@dataclass(frozen=True)
class Slice:
    """One value of one column, and what compression did there.

    Attributes
    ----------
    column, value : str
    n : int
        Examples.
    dense_accuracy, accuracy : float
    p_value : float
        Chance of losing so much if compression did no harm here.
    adjusted_p_value : float
        The same for all slices together, by Holm's procedure: below 0.05 the harm is sure.
    """

    column: str
    value: str
    n: int
    dense_accuracy: float
    accuracy: float
    p_value: float
    adjusted_p_value: float

    @property
    def change(self) -> float:
        """Accuracy minus the dense model's."""
        return self.accuracy - self.dense_accuracy


def rank_slices(
    dense: Outcomes, run: Outcomes, groups: Mapping[str, Sequence[str] | NDArray[np.str_]]
) -> tuple[Slice, ...]:
    """Return every slice, the one that compression hurt most surely first.

    Parameters
    ----------
    dense, run : Outcomes
        Of the same examples.
    groups : mapping of str to sequence of str
        Columns of the data: one value per row of the outcomes.

    Raises
    ------
    ConfigError
        If the examples differ, or a column has another number of rows.
    """
    check_same(dense, run)
    label = np.asarray(run["label"])
    before = (np.asarray(dense["prediction"]) == label).astype(np.float64)
    now = (np.asarray(run["prediction"]) == label).astype(np.float64)
    documents = np.asarray(run["document"])
    found = []
    for column, values in groups.items():
        names = np.asarray(values, dtype=str)
        if len(names) != len(run):
            raise ConfigError(
                f"The column {column!r} has {len(names)} values for {len(run)} examples; give one"
                " per example, in the order of the outcomes."
            )
        for value in np.unique(names):
            rows = names == value
            if rows.sum() < LEAST_EXAMPLES or rows.all():
                continue
            _, cluster = np.unique(documents[rows], return_inverse=True)
            harm = np.bincount(cluster, weights=before[rows] - now[rows])
            found.append(
                (
                    tilted_p_value(harm, worst=-1.0) if harm.any() else 1.0,
                    Slice(
                        column,
                        str(value),
                        int(rows.sum()),
                        float(before[rows].mean()),
                        float(now[rows].mean()),
                        1.0,
                        1.0,
                    ),
                )
            )
    found.sort(key=lambda pair: (pair[0], pair[1].change))
    ranked, least = [], 0.0
    for position, (p_value, one) in enumerate(found):
        least = max(least, min(1.0, p_value * (len(found) - position)))
        ranked.append(
            Slice(one.column, one.value, one.n, one.dense_accuracy, one.accuracy, p_value, least)
        )
    return tuple(ranked)


def length_groups(lengths: Sequence[int]) -> NDArray[np.str_]:
    """Return which quarter of the lengths each text is in, in words."""
    sizes = np.asarray(lengths)
    if len(sizes) == 0:
        return np.array([], dtype=str)
    edges = np.unique(np.quantile(sizes, [0.25, 0.5, 0.75]).astype(int))
    names = []
    for size in sizes:
        place = int(np.searchsorted(edges, size))
        low = 0 if place == 0 else int(edges[place - 1]) + 1
        names.append(
            f"{low} to {edges[place]} characters" if place < len(edges) else f"{low} or more"
        )
    return np.array(names)
