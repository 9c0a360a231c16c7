"""A run as a study hands it out: an id that reads the journal anew whenever it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, StudyError
from workbench.progress import Progress
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.study import computing, curating, exporting
from workbench.study.workspace import Workspace

if TYPE_CHECKING:
    from workbench.export import Exported, ExportOffer
    from workbench.models.load import LoadedModel
    from workbench.tasks.outcomes import Outcomes


class Run:
    """A handle on one run of a study. Runs with the same id are equal.

    What was measured is read-only; name, tags, note, star and whether it is hidden can be set.
    """

    def __init__(self, workspace: Workspace, id: str) -> None:
        self._workspace = workspace
        self._id = id

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of everything that changes the answer."""
        return self._id

    @property
    def record(self) -> RunRecord:
        """What the journal says about the run now.

        Raises
        ------
        StudyError
            If the run was deleted.
        """
        record = self._workspace.store.record(self._id)
        if record is None:
            raise StudyError(f"Run {self._id} was deleted from {self._workspace.path}.")
        return record

    @property
    def state(self) -> RunState:
        """Where the run is in its life."""
        return self.record.state

    @property
    def label(self) -> str:
        """The name that it was given, else the recipe in words."""
        return self.record.label

    @property
    def name(self) -> str:
        """What you call it, shown in place of the recipe; ``""`` for none. It can be set."""
        return self.record.annotation.name

    @name.setter
    def name(self, value: str | None) -> None:
        curating.annotate(self._workspace, self, name=value)

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find it by. They can be set."""
        return self.record.annotation.tags

    @tags.setter
    def tags(self, value: Iterable[str]) -> None:
        curating.annotate(self._workspace, self, tags=value)

    @property
    def note(self) -> str:
        """What is to be remembered of it. It can be set."""
        return self.record.annotation.note

    @note.setter
    def note(self, value: str | None) -> None:
        curating.annotate(self._workspace, self, note=value)

    @property
    def starred(self) -> bool:
        """Whether it has a star. It can be set."""
        return self.record.annotation.starred

    @starred.setter
    def starred(self, value: bool) -> None:
        curating.annotate(self._workspace, self, starred=value)

    @property
    def hidden(self) -> bool:
        """Whether table, plot and lists leave it out; it is chosen from all the same."""
        return self.record.annotation.hidden

    @hidden.setter
    def hidden(self, value: bool) -> None:
        curating.annotate(self._workspace, self, hidden=value)

    @property
    def recipe(self) -> Recipe:
        """The steps; none for a base model."""
        return self.record.recipe

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every number that was measured on the run, oldest first."""
        return self.record.measurements

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of every metric of the task, by name; empty unless the run is done."""
        record = self.record
        names = [metric.name for metric in self._workspace.metrics]
        found = {name: record.measurement(name) for name in names}
        return {name: one.value for name, one in found.items() if one is not None}

    def __getitem__(self, metric: str) -> float:
        """Return the newest value of a measured number, such as ``run["accuracy"]``.

        Raises
        ------
        ConfigError
            If it was not measured on this run.
        """
        record = self.record
        found = record.measurement(metric)
        if found is None:
            known = ", ".join(dict.fromkeys(m.metric for m in record.measurements)) or "nothing"
            raise ConfigError(
                f"Run {self._id} ({record.label}) has no measured {metric!r}; measured are {known}."
            )
        return found.value

    @property
    def size_mb(self) -> float | None:
        """Tensor bytes in the canonical packing, in megabytes (10⁶); None unless it is done."""
        size = self.size_bytes
        return None if size is None else size / 1e6

    @property
    def size_bytes(self) -> int | None:
        """Tensor bytes in the canonical packing; None unless the run is done."""
        return self.record.size_bytes

    @property
    def error(self) -> str | None:
        """Why the run has no result, for people."""
        return self.record.error

    @property
    def parent(self) -> Run | None:
        """The run of the base model, or of the first steps of the recipe where there is one."""
        parent = self.record.parent
        return None if parent is None else Run(self._workspace, parent)

    def then(
        self,
        steps: Recipe | Step | Iterable[Step],
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Continue from this run: compute the recipe that adds steps to this one's.

        What is trained in this run is not trained again. Going back to an earlier run and
        continuing from there is how a step is undone.

        Parameters
        ----------
        steps : Step, sequence of steps, or Recipe
        on_progress : callable, optional
            See :meth:`Study.run`.
        """
        record = self.record
        # Not a recipe by themselves: what is added may need what is there already.
        given = (steps,) if isinstance(steps, Step) else steps
        added = given.steps if isinstance(given, Recipe) else tuple(given)
        recipe = Recipe((*record.recipe.steps, *added))
        added_to = computing.run(
            self._workspace, recipe, model=record.model, on_progress=on_progress
        )
        return Run(self._workspace, added_to)

    def outcomes(self) -> Outcomes:
        """Return the per-example outcomes of the evaluation."""
        return self._workspace.store.outcomes(self._id)

    def model(self) -> LoadedModel:
        """Return the model with the compressed weights in place; see :meth:`Study.model`."""
        return self._workspace.engine.model(self._workspace.id_of(self))

    def measure(
        self, *, repeats: int = 7, on_progress: Callable[[Progress], None] | None = None
    ) -> tuple[Measurement, ...]:
        """Measure memory and time on this machine; see :meth:`Study.measure`."""
        return computing.measure(self._workspace, self, repeats=repeats, on_progress=on_progress)

    def export(
        self,
        path: str | os.PathLike[str],
        format: str = "hf",
        *,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Exported:
        """Write the model for other programs; see :meth:`Study.export`."""
        return exporting.export(
            self._workspace, self, path, format, overwrite=overwrite, on_progress=on_progress
        )

    def export_offers(self) -> tuple[ExportOffer, ...]:
        """Return which formats can hold the model; see :meth:`Study.export_offers`."""
        return exporting.export_offers(self._workspace, self)

    def export_bytes(self, format: str) -> int:
        """Return the size of an export before it is made; see :meth:`Study.export_bytes`."""
        return exporting.export_bytes(self._workspace, self, format)

    def delete(self) -> int:
        """Delete the run, and return the bytes that were freed; see :meth:`Study.delete`."""
        return curating.delete(self._workspace, self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Run):
            return NotImplemented
        return self._id == other._id and self._workspace.path == other._workspace.path

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        record = self._workspace.store.record(self._id)
        if record is None:
            return f"<Run {self._id} deleted>"
        text = f"{record.model}, {record.label}, {record.state.value}"
        if record.size_bytes is not None:
            text += f", {record.size_bytes / 1e6:.2f} MB"
        found = record.measurement(self._workspace.metric_named(None).name)
        if found is not None:
            text += f", {found.metric} {found.value:.4g}"
        if record.error:
            text += f", {record.error.splitlines()[0][:100]}"
        return f"<Run {self._id} {text}>"
