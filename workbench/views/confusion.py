"""Which labels a run mistakes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import StudyError
from workbench.tasks.outcomes import Outcomes

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Confusion:
    """Counts of examples by their label and the label that was predicted.

    Attributes
    ----------
    run : str
        The run's name.
    labels : tuple of str
        In the order of rows and columns.
    counts : tuple of tuple of int
        Rows: the right label; columns: the predicted one.
    """

    run: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def table(self) -> pd.DataFrame:
        """The counts; index: the right label, columns: the predicted one."""
        import pandas as pd

        index = pd.Index(self.labels, name="label")
        return pd.DataFrame(self.counts, index=index, columns=list(self.labels))

    def plot(self) -> go.Figure:
        """Return a heatmap of each label's shares."""
        from workbench.views.figures import confusion_figure

        return confusion_figure(self.labels, self.counts, self.run)


def confusion(
    outcomes: Outcomes, *, run: str = "", labels: Sequence[str] = (), most: int = 40
) -> Confusion:
    """Return the confusion matrix of an evaluation.

    Parameters
    ----------
    outcomes : Outcomes
        Of a classification task.
    run : str
        The run's name.
    labels : sequence of str
        The text of every label's code; without it codes are shown.
    most : int
        With more labels than that, only those that are mistaken most are kept, and all others are
        summed as "other".

    Raises
    ------
    StudyError
        If the task is no classification.
    """
    if not outcomes.is_classified:
        raise StudyError(
            "A confusion matrix needs a classification task; this one predicts tokens, not labels."
            " The flips show which examples changed."
        )
    right = np.asarray(outcomes["label"], dtype=np.int64)
    said = np.asarray(outcomes["prediction"], dtype=np.int64)
    size = max(len(labels), int(max(right.max(initial=-1), said.max(initial=-1))) + 1)
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (right, said), 1)
    names = [labels[code] if code < len(labels) else str(code) for code in range(size)]
    if size > most:
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        kept = np.sort(np.argsort(-wrong, kind="stable")[: most - 1])
        group = np.full(size, len(kept))
        group[kept] = np.arange(len(kept))
        merged = np.zeros((len(kept) + 1, len(kept) + 1), dtype=np.int64)
        np.add.at(merged, (group[:, None], group[None, :]), counts)
        counts, names = merged, [*(names[code] for code in kept), "other"]
    return Confusion(run, tuple(names), tuple(tuple(map(int, row)) for row in counts))
