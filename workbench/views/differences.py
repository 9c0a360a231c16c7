"""Two or more runs side by side: what each of them is, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.records import Metric, RunRecord
from workbench.selection.compare import SHARE_FACT
from workbench.selection.quality import Z95, Scores
from workbench.tasks.uncertainty import paired_difference

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "–"


def differences(
    records: Sequence[RunRecord], metrics: Sequence[Metric], scores: Sequence[Scores] = ()
) -> pd.DataFrame:
    """Return one row per fact and one column per run, as texts for people.

    Parameters
    ----------
    records : sequence of RunRecord
        In the order of the columns.
    metrics : sequence of Metric
        Each is a row, with its 95 % interval.
    scores : sequence of Scores, optional
        Metrics by example. Of several runs, the differences to the first one on the same examples
        come first, with paired 95 % intervals.

    Returns
    -------
    DataFrame
        Indexed by the fact's name; columns are numbered from 0, as two runs may have one label. The
        last column, ``differs``, says whether the row's texts are not all the same.
    """
    import pandas as pd

    rows: dict[str, list[str]] = _paired_rows(records, scores) | {
        "model": [record.model for record in records],
        "recipe": [record.label for record in records],
        "state": [record.state.value for record in records],
        "size": [_size(record) for record in records],
    }
    for metric in metrics:
        rows[metric.name.replace("_", " ")] = [_measured(record, metric) for record in records]
    timed = dict.fromkeys(m.metric for r in records for m in r.measurements if m.conditions)
    for name in timed:
        rows[name.replace("_", " ")] = [_timed(record, name) for record in records]
    rows["weights compressed"] = [_share(record) for record in records]
    rows["bits per weight"] = [_number(record.facts.get("bits_per_weight")) for record in records]
    rows["seconds to compute"] = [
        _number(sum(record.seconds.values())) if record.seconds else NOTHING for record in records
    ]
    if any(record.error for record in records):
        rows["error"] = [record.error or NOTHING for record in records]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(range(len(records))))
    table.index.name = "fact"
    table["differs"] = [len(set(texts)) > 1 for texts in rows.values()]
    return table


def _paired_rows(records: Sequence[RunRecord], scores: Sequence[Scores]) -> dict[str, list[str]]:
    if len(records) < 2 or not scores:
        return {}
    first, *others = records
    found = {"examples, against the first run": [_changed(scores[0], first, r) for r in others]}
    for score in scores:
        name = f"{score.metric.name.replace('_', ' ')}, minus the first run's"
        found[name] = [_minus(score, first, record) for record in others]
    known = {name: row for name, row in found.items() if set(row) != {NOTHING}}
    return {name: [NOTHING, *row] for name, row in known.items()}


def _minus(scores: Scores, first: RunRecord, record: RunRecord) -> str:
    """Return the paired difference of a metric with its 95 % interval."""
    mine, theirs = scores.of(record), scores.of(first)
    if mine is None or theirs is None or not mine.is_paired_with(theirs):
        return NOTHING
    found = paired_difference(mine.estimate, theirs.estimate)
    if found.stderr is None:
        return f"{found.value:+.3g}"
    return f"{found.value:+.3g} ({found.low:+.3g} to {found.high:+.3g})"


def _changed(scores: Scores, first: RunRecord, record: RunRecord) -> str:
    """Return on how many of the same examples a run is better, and worse."""
    before, after = scores.outcomes(first), scores.outcomes(record)
    if before is None or after is None or not np.array_equal(before["example"], after["example"]):
        return NOTHING
    if before.is_classified and after.is_classified:
        one, two = (np.asarray(o["prediction"] == o["label"], dtype=float) for o in (before, after))
    elif "loss" in before and "loss" in after:
        one, two = (-np.asarray(outcomes["loss"], dtype=float) for outcomes in (before, after))
    else:
        return NOTHING
    better, worse = int((two > one).sum()), int((two < one).sum())
    return f"{better:,} of {len(one):,} better, {worse:,} worse"


def _size(record: RunRecord) -> str:
    return NOTHING if record.size_bytes is None else f"{record.size_bytes / 1e6:.2f} MB"


def _measured(record: RunRecord, metric: Metric) -> str:
    found = record.measurement(metric.name)
    if found is None:
        return NOTHING
    text = f"{found.value:.4g}"
    if found.stderr is not None:
        text += f" ± {Z95 * found.stderr:.2g}"
    return f"{text} {metric.unit}".rstrip()


def _timed(record: RunRecord, name: str) -> str:
    found = record.measurement(name)
    if found is None:
        return NOTHING
    spread = "" if found.spread is None else f" (spread {found.spread:.2g})"
    return f"{found.value:.4g} {found.unit}{spread}"


def _share(record: RunRecord) -> str:
    share = record.facts.get(SHARE_FACT)
    return f"{share:.1%}" if isinstance(share, (int, float)) else NOTHING


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else NOTHING
