"""What the task is: its kind, its data, the columns and the prompt, with a preview."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.app.notice import Notice
from workbench.app.parts.controls import (
    LABEL,
    about_html,
    button,
    buttons,
    close,
    problem_html,
    row,
    show,
    text,
)
from workbench.app.parts.table_preview import read_rows, table_html, text_html
from workbench.app.parts.task_kinds import KINDS, Kind, LabelledTable
from workbench.app.parts.uploads import keep_upload
from workbench.errors import DataError, WorkbenchError


class TaskForm:
    """Data is read in the background, and only its first rows.

    Parameters
    ----------
    notice : Notice

    Attributes
    ----------
    widgets : list of ipywidgets.Widget
    kind : ipywidgets.ToggleButtons
    upload : ipywidgets.FileUpload
    data_path : ipywidgets.Text
    preview : ipywidgets.HTML
    kinds : dict of str to Kind
        By name.
    """

    def __init__(self, notice: Notice) -> None:
        self._uploaded: Path | None = None
        self._number = 0
        self.kinds: dict[str, Kind] = {kind.name: kind() for kind in KINDS}
        self.kind = buttons(
            [(kind.title, kind.name) for kind in KINDS],
            kind="wb-choice",
            tooltips=[kind.about or "The bundled task" for kind in KINDS],
            description="task",
            style={"description_width": LABEL},
        )
        self.upload = w.FileUpload(
            accept=".csv,.tsv,.jsonl,.json,.txt,.parquet,.xlsx,.gz",
            multiple=False,
            description="Upload",
            tooltip="A CSV, TSV, JSON lines or text file of up to 8 MB",
            layout=w.Layout(width="auto"),
        )
        self.data_path = text("or its path", placeholder="data/tickets.csv")
        self.about, self.preview, self.checked = w.HTML(), w.HTML(), w.HTML()
        self.check = button(
            "Check the data", "search", "Reads all rows: classes, empty labels, duplicates, and"
            " what looks like a mistake", notice.guard(lambda _: self._check()),
        )  # fmt: skip
        self.skip = button(
            "Skip these rows", "filter", "Leave out the rows that cannot be used, and record which",
            notice.guard(lambda _: self._skip()),
        )  # fmt: skip
        labelled = self.kinds[LabelledTable.name]
        assert isinstance(labelled, LabelledTable)
        self._labelled = labelled
        for control in labelled.readings:
            control.observe(notice.guard(lambda _: self._preview()), names="value")
        self._fields = w.VBox()
        data = row(self.upload, self.data_path)
        self.kind.observe(notice.guard(lambda _: self._show()), names="value")
        self.upload.observe(notice.guard(self._receive), names="value")
        self.data_path.observe(notice.guard(lambda _: self._preview()), names="value")
        self.widgets: list[w.Widget] = [self.kind, self.about, data, self._fields, self.preview]
        self.widgets += [row(self.check, self.skip), self.checked]
        self._show()

    @property
    def chosen(self) -> Kind:
        """The kind that is chosen."""
        return self.kinds[self.kind.value]

    def close(self) -> None:
        """Close the fields of every kind, also of those that are not shown."""
        for kind in self.kinds.values():
            for field in kind.widgets:
                close(field)

    def code(self) -> str:
        """Return the Python that makes the task."""
        return self.chosen.code(str(self._data() or ""))

    def maker(self) -> Callable[[], Any]:
        """Return what makes the task.

        Raises
        ------
        DataError
            If something lacks.
        """
        data = self._data()
        if self.chosen.reads and data is None:
            raise DataError("No data was given; upload a file, or write its path.")
        self.chosen.check()
        return self.chosen.maker(data)

    def _data(self) -> Path | None:
        given = self.data_path.value.strip()
        return Path(given).expanduser() if given else self._uploaded

    def _receive(self, _: Any) -> None:
        if self.upload.value:
            self._uploaded = keep_upload(self.upload.value[0])
            self.data_path.value = ""
            self._preview()

    def _show(self) -> None:
        kind = self.chosen
        self.about.value = about_html(kind.about)
        show(self.upload, self.data_path, self.preview, is_shown=bool(kind.reads))
        show(self.about, is_shown=bool(kind.about))
        show(self.check, self.checked, is_shown=kind is self._labelled)
        self._fields.children = kind.widgets
        if kind.reads:
            self._preview()

    def _preview(self) -> None:
        """Read the first rows in the background, and offer their columns."""
        path, kind = self._data(), self.chosen
        kind.offer(None)
        self.preview.value = self.checked.value = ""
        show(self.skip, is_shown=False)
        if path is None or not kind.reads:
            return
        self._number += 1
        number = self._number

        def read() -> None:
            try:
                shown = text_html(path) if kind.reads == "texts" else self._table(path, number)
            except WorkbenchError as error:
                shown = problem_html(str(error))
            except Exception as error:  # whatever a reader of tables raises on a broken file
                words = f"{path.name} cannot be read as a table: {error}"
                advice = "Give a CSV, TSV, JSON lines or parquet file with one row per text."
                shown = problem_html(f"{words[:400].rstrip('. ')}. {advice}")
            if number == self._number:
                self.preview.value = shown

        threading.Thread(target=read, name="wb-preview", daemon=True).start()

    def _check(self) -> None:
        """Look through all rows in the background."""
        path, kind = self._data(), self._labelled
        if path is None:
            raise DataError("No data was given; upload a file, or write its path.")
        kind.check()
        columns, number = (kind.text.value, kind.label.value), self._number
        self.checked.value = about_html("Reading all rows …")

        def read() -> None:
            from workbench.tasks.checking import data_check

            bad = 0
            try:
                found = data_check(path, text=columns[0], label=columns[1], **kind.reading())
                bad = len(found.bad_rows)
                words = f'<pre class="wb-lines" role="status">{html.escape(str(found))}</pre>'
            except WorkbenchError as error:
                words = problem_html(str(error))
            if number == self._number:
                self.checked.value = words
                show(self.skip, is_shown=bool(bad) and not kind.skip.value)

        threading.Thread(target=read, name="wb-check", daemon=True).start()

    def _skip(self) -> None:
        self._labelled.skip.value = True
        show(self.skip, is_shown=False)

    def _table(self, path: Path, number: int) -> str:
        frame = read_rows(path, **self.chosen.reading())
        if number == self._number:
            self.chosen.offer(frame)
        return table_html(frame)
