"""Follow a study's worker process in a terminal: progress, and Ctrl-C that loses nothing."""

from __future__ import annotations

import contextlib
import queue
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from workbench.cli.tables import output
from workbench.progress import Progress
from workbench.study.running.runner import Event

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

    from workbench.study import Study


def follow(study: Study, recipes: Iterable[Any], console: Console) -> Counter[str]:
    """Compute recipes in the study's worker process and show what happens until all have ended.

    The first Ctrl-C cancels the current run and those that wait, and this returns when the worker
    has stopped; a second one ends the worker at once.

    Parameters
    ----------
    study : Study
        The study that computes and keeps the runs.
    recipes : iterable
        Of steps, sequences of steps, or recipes.
    console : rich.console.Console
        On a terminal with a progress bar, else one line per run.

    Returns
    -------
    Counter of str
        How many runs are ``"finished"``, ``"failed"`` and ``"cancelled"``.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    show = _Bars(console) if console.is_terminal else _Lines(console)
    ended: Counter[str] = Counter()
    left = set(study.submit(recipes, on_event=events.put))
    total = len(left)
    with show:
        cancelled = False
        while left:
            try:
                try:
                    event = events.get(timeout=0.5)
                except queue.Empty:
                    continue
                if event.kind in ("finished", "failed", "cancelled"):
                    left.discard(event.job)
                    ended[event.kind] += 1
                show.event(event, total - len(left), total)
            except KeyboardInterrupt:
                if cancelled:
                    study.close()
                    ended["cancelled"] += len(left)
                    break
                cancelled = True
                show.say("Cancelling … finished runs are kept (Ctrl-C again to stop at once)")
                study.cancel()
    return ended


@contextlib.contextmanager
def show_stages(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show the progress of something that this process computes, on a terminal with a bar.

    Yields what takes the reports; the bar appears with the first one.
    """
    if not console.is_terminal:
        yield lambda progress: None
        return
    bars = _progress(console)
    stage = bars.add_task("", total=None, visible=False)

    def on_progress(progress: Progress) -> None:
        bars.update(
            stage,
            description=progress.detail if progress.stage == "search" else progress.stage,
            completed=progress.done,
            total=progress.total or None,
            visible=True,
        )

    with bars:
        yield on_progress


@contextlib.contextmanager
def kept(study: Study) -> Iterator[None]:
    """End with code 130 after Ctrl-C; tables and runs are written as they come."""
    try:
        yield
    except KeyboardInterrupt:
        text = f"Cancelled. What is finished is kept in {study.path}; the same command goes on."
        output().print(text, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


class _Lines:
    """One line per run that has ended, for files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def event(self, event: Event, done: int, total: int) -> None:
        if event.kind in ("finished", "failed", "cancelled"):
            self.say(f"[{done}/{total}] {_ending(event)}")


class _Bars(_Lines):
    """A bar for all runs and one for the current stage."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = _progress(console)
        self._all = self._progress.add_task("starting the worker process", total=None)
        self._stage = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, event: Event, done: int, total: int) -> None:
        if event.kind == "progress":
            # what training says of itself: its losses, and whether it can go on after a kill
            said = f": {event.detail}" if event.stage == "train" and event.detail else ""
            self._progress.update(
                self._stage,
                description=f"  {event.stage}{said}",
                completed=event.done,
                total=event.total or None,
                visible=True,
            )
        elif event.kind == "started":
            self._progress.update(self._all, description=event.label, completed=done, total=total)
            self._progress.reset(self._stage, description="", visible=False)
        elif event.kind in ("finished", "failed", "cancelled"):
            self._progress.update(self._all, completed=done, total=total)
            if event.kind == "failed":
                self.say(_ending(event))


def _progress(console: Console) -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _ending(event: Event) -> str:
    if event.kind == "finished":
        return f"{event.label}: {'done before' if event.cached else 'done'}"
    return f"{event.label}: {event.kind}, {' '.join((event.error or '').split())}"
