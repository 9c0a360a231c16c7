"""Which runs a list offers, where there are too many for one list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.app.session import Session
from workbench.records import RunRecord
from workbench.selection.compare import front_ids
from workbench.selection.quality import is_baseline

MOST_OFFERED = 200


def offered(
    session: Session, records: Sequence[RunRecord], kept: Iterable[str | None] = ()
) -> list[RunRecord]:
    """Return the runs that a list offers, in the order given.

    All of them; or where they are many the base models, the front, what is selected anywhere (the
    table has every run), and the newest.

    Parameters
    ----------
    session : Session
    records : sequence of RunRecord
    kept : iterable of str or None
        Ids of runs that are chosen in the list now.
    """
    if len(records) <= MOST_OFFERED:
        return list(records)
    shown = {*session.selection.runs, *kept, *front_ids(records, session.study.metric)}
    shown |= {record.id for record in records if is_baseline(record)}
    newest = sorted(records, key=lambda record: record.created, reverse=True)
    left = max(0, MOST_OFFERED - sum(record.id in shown for record in records))
    shown |= {record.id for record in [r for r in newest if r.id not in shown][:left]}
    return [record for record in records if record.id in shown]
