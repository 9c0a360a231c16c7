"""What the panels of one workbench share: the study, what is selected, and where errors go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.app.history import History
from workbench.app.inspector_client import Inspector
from workbench.app.parts.notice import Notice

if TYPE_CHECKING:
    from workbench.selection.cost import CostModel
    from workbench.study import Study


class Selection:
    """The runs that are selected, in the order of their selection; the same in every panel."""

    def __init__(self) -> None:
        self.runs: tuple[str, ...] = ()
        self._listeners: list[Callable[[], None]] = []

    def set(self, runs: Iterable[str]) -> None:
        """Select these runs and no others, and tell every listener if that is a change."""
        chosen = tuple(dict.fromkeys(runs))
        if chosen == self.runs:
            return
        self.runs = chosen
        for listener in self._listeners:
            listener()

    def toggle(self, run: str) -> None:
        """Select a run that is not selected, or the other way round."""
        without = tuple(other for other in self.runs if other != run)
        self.set(without if run in self.runs else (*self.runs, run))

    def listen(self, listener: Callable[[], None]) -> None:
        """Call something whenever the selection changes."""
        self._listeners.append(listener)


class Prices:
    """The user's prices, None until they are entered; the same in every panel."""

    def __init__(self) -> None:
        self.model: CostModel | None = None
        self._listeners: list[Callable[[], None]] = []

    def set(self, model: CostModel | None) -> None:
        """Take other prices, and tell every listener if that is a change."""
        if model == self.model:
            return
        self.model = model
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call something whenever the prices change."""
        self._listeners.append(listener)


@dataclass(eq=False)
class Session:
    """What panels work with.

    Attributes
    ----------
    study : Study
    banner : Notice
    selection : Selection
    inspector : Inspector
        Answers questions about models.
    history : History
        What was done, as Python.
    is_recorded : bool
        Whether the study is a recording, on which nothing is computed.
    prices : Prices
    cascade : dict or None
        What the cascade that was shown last was asked with, as
        :func:`workbench.study.inspector.cascade` takes it.
    """

    study: Study
    banner: Notice
    inspector: Inspector
    selection: Selection = field(default_factory=Selection)
    history: History = field(default_factory=History)
    is_recorded: bool = False
    prices: Prices = field(default_factory=Prices)
    cascade: dict[str, Any] | None = None
