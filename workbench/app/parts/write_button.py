"""A button that writes to a path, and asks before it replaces what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from workbench.app.notice import Notice
from workbench.app.parts.controls import button
from workbench.errors import ConfigError

REPLACE = "Replace it"


class WriteButton:
    """Pressed once where nothing is, and twice where something is that was not written by it.

    Parameters
    ----------
    text, icon, tooltip : str
    path : ipywidgets.Text
        Where to; another path has to be asked for anew.
    write : callable
        Called with the absolute path, and whether what is there is replaced.
    notice : Notice
        Where it asks.

    Attributes
    ----------
    button : ipywidgets.Button
    """

    def __init__(
        self,
        text: str,
        icon: str,
        tooltip: str,
        path: w.Text,
        write: Callable[[Path, bool], None],
        notice: Notice,
        *,
        primary: bool = False,
    ) -> None:
        self._text, self._path, self._write, self._notice = text, path, write, notice
        self._confirmed: Path | None = None
        self._own: set[Path] = set()
        self.button = button(
            text, icon, tooltip, notice.guard(lambda _: self._press()), primary=primary
        )
        path.observe(notice.guard(lambda _: self.reset()), names="value")

    def reset(self) -> None:
        """Ask again where something is there."""
        self._confirmed = None
        self.button.description = self._text

    def _press(self) -> None:
        given = self._path.value.strip()
        if not given:
            raise ConfigError(f"Nothing is written under “{self._path.description}”; give a path.")
        path = Path(given).expanduser().absolute()
        is_there = any(path.iterdir()) if path.is_dir() else path.exists()
        if is_there and path not in self._own and self._confirmed != path:
            self._confirmed = path
            self.button.description = REPLACE
            self._notice.note(
                f"{path} is there already. Press {REPLACE} to put this in its place, or write"
                " another path."
            )
            return
        self.reset()
        self._write(path, is_there)

    def wrote(self, path: Path) -> None:
        """Take a path as written by this button: the next press replaces it without asking."""
        self._own.add(path)
