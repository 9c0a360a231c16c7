"""Computing runs, here or in the worker process, and measuring what came of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, StudyError
from workbench.progress import Progress
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunState
from workbench.study.base import StudyBase, only_progress
from workbench.study.handles import Run

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel
    from workbench.study.running.sweep import OnEvent

Recipes = Iterable["Recipe | Step | Iterable[Step]"]


class Computing(StudyBase):
    """Runs: computed, cancelled, measured, deleted, and turned into models."""

    def run(
        self,
        recipe: Recipe | Step | Iterable[Step],
        *,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Compute one recipe in this process and return its run; what is done is not done again.

        The base model is evaluated first if it was not yet. The model in memory is not changed.

        Parameters
        ----------
        recipe : Step, sequence of steps, or Recipe
            ``[]`` is the base model itself.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        Exception
            Whatever ended the run, after it was recorded; CancelledError after :meth:`cancel`.
        """
        runs = self._compute([Recipe.of(recipe)], model, only_progress(on_progress))
        for execution in self._get_inline().executions:
            if execution.error is not None:
                raise execution.error
        return runs[-1]

    def sweep(
        self,
        recipes: Recipes,
        *,
        model: str | None = None,
        on_event: OnEvent | None = None,
    ) -> list[Run]:
        """Compute several recipes in this process, one after the other, and return their runs.

        A run that fails is recorded with its reason, and the next one is computed. A sweep that
        was interrupted goes on where it stopped when it is started again.

        Parameters
        ----------
        recipes : iterable
            Of steps, sequences of steps, or recipes.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.study.running.sweep.Event`.

        Returns
        -------
        list of Run
            One per recipe that was started, in order; the same run for the same recipe. Look at
            ``run.state``.
        """
        runs = self._compute(_recipes(recipes), model, on_event)
        failed = [run for run in dict.fromkeys(runs) if run.state is RunState.FAILED]
        if failed:
            first, total = failed[0].record, len(set(runs))
            some = f"{len(failed)} of {total} runs" if total > 1 else "The only run"
            named = "The first, " if len(failed) > 1 else ""
            warnings.warn(
                f"{some} failed; the table has the reasons. {named}{first.label}: {first.error}",
                stacklevel=2,
            )
        return runs

    def submit(
        self,
        recipes: Recipes,
        *,
        model: str | None = None,
        on_event: OnEvent | None = None,
    ) -> list[int]:
        """Queue recipes for the study's worker process and return at once.

        Parameters
        ----------
        recipes : iterable
            Of steps, sequences of steps, or recipes.
        model : str, optional
            Name of the base model. Default: the study's first.
        on_event : callable, optional
            Called with every :class:`workbench.study.running.sweep.Event`, in a background thread.

        Returns
        -------
        list of int
            The numbers of the jobs, as events name them; a baseline that is missing adds one.
        """
        name = self._name(model)
        jobs = [(name, recipe) for recipe in _recipes(recipes)]
        return self._get_worker().submit(jobs, on_event)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything submitted has ended; return whether it has."""
        worker = self._resources.worker
        return True if worker is None else worker.wait(timeout)

    def cancel(self, *, current_only: bool = False) -> None:
        """Stop what is being computed, within three seconds, and forget what waits.

        Parameters
        ----------
        current_only : bool
            Go on with what waits.
        """
        for runner in (self._resources.worker, self._inline):
            if runner is not None:
                runner.cancel() if current_only else runner.cancel_all()

    def model(self, run: Run | str) -> LoadedModel:
        """Return a run's model: the base model's architecture with the compressed weights in place.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.

        Returns
        -------
        LoadedModel
            A copy, for you to keep or change.
        """
        return self._get_engine().model(self._id_of(run))

    def measure(
        self,
        run: Run | str,
        *,
        repeats: int = 7,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Measurement, ...]:
        """Measure memory and time of a run's model on this machine, and record them on the run.

        The compressed layers run from their codes where there is a kernel; what ran how is in
        ``how`` of every measurement, and where in ``conditions``. It is done in this process, not
        in the worker, which may be computing other runs: do not measure while it is. Measure the
        baseline too, to see what is faster than what: ``study.measure(study.baseline())``. A run
        that is measured again keeps its earlier rows, and the newest count.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        repeats : int
            At least 3; medians of so many are recorded with their interquartile range.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        tuple of Measurement
            See :func:`workbench.runtime.measure.measure_model`.

        Raises
        ------
        StudyError
            If the run is not done, the worker is computing, or the study cannot be written.
        """
        from workbench.progress import Monitor
        from workbench.runtime.measure import measure_model

        worker = self._resources.worker
        if worker is not None and not worker.wait(0):
            raise StudyError(
                "The worker process is computing runs, which would spoil the times. Wait with"
                " study.wait(), or stop it with study.cancel()."
            )
        id = self._id_of(run)
        self._store.add_measurements(id, ())  # raises now if nothing could be written later
        model = self._get_engine().model(id)
        found = measure_model(model, self.task, repeats=repeats, monitor=Monitor(on_progress))
        self._store.add_measurements(id, found)
        return found

    def delete(self, run: Run | str) -> None:
        """Delete a run with its outcomes, and its weights unless another run has the same.

        Raises
        ------
        StudyError
            If it is being computed, or is the base model that others are compared to.
        """
        self._store.delete(self._id_of(run))


def _recipes(recipes: Recipes) -> list[Recipe]:
    if isinstance(recipes, (Recipe, Step)):
        raise ConfigError(
            f"A sweep takes a list of recipes, and {recipes!r} is one; put it into a list, or use"
            " study.run(...)."
        )
    return [Recipe.of(recipe) for recipe in recipes]
