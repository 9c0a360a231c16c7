"""Several panels in one tab, one of them seen at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w

from workbench.app.parts.controls import buttons, classed, show


@dataclass(frozen=True)
class Subtab:
    """One panel of a tab.

    Attributes
    ----------
    title : str
    widget : ipywidgets.Widget
    show : callable
        Called with whether it is seen from now on.
    """

    title: str
    widget: w.Widget
    show: Callable[[bool], None] = lambda is_seen: None


class Subtabs:
    """A row of buttons above the panel that is chosen.

    Parameters
    ----------
    name : str
        What the choice is about, for those who do not see it.
    subs : sequence of Subtab
    guard : callable
        Wraps callbacks, so that what they raise is seen.

    Attributes
    ----------
    widget : ipywidgets.Widget
    nav : ipywidgets.ToggleButtons
    """

    def __init__(
        self, name: str, subs: list[Subtab], guard: Callable[[Callable], Callable[..., None]]
    ) -> None:
        self._subs = subs
        self._is_seen = False
        titles = [(sub.title, place) for place, sub in enumerate(subs)]
        self.nav = buttons(titles, kind="wb-subnav", tooltip=name)
        self.nav.observe(guard(lambda _: self._switch()), names="value")
        self.widget = classed(w.VBox([self.nav, *(sub.widget for sub in subs)]), "wb-subtabs")
        self._switch()

    def show(self, is_seen: bool) -> None:
        """Say whether the tab is seen from now on."""
        self._is_seen = is_seen
        self._switch()

    def _switch(self) -> None:
        for place, sub in enumerate(self._subs):
            is_chosen = place == self.nav.value
            show(sub.widget, is_shown=is_chosen)
            sub.show(is_chosen and self._is_seen)
