"""Which examples are answered differently after compression, for better or worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import StudyError
from workbench.tasks.outcomes import Outcomes

if TYPE_CHECKING:
    import pandas as pd

CHANGES = ("worse", "better", "other")
"""From right to wrong (or a higher loss), from wrong to right (or a lower one), wrong twice."""


@dataclass(frozen=True)
class Flip:
    """One example that two runs answer differently. All texts are raw, not yet escaped.

    Attributes
    ----------
    example : int
        Its position within the evaluation part.
    change : str
        One of :data:`CHANGES`.
    expected, before, after : str
        The label, and what the two runs predict; for language models the tokens predicted right.
    loss_before, loss_after : float
        Nats per prediction.
    text : str
        The example itself, empty where it was not looked up.
    """

    example: int
    change: str
    expected: str
    before: str
    after: str
    loss_before: float
    loss_after: float
    text: str = ""


@dataclass(frozen=True)
class FlipsView:
    """Every example on which two runs differ, the largest change of loss first.

    Attributes
    ----------
    before, after : str
        Names of the two runs.
    n_examples : int
        Examples that both runs were evaluated on.
    rows : tuple of Flip
    is_classified : bool
        Whether examples have labels; else every example is a row, as its loss always differs.
    """

    before: str
    after: str
    n_examples: int
    rows: tuple[Flip, ...]
    is_classified: bool

    @property
    def counts(self) -> dict[str, int]:
        """How many rows changed in which way."""
        found = Counter(row.change for row in self.rows)
        return {change: found[change] for change in CHANGES}

    @property
    def table(self) -> pd.DataFrame:
        """One row per flip, indexed by the example."""
        import pandas as pd

        names = list(Flip.__dataclass_fields__)
        frame = pd.DataFrame([asdict(row) for row in self.rows], columns=names)
        return frame.set_index("example")

    def with_texts(self, texts: Mapping[int, str]) -> FlipsView:
        """Return the view with the examples' texts filled in."""
        rows = tuple(replace(row, text=texts.get(row.example, "")) for row in self.rows)
        return replace(self, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the view as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FlipsView:
        """Return the view that :meth:`to_dict` described."""
        rows = tuple(Flip(**row) for row in data["rows"])
        return cls(**{**data, "rows": rows})


def flips(
    before: Outcomes,
    after: Outcomes,
    *,
    names: tuple[str, str] = ("before", "after"),
    labels: Sequence[str] = (),
) -> FlipsView:
    """Return on which examples two evaluations differ.

    Parameters
    ----------
    before, after : Outcomes
        Of the same task.
    names : tuple of (str, str)
        Of the two runs.
    labels : sequence of str
        The text of every label's code; without it codes are shown.

    Raises
    ------
    StudyError
        If the two have no example in common.
    """
    first = {int(example): row for row, example in enumerate(before["example"])}
    second = {int(example): row for row, example in enumerate(after["example"])}
    common = [example for example in first if example in second]
    if not common:
        raise StudyError(
            f"{names[0]} and {names[1]} were evaluated on no common example, so there is nothing"
            " to compare one by one."
        )
    one = np.array([first[example] for example in common])
    two = np.array([second[example] for example in common])
    losses = [_per_prediction(outcomes)[rows] for outcomes, rows in ((before, one), (after, two))]
    classified = before.is_classified

    def named(code: int) -> str:
        return labels[code] if 0 <= code < len(labels) else str(code)

    found = []
    for place, example in enumerate(common):
        loss = float(losses[0][place]), float(losses[1][place])
        if classified:
            label = int(before["label"][one[place]])
            was, now = (
                int(outcomes["prediction"][rows[place]])
                for outcomes, rows in ((before, one), (after, two))
            )
            if was == now:
                continue
            change = "worse" if was == label else "better" if now == label else "other"
            texts = named(label), named(was), named(now)
        else:
            change = "worse" if loss[1] > loss[0] else "better" if loss[1] < loss[0] else "other"
            row = int(one[place])
            texts = _wanted(before, row), _answer(before, row), _answer(after, int(two[place]))
        found.append(Flip(example, change, *texts, *loss))
    found.sort(key=lambda flip: -abs(flip.loss_after - flip.loss_before))
    return FlipsView(*names, len(common), tuple(found), classified)


def _per_prediction(outcomes: Outcomes) -> np.ndarray:
    counts = np.maximum(np.asarray(outcomes["n_predictions"], dtype=float), 1.0)
    return np.asarray(outcomes["loss"], dtype=float) / counts


def _wanted(outcomes: Outcomes, row: int) -> str:
    if "n_correct" in outcomes:
        return f"{int(outcomes['n_predictions'][row])} tokens"
    return f"score {float(outcomes['score'][row]):g}" if "score" in outcomes else ""


def _answer(outcomes: Outcomes, row: int) -> str:
    if "n_correct" in outcomes:
        return f"{int(outcomes['n_correct'][row])} right"
    for column, name in (("similarity", "cosine"), ("ndcg_at_10", "nDCG@10")):
        if column in outcomes:
            return f"{name} {float(outcomes[column][row]):.3f}"
    return ""
