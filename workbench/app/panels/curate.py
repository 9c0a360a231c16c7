"""Keep order among runs: name, tag, note, star, hide and delete the selected ones."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.runs import TablePanel
from workbench.app.parts.controls import (
    about_html,
    button,
    check,
    row,
    several_of,
    show,
    text,
    text_area,
    toggled,
)
from workbench.app.session import Session
from workbench.errors import ConfigError
from workbench.records import RunRecord


class CuratePanel(StudyPanel):
    """What is said of the selected runs, and which columns of the table are shown.

    Attributes
    ----------
    name, tags : ipywidgets.Text
    note : ipywidgets.Textarea
    save, star, hide, delete, confirm : ipywidgets.Button
    hidden : ipywidgets.Checkbox
    columns : ipywidgets.SelectMultiple
    filter : ipywidgets.Text
    """

    def __init__(self, session: Session, table: TablePanel) -> None:
        super().__init__(session)
        self._table, guard = table, self._guard
        self.about = w.HTML()
        self.name = text("name", placeholder="in place of the recipe")
        self.tags = text("tags", placeholder="small, for Ann")
        self.note = text_area("note")
        self.save = button("Save", "check", "Of the selected runs", guard(lambda _: self._save()))
        self.star = button(
            "Star", "star", "Or take the star away", guard(lambda _: self._flag("starred"))
        )
        self.hide = button(
            "Hide", "eye-slash", "In table, plot and lists; it is chosen from all the same",
            guard(lambda _: self._flag("hidden")),
        )  # fmt: skip
        self.delete = button(
            "Delete …", "trash", "Says first what it frees", guard(lambda _: self._ask())
        )
        self.confirm = button("", "trash", "", guard(lambda _: self._delete()))
        self.filter = text("select", placeholder="words of name, recipe, note or tags")
        self.select = button(
            "Select", "filter", "All runs that match", guard(lambda _: self._select())
        )
        self.hidden = check("hidden runs too", "Show them in the table", indent=False)
        self.hidden.observe(guard(lambda _: self._table_shown()), names="value")
        self.columns = several_of("columns", 8)
        self.columns.observe(guard(lambda _: self._columns_chosen()), names="value")
        self.disk = w.HTML()
        self.clean = button(
            "Clean up", "eraser", "Remove statistics and checkpoints, which are made again",
            guard(lambda _: self._clean()),
        )  # fmt: skip
        self._is_filling = False
        self._asked: tuple[str, ...] = ()
        self.editor = w.VBox(
            [self.about, self.name, self.tags, self.note,
             row(self.save, self.star, self.hide, self.delete, self.confirm)]
        )  # fmt: skip
        more = toggled(
            "Columns, selection, disk", "sliders", "Which columns are shown; select by words",
            [self.filter, row(self.select, self.hidden), self.columns, self.disk, row(self.clean)],
        )  # fmt: skip
        self.more = more.children[0]
        self.more.observe(guard(lambda _: self._tell_disk()), names="value")
        if session.is_recorded:
            show(self.clean, is_shown=False)
        self.widget = w.VBox([self.editor, self.notice.widget, more])
        session.selection.listen(self.notice.watch(self._follow))
        self.refresh()

    def code(self) -> str:
        """Return the Python that names the selected run as the fields do."""
        chosen = self._chosen()
        if not chosen:
            return ""
        run = f"study[{chosen[-1].id!r}]"
        return f"{run}.name, {run}.tags = {self.name.value!r}, {_tags(self.tags.value)!r}"

    def _chosen(self) -> list[RunRecord]:
        found = (self._session.record(run) for run in self._session.selection.runs)
        return [record for record in found if record is not None]

    def _follow(self) -> None:
        """Show what is said of the run that was selected last."""
        chosen = self._chosen()
        is_open = bool(chosen) and not self._session.is_recorded
        show(self.editor, is_shown=is_open)
        show(self.confirm, is_shown=False)
        if not is_open:
            return
        said = chosen[-1].annotation
        count = len(chosen)
        which = chosen[-1].label if count == 1 else f"{count} selected runs"
        self.about.value = about_html(which)
        self.name.value, self.note.value = said.name, said.note
        self.tags.value = ", ".join(said.tags)
        self.name.disabled = count > 1
        self.star.description = "Take the star away" if said.starred else "Star"
        self.hide.description = "Show again" if said.hidden else "Hide"

    def _runs(self) -> list[Any]:
        return [self._session.study[record.id] for record in self._chosen()]

    def _save(self) -> None:
        runs = self._runs()
        for run in runs:
            if len(runs) == 1:
                run.name, run.note = self.name.value, self.note.value
                run.tags = _tags(self.tags.value)
            else:  # what others of them have stays
                run.tags = [*run.tags, *_tags(self.tags.value)]
                run.note = self.note.value or run.note
        self._changed()

    def _flag(self, what: str) -> None:
        runs = self._runs()
        value = not getattr(runs[-1], what)
        for run in runs:
            setattr(run, what, value)
        self._changed()

    def _ask(self) -> None:
        self._asked = tuple(record.id for record in self._chosen())
        freed = self._session.study.would_free(self._asked) / 1e6
        count = "1 run" if len(self._asked) == 1 else f"{len(self._asked)} runs"
        self.confirm.description = f"Delete {count} for good, frees {freed:.2f} MB"
        show(self.confirm, is_shown=True)

    def _delete(self) -> None:
        show(self.confirm, is_shown=False)
        asked = self._asked
        freed = self._session.study.delete(asked) / 1e6
        left = [run for run in self._session.selection.runs if run not in asked]
        self._session.selection.set(left)
        self._changed()
        self.notice.note(f"{freed:.2f} MB freed; the journal keeps that they were there.")

    def _select(self) -> None:
        found = self._session.study.select(self.filter.value)
        if not found:
            raise ConfigError(f"No run has {self.filter.value!r} in name, recipe, note or tags.")
        self._session.selection.set([run.id for run in found])

    def _clean(self) -> None:
        freed = self._session.study.clean() / 1e6
        self.notice.note(f"{freed:.2f} MB freed.")
        self._refresh()

    def _table_shown(self) -> None:
        self._table.hidden = self.hidden.value
        self._table.refresh()

    def _columns_chosen(self) -> None:
        if not self._is_filling and self.columns.value:
            known = self.columns.options
            self._table.left_out = tuple(c for c in known if c not in self.columns.value)
            self._table.refresh()

    def _changed(self) -> None:
        self._session.curated.emit()

    def _refresh(self) -> None:
        self._follow()
        offered = tuple(self._table.offered)
        if tuple(self.columns.options) != offered:
            self._is_filling = True
            self.columns.options = offered
            self.columns.value = [c for c in offered if c not in self._table.left_out]
            self._is_filling = False
        self._tell_disk()

    def _tell_disk(self) -> None:
        if not self.more.value:  # every file is asked for its size
            return
        found = {part: size for part, size in self._session.study.disk_use().items() if size}
        parts = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in found.items())
        self.disk.value = about_html(f"On the disk, MB: {parts}")


def _tags(written: str) -> list[str]:
    return [tag.strip() for tag in written.split(",") if tag.strip()]
