"""The recorded study that comes with the package: a whole frontier, without computing anything."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from workbench.study import Study

FOLDER = Path(__file__).parents[1] / "demo" / "study"
ABOUT = (
    "A recording: these runs were computed when this version of the package was made, by"
    " python -m workbench.demo.record. Look around; nothing is computed here."
)


def is_there() -> bool:
    """Return whether the package has its recorded study."""
    return (FOLDER / "study.sqlite").is_file()


def open_recorded() -> Study:
    """Return the recorded study, opened in a temporary copy, so that the package stays as it is."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-recorded-"))
    return Study.open(_copied(folder / "study"))


def copy_recorded(path: str | Path) -> Study:
    """Return a copy of the recorded study in a folder of the user's, to go on with."""
    return Study.open(_copied(Path(path).expanduser().absolute()))


def _copied(path: Path) -> Path:
    shutil.copytree(FOLDER, path)
    return path
