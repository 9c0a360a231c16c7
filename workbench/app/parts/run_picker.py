"""A list of finished runs to choose from, which stays as it was when further runs come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as w

from workbench.app.parts.run_options import offered
from workbench.app.session import Session
from workbench.records import RunRecord
from workbench.views.run_names import run_names


class RunPicker:
    """Offers finished runs in a control, and says when the user has chosen another one.

    Parameters
    ----------
    session : Session
    control : ipywidgets.Dropdown, Select or SelectMultiple
    on_change : callable
    follows : bool
        Whether the control takes the run that was selected last elsewhere.
    most : int
        Characters of a run's name.
    facts : bool
        Whether size and metric stand behind the name.

    Attributes
    ----------
    control : ipywidgets.Dropdown, Select or SelectMultiple
    """

    def __init__(
        self,
        session: Session,
        control: Any,
        on_change: Callable[[], None] = lambda: None,
        *,
        follows: bool = False,
        most: int = 40,
        facts: bool = False,
    ) -> None:
        self._session, self.control, self._on_change = session, control, on_change
        self._most, self._facts = most, facts
        self._is_offering = False
        self._records: list[RunRecord] = []
        self._before: list[tuple[str, str]] = []
        control.observe(lambda _: self._changed(), names="value")
        if follows:
            session.selection.listen(self._follow)

    @property
    def ids(self) -> list[str]:
        """Ids of the runs that are offered."""
        return [run for _, run in self.control.options]

    def offer(self, records: Iterable[RunRecord], before: Iterable[tuple[str, str]] = ()) -> None:
        """Offer these runs; what is chosen stays chosen, and the newest is where nothing was.

        Parameters
        ----------
        records : iterable of RunRecord
        before : iterable of (str, str)
            Text and id of what is offered first, besides the runs.
        """
        self._before, self._records = list(before), list(records)
        chosen = self.control.value
        kept = chosen if isinstance(chosen, tuple) else (chosen,)
        self._show(offered(self._session, self._records, kept))

    def _show(self, records: list[RunRecord]) -> None:
        before = self._before
        names = run_names(records, self._most)
        metric = self._session.study.metric.name if self._facts else None
        options = [*before, *((names[r.id] + _told(r, metric), r.id) for r in records)]
        if list(self.control.options) == options:
            return
        kept, ids = self.control.value, [run for _, run in options]
        if isinstance(self.control, w.SelectMultiple):
            wanted: Any = tuple(run for run in kept if run in ids)
        else:
            wanted = kept if kept in ids else next(iter(dict(before).values()), None)
            wanted = ids[-1] if wanted is None and ids else wanted
        self._is_offering = True  # the list forgets its choice for a moment
        self.control.options = options
        self.control.value = wanted
        self._is_offering = False
        if wanted != kept:
            self._on_change()

    def take(self, runs: Iterable[str]) -> None:
        """Choose runs without telling of it."""
        runs = list(runs)
        self._show(offered(self._session, self._records, runs))
        self._is_offering = True
        self.control.value = tuple(run for run in self.ids if run in runs)
        self._is_offering = False

    def _changed(self) -> None:
        if not self._is_offering:
            self._on_change()

    def _follow(self) -> None:
        chosen = self._session.selection.runs
        if chosen:
            self._show(offered(self._session, self._records, chosen))
        if chosen and chosen[-1] in self.ids:
            self.control.value = chosen[-1]


def _told(record: RunRecord, metric: str | None) -> str:
    if metric is None:
        return ""
    size = "" if record.size_bytes is None else f" · {record.size_bytes / 1e6:.2f} MB"
    found = record.measurement(metric)
    return size + ("" if found is None else f" · {found.value:.4g}")
