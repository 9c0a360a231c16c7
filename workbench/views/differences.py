"""Two or more runs side by side: what each of them is, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.records import Metric, RunRecord
from workbench.selection.compare import SHARE_FACT
from workbench.selection.quality import Z95

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "–"


def differences(records: Sequence[RunRecord], metrics: Sequence[Metric]) -> pd.DataFrame:
    """Return one row per fact and one column per run, as texts for people.

    Parameters
    ----------
    records : sequence of RunRecord
        In the order of the columns.
    metrics : sequence of Metric
        Each is a row, with its 95 % interval.

    Returns
    -------
    DataFrame
        Indexed by the fact's name; columns are numbered from 0, as two runs may have one label. The
        last column, ``differs``, says whether the row's texts are not all the same.
    """
    import pandas as pd

    rows: dict[str, list[str]] = {
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
