"""The workbenches of this kernel by their study's folder.

ipywidgets keeps every widget, so a workbench whose cell is run again is never collected. The new
one takes over its study and its processes, and what is being computed goes on.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.app.workbench import Workbench

_LIVING: dict[Path, weakref.ref[Workbench]] = {}


def living_at(path: Path) -> Workbench | None:
    """Return the workbench that shows the study in a folder, None without one."""
    reference = _LIVING.get(path.resolve())
    return None if reference is None else reference()


def remember(path: Path, bench: Workbench) -> None:
    """Take a workbench as the one that shows the study in a folder."""
    _LIVING[path.resolve()] = weakref.ref(bench)


def forget(path: Path, bench: Workbench) -> None:
    """Take it no longer, if it is the one."""
    if living_at(path) is bench:
        del _LIVING[path.resolve()]
