"""``%load_ext workbench`` and ``%workbench [model]``, for every front end of IPython."""

from __future__ import annotations

import shlex
from typing import Any

from workbench.errors import ConfigError


def workbench_magic(line: str = "") -> Any:
    """Return the workbench: ``%workbench``, ``%workbench MODEL`` or ``%workbench path=FOLDER``.

    Parameters
    ----------
    line : str
        A model (``demo``, a folder or a Hugging Face id), or ``path=`` and a study's folder.

    Raises
    ------
    ConfigError
        If there is more than that.
    """
    from workbench.app import Workbench

    words = shlex.shlex(line, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""  # C:\runs is a folder
    parts = list(words)
    paths = [part.partition("=")[2] for part in parts if part.startswith("path=")]
    models = [part for part in parts if not part.startswith("path=")]
    if len(models) > 1 or len(paths) > 1:
        raise ConfigError(
            f"%workbench {line} is not accepted; give at most a model and a folder, such as"
            " %workbench demo path=runs/demo."
        )
    return Workbench(models[0] if models else None, path=paths[0] if paths else None)


def load_ipython_extension(shell: Any) -> None:
    """Add the magic to an IPython shell; ``%load_ext workbench`` calls this."""
    shell.register_magic_function(workbench_magic, "line", "workbench")
