"""The studies that lie near, as a table; a click opens one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from workbench.app.parts.rows import Row, Rows

HEADS = [
    ("study", "text"), ("changed", "text"), ("model", "text"), ("task", "text"), ("runs", ""),
    ("MB", ""),
]  # fmt: skip
NONE = "No study lies in this folder or in its subfolders."


class StudyList(Rows):
    """Found in a background thread: a folder may lie on a slow disk.

    Parameters
    ----------
    on_pick : callable
        Called with the folder of the study that was clicked.
    """

    def __init__(self, on_pick: Callable[[str], None]) -> None:
        super().__init__(label="Filter studies", searchable=True, sortable=True, height="260px")
        self._on_pick = on_pick
        self.observe(lambda _: self._picked(), names="selected")

    def look(self, folder: str = ".") -> threading.Thread:
        """Show what lies there now."""
        thread = threading.Thread(target=self._look, args=(folder,), name="wb-studies", daemon=True)
        thread.start()
        return thread

    def _look(self, folder: str) -> None:
        from workbench.study.curating import studies

        found = studies(folder)
        rows: list[Row] = []
        for path, row in zip(found.index, found.to_dict("records"), strict=True):
            said = row["problem"] or row["models"]
            size = f"{row['size_mb']:.1f}"
            cells = [path, str(row["changed"]), said, row["task"], str(row["runs"]), size]
            rows.append(("" if row["problem"] else path, cells))
        self.fill(HEADS, rows, caption=NONE)

    def _picked(self) -> None:
        if self.selected:
            (chosen, *_), self.selected = self.selected, []
            self._on_pick(chosen)
