"""What the panels of one workbench share: the study, what is selected, and what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from workbench.app.history import History
from workbench.app.inspector_client import Inspector
from workbench.app.notice import Notice
from workbench.records import RunRecord, RunState

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction
    from workbench.recipes.recipe import Recipe
    from workbench.selection.cost import CostModel
    from workbench.study import Study


T = TypeVar("T")


class Signal:
    """Something that happens, and those who want to know of it."""

    def __init__(self) -> None:
        self._listeners: list[Callable[..., None]] = []

    def listen(self, listener: Callable[..., None]) -> None:
        """Call something whenever it happens."""
        self._listeners.append(listener)

    def emit(self, *what: Any) -> None:
        """Tell every listener."""
        for listener in list(self._listeners):
            listener(*what)


class Shared(Signal, Generic[T]):
    """A value that is the same in every panel.

    Attributes
    ----------
    value
        Set with :meth:`set`, which tells every listener of a change, without arguments.
    """

    def __init__(self, value: T) -> None:
        super().__init__()
        self.value = value

    def set(self, value: T) -> None:
        """Take another value, and tell every listener if that is a change."""
        if value != self.value:
            self.value = value
            self.emit()


class Selection(Shared[tuple[str, ...]]):
    """The runs that are selected, in the order of their selection."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of the selected runs."""
        return self.value

    def set(self, value: Iterable[str]) -> None:
        """Select these runs and no others, and tell every listener if that is a change."""
        super().set(tuple(dict.fromkeys(value)))

    def toggle(self, run: str) -> None:
        """Select a run that is not selected, or the other way round."""
        without = tuple(other for other in self.runs if other != run)
        self.set(without if run in self.runs else (*self.runs, run))


@dataclass(eq=False)
class Session:
    """What panels work with.

    Attributes
    ----------
    study : Study
    notice : Notice
        For what no panel caused, such as a run that failed.
    inspector : Inspector
        Answers questions about models.
    selection : Selection
    history : History
        What was done, as Python.
    is_recorded : bool
        Whether the study is a recording, on which nothing is computed.
    prices : Shared of CostModel or None
        The user's, None until they are entered.
    requirements : Shared of dict
        What is asked of a run, as :class:`workbench.Requirements` takes it.
    accepted : Shared of (dict of str to float, float or None)
        The limits by axis (MB, ms), and the worst accepted value of the metric.
    choice : Shared of str or None
        Id of the run that was chosen.
    draft : Shared of Prediction or None
        What is predicted of the recipe that is being edited.
    cascade : Shared of dict or None
        What the cascade that was shown last was asked with, as
        :func:`workbench.study.inspector.cascade` takes it.
    events : Signal
        An event of the study's worker, in a background thread.
    measured : Signal
        Speeds were measured; in a background thread.
    edited : Signal
        The recipe of a predicted point that was clicked.
    curated : Signal
        Runs were named, hidden, deleted or the like.
    """

    study: Study
    notice: Notice
    inspector: Inspector
    is_recorded: bool = False
    selection: Selection = field(default_factory=Selection)
    history: History = field(default_factory=History)
    prices: Shared[CostModel | None] = field(default_factory=lambda: Shared(None))
    requirements: Shared[dict[str, Any]] = field(default_factory=lambda: Shared({}))
    accepted: Shared[tuple[dict[str, float], float | None]] = field(
        default_factory=lambda: Shared(({}, None))
    )
    choice: Shared[str | None] = field(default_factory=lambda: Shared(None))
    draft: Shared[Prediction | None] = field(default_factory=lambda: Shared(None))
    cascade: Shared[dict[str, Any] | None] = field(default_factory=lambda: Shared(None))
    events: Signal = field(default_factory=Signal)
    measured: Signal = field(default_factory=Signal)
    edited: Signal = field(default_factory=Signal)
    curated: Signal = field(default_factory=Signal)

    @property
    def records(self) -> Sequence[RunRecord]:
        """Every run of the study."""
        return self.study.records

    @property
    def done(self) -> list[RunRecord]:
        """The finished runs that are not hidden."""
        return [
            record
            for record in self.records
            if record.state is RunState.DONE and not record.annotation.hidden
        ]

    def record(self, run: str | None) -> RunRecord | None:
        """Return a run by its id, None without one."""
        return next((record for record in self.records if record.id == run), None)

    def submit(self, recipes: list[Recipe], model: str | None = None) -> None:
        """Queue recipes of the first base model, or another one, and return at once."""
        given = {} if model is None else {"model": model}
        self.study.submit(recipes, on_event=self.events.emit, **given)
