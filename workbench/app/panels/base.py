"""What every panel is made from, and what it shows, tells and refreshes."""

from __future__ import annotations

from typing import Protocol

import ipywidgets as w

from workbench.app.notice import Notice
from workbench.app.parts.throttle import Throttle
from workbench.app.session import Session


class Panel(Protocol):
    """A part of the application with a question of its own.

    Attributes
    ----------
    widget : ipywidgets.Widget
    """

    widget: w.Widget

    def code(self) -> str:
        """Return the Python that does what the panel shows, ``""`` if it shows nothing."""

    def refresh(self) -> None:
        """Show what the study holds now; may be called from any thread."""

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""


class StudyPanel:
    """A panel of one study; a subclass makes its controls, its widget, and says what it refreshes.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    widget : ipywidgets.Widget
    notice : Notice
        What went wrong here; the subclass puts its widget beside the buttons.
    """

    widget: w.Widget
    interval: float | None = None
    """Seconds between refreshes that come fast, None if each is made at once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.notice = Notice()
        self._guard = self.notice.guard
        watched = self.notice.watch(self._refresh)
        self.refresh = watched if self.interval is None else Throttle(watched, self.interval)

    def code(self) -> str:
        """Return the Python that does what the panel shows, ``""`` if it shows nothing."""
        return ""

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""

    def _refresh(self) -> None:
        """Show what the study holds now."""
