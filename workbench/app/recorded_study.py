"""The recorded study that comes with the package: a whole frontier, without computing anything."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from workbench.errors import StudyError
from workbench.study import Study

FOLDER = Path(__file__).parents[1] / "demo" / "study"
ABOUT = (
    "A recording: these runs were computed when this version of the package was made, by"
    " benchmarks/record_study.py of its source. Look around; nothing is computed here."
)


def is_there() -> bool:
    """Return whether the package has its recorded study."""
    return (FOLDER / "study.sqlite").is_file()


def open_recorded() -> Study:
    """Return the recorded study, opened in a temporary copy, so that the package stays as it is."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-recorded-"))
    study = Study.open(_copied(folder / "study"))
    weakref.finalize(study, shutil.rmtree, folder, ignore_errors=True)
    return study


def copy_recorded(path: str | Path) -> Study:
    """Return a copy of the recorded study in a folder of the user's, to go on with.

    Raises
    ------
    StudyError
        If the folder is there already.
    """
    folder = Path(path).expanduser().absolute()
    if folder.exists():
        raise StudyError(f"{folder} is there already; give a new folder, or open what is in it.")
    return Study.open(_copied(folder))


def _copied(path: Path) -> Path:
    shutil.copytree(FOLDER, path)
    return path
