"""Which study a notebook showed last, so that its cell comes back to it after a restart."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from workbench.atomic_files import aside_of
from workbench.storage.store import JOURNAL_NAME

MOST = 200
"""Notebooks that are remembered."""

_has_shown = False
"""Whether this kernel has shown a study: a further cell then begins at the start screen."""


def remember(study: Path) -> None:
    """Take a study's folder as the one that this notebook shows."""
    global _has_shown
    _has_shown = True
    notebook = _notebook()
    if notebook is None:
        return
    known = _known()
    known.pop(notebook, None)
    known[notebook] = str(study.resolve())
    kept = dict(list(known.items())[-MOST:])
    with contextlib.suppress(OSError):  # a home that cannot be written to forgets
        _file().parent.mkdir(parents=True, exist_ok=True)
        aside = aside_of(_file())
        aside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        os.replace(aside, _file())


def last() -> Path | None:
    """Return the folder that this notebook showed before its kernel was started, or None."""
    if _has_shown:
        return None
    found = _known().get(_notebook() or "")
    return Path(found) if found and (Path(found) / JOURNAL_NAME).is_file() else None


def _notebook() -> str | None:
    """Return the notebook's path, which Jupyter gives its kernels; None elsewhere."""
    return os.environ.get("JPY_SESSION_NAME")


def _file() -> Path:
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "compression-workbench" / "notebooks.json"


def _known() -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_file().read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(name): str(path) for name, path in found.items()}
    return {}
