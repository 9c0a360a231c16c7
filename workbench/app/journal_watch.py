"""Notice runs that another notebook or process has written into a study."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.storage.store import JOURNAL_NAME

if TYPE_CHECKING:
    from workbench.study import Study

SECONDS = 1.0


class JournalWatch:
    """Looks at the journal's file every second, and tells when the runs in it are others.

    The journal is a file on any disk, also on a network drive, where no notice of the operating
    system comes.

    Parameters
    ----------
    study : Study
    on_change : callable
        Called in a background thread when runs were added, have ended, were measured or named.
    """

    def __init__(self, study: Study, on_change: Callable[[], None]) -> None:
        self._study, self._on_change = study, on_change
        self._ended = threading.Event()
        self._file, self._runs = self._stamp(), self._known()
        threading.Thread(target=self._watch, name="wb-journal", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS):
            stamp = self._stamp()
            if stamp == self._file:
                continue
            self._file = stamp
            runs = self._known()
            if runs != self._runs and not self._ended.is_set():
                self._runs = runs
                self._on_change()

    def _stamp(self) -> Any:
        """Return what changes whenever the file is written."""
        with contextlib.suppress(OSError):
            found = (self._study.path / JOURNAL_NAME).stat()
            return found.st_mtime_ns, found.st_size
        return None

    def _known(self) -> Any:
        """Return what is shown of the runs; a heartbeat is no part of it."""
        with contextlib.suppress(Exception):  # closed or deleted: there is nothing to tell
            return [(r.id, r.state, len(r.measurements), r.annotation) for r in self._study.records]
        return None
