"""What the user says of runs, which are selected by it, and what their files take on the disk."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError, WorkbenchError
from workbench.fields import flag, listed, printable, shown
from workbench.records import RunRecord, RunState
from workbench.storage.store import CLEANABLE, JOURNAL_NAME, Store
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    import pandas as pd

LONGEST_NAME, LONGEST_TAG, LONGEST_NOTE = 120, 40, 20_000
MOST_STUDIES = 500


def annotate(workspace: Workspace, run: HasId | str, **changes: Any) -> None:
    """Change what the user says of a run; fields of :class:`workbench.records.Annotation`.

    Raises
    ------
    ConfigError
        If a value is not accepted.
    StudyError
        If there is no such run, or the study cannot be written.
    """
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        if name in ("starred", "hidden"):
            checked[name] = flag("run", name, value)
        elif name == "tags":
            checked[name] = _tags(value)
        else:
            most = LONGEST_NAME if name == "name" else LONGEST_NOTE
            checked[name] = _text(name, value, most, lines=name == "note")
    workspace.store.annotate(workspace.id_of(run), **checked)


def _tags(value: Any) -> tuple[str, ...]:
    tags = listed("run", "tags", value, 'a list of words, such as ["small", "for Ann"]')
    found = [_text("a tag", tag, LONGEST_TAG) for tag in tags]
    return tuple(dict.fromkeys(tag for tag in found if tag))


def _text(name: str, value: Any, most: int, *, lines: bool = False) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise ConfigError(
            f"run: {name}={shown(value)} is not accepted; give a text of at most {most:,}"
            " characters."
        )
    return value.strip() if lines else printable(" ".join(value.split()))


def select(
    records: Iterable[RunRecord],
    text: str = "",
    *,
    tags: str | Iterable[str] = (),
    starred: bool | None = None,
    hidden: bool | None = None,
    state: str | None = None,
) -> list[RunRecord]:
    """Return the runs that match all that is given; see :meth:`Study.select`."""
    words = text.lower().split()
    wanted = {tags} if isinstance(tags, str) else set(tags)
    if state is not None and state not in (known := [one.value for one in RunState]):
        raise ConfigError(f"select: state={shown(state)} is not accepted; give one of {known}.")
    found = []
    for record in records:
        said = record.annotation
        told = f"{record.id} {record.label} {record.recipe_label} {record.model} {said.note} "
        told = f"{told}{' '.join(said.tags)} {record.state.value}".lower()
        if (
            all(word in told for word in words)
            and wanted <= set(said.tags)
            and starred in (None, said.starred)
            and hidden in (None, said.hidden)
            and state in (None, record.state.value)
        ):
            found.append(record)
    return found


def shown_records(records: Sequence[RunRecord]) -> Sequence[RunRecord]:
    """Return the runs that are not hidden."""
    if not any(record.annotation.hidden for record in records):
        return records
    return [record for record in records if not record.annotation.hidden]


def delete(workspace: Workspace, runs: HasId | str | Iterable[HasId | str]) -> int:
    """Delete runs and return the bytes that were freed; see :meth:`Study.delete`."""
    # The newest first: a base model can only go after what is compared with it.
    ids = _ids(workspace, runs)
    order = [record.id for record in workspace.records()]
    freed = 0
    for id in sorted(ids, key=order.index, reverse=True):
        freed += workspace.store.delete(id)
    return freed


def would_free(workspace: Workspace, runs: HasId | str | Iterable[HasId | str]) -> int:
    """Return the bytes that :func:`delete` would free."""
    return workspace.store.would_free(_ids(workspace, runs))


def _ids(workspace: Workspace, runs: HasId | str | Iterable[HasId | str]) -> list[str]:
    if isinstance(runs, str) or not isinstance(runs, Iterable):
        return [workspace.id_of(runs)]
    given = listed("delete", "runs", runs, "a run, or a list of runs")
    return list(dict.fromkeys(workspace.id_of(run) for run in given))


def deletions(workspace: Workspace) -> pd.DataFrame:
    """Return what the journal keeps of deleted runs; see :attr:`Study.deletions`."""
    import pandas as pd

    names = ["run", "model", "recipe", "label", "created", "deleted", "freed_bytes"]
    return pd.DataFrame(workspace.store.deletions(), columns=names)


def clean(workspace: Workspace, parts: str | Iterable[str]) -> int:
    """Remove what is made again when it is needed; see :meth:`Study.clean`."""
    given = (
        [parts] if isinstance(parts, str) else listed("clean", "parts", parts, "a list of words")
    )
    unknown = [part for part in given if part not in CLEANABLE]
    if unknown or not given:
        raise ConfigError(
            f"clean: {shown(unknown[0]) if unknown else 'nothing'} cannot be removed; give some of"
            f" {', '.join(CLEANABLE)}, which are made again when they are needed."
        )
    return sum(workspace.store.clean(part) for part in dict.fromkeys(given))


def studies(folder: str | Path = ".") -> pd.DataFrame:
    """Return the studies in a folder, in its subfolders and in theirs, the newest first.

    Opening none of them loads a model or a task.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    DataFrame
        Indexed by the folder: ``changed`` (local time), ``models``, ``task``, ``runs``,
        ``size_mb`` of all files, and ``problem``, why one cannot be read.
    """
    import pandas as pd

    root = Path(folder).expanduser()
    if not root.is_dir():
        raise StudyError(f"There is no folder {root}; give one that studies lie in.")
    found = []
    for pattern in (JOURNAL_NAME, f"*/{JOURNAL_NAME}", f"*/*/{JOURNAL_NAME}"):
        found += list(root.glob(pattern))
    rows = [_described(path.parent) for path in found[:MOST_STUDIES]]
    rows.sort(key=lambda row: row["changed"], reverse=True)
    names = ["changed", "models", "task", "runs", "size_mb", "problem"]
    index = pd.Index([str(row["path"]) for row in rows], name="path", dtype=object)
    return pd.DataFrame(rows, index=index, columns=names)


def _described(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"path": path, "models": "", "task": "", "runs": 0, "size_mb": 0.0}
    row |= {"problem": "", "changed": datetime.datetime.fromtimestamp(0)}
    try:
        row["changed"] = datetime.datetime.fromtimestamp(
            (path / JOURNAL_NAME).stat().st_mtime
        ).replace(microsecond=0)
        store = Store.open(path)
        row["models"] = ", ".join(store.models())
        row["task"] = str((store.meta("task") or {}).get("name", ""))
        row["runs"] = len(store.records())
        row["size_mb"] = sum(store.disk_use().values()) / 1e6
    except (OSError, WorkbenchError) as error:
        row["problem"] = str(error)
    return row
