"""What a recipe needs from a study before it can be applied."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.methods import METHODS, ModelMethod
from workbench.methods.backends import backend_of
from workbench.recipes import FineTuning, Training
from workbench.recipes.recipe import Recipe


@dataclass(frozen=True)
class RecipeNeeds:
    """What a recipe reads beside the base model, and what identifies its result.

    Attributes
    ----------
    recipe : Recipe
    calibration : bool
        Whether a step reads calibration data, as statistics or as tokens. The calibration options
        are then part of the run's identity.
    base_statistics : bool
        Whether statistics of the base model are read. After a step that changes the architecture
        or trains, they are those of another model, which are collected when they are needed.
    trained_prefix : Recipe or None
        The longest proper beginning that ends with a training; it is computed and stored as a run
        of its own. What comes after it does not depend on what came before it.
    teaching_prefix : Recipe
        The leading fine-tuning steps. Distillation learns from their model, from the base model
        where there are none.
    last_training : int or None
        Index of the last step that trains, which keeps a checkpoint.
    method_versions : dict of str to int
        Version of every method that is used, part of the run's identity.
    """

    recipe: Recipe
    calibration: bool
    base_statistics: bool
    trained_prefix: Recipe | None
    teaching_prefix: Recipe
    last_training: int | None
    method_versions: dict[str, int]

    @classmethod
    def of(cls, recipe: Recipe) -> RecipeNeeds:
        """Return what a recipe needs."""
        calibration = base_statistics = False
        same_model = True  # as the base, as far as statistics go
        teaching, trainings = 0, []
        versions: dict[str, int] = {}
        for index, step in enumerate(recipe.steps):
            method, backend = METHODS[type(step)], backend_of(step)
            calibration |= bool(method.needs) or backend is not None
            read = backend is None and bool(method.needs - {"windows"})
            base_statistics |= same_model and read
            same_model &= not (isinstance(method, ModelMethod) and method.renews_statistics)
            if isinstance(step, Training):
                trainings.append(index)
            if isinstance(step, FineTuning) and teaching == index:
                teaching += 1
            for part in (step, *step.parts):
                program = backend_of(part)
                if program is None:
                    versions[type(part).__name__] = METHODS[type(part)].version
                else:
                    versions[program.name] = program.version
        ends = [index + 1 for index in trainings if index + 1 < len(recipe.steps)]
        return cls(
            recipe,
            calibration,
            base_statistics,
            recipe.prefix(ends[-1]) if ends else None,
            recipe.prefix(teaching),
            trainings[-1] if trainings else None,
            versions,
        )
