"""Fine-tuning: train on the task's labels, next tokens or pairs of texts."""

from __future__ import annotations

from typing import ClassVar

from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.load import LoadedModel
from workbench.recipes import FineTuning, Step
from workbench.tasks.vectors import VectorTask
from workbench.training import (
    Labels,
    check_training_memory,
    settings_of,
    train,
    trainable_of,
)
from workbench.training.facts import facts_of, task_of
from workbench.training.losses import Objective, Paired, class_weights


class FineTuner(ModelMethod):
    """The calibration part is learned, the validation part decides how long."""

    step: ClassVar[type[Step]] = FineTuning
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = True

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, FineTuning)
        task = task_of(context.calibrator, config)
        model = task.trained_form(model, monitor=context.monitor)
        trainable = trainable_of(model, config.method, rank=config.rank, seed=config.seed)
        needed = check_training_memory(trainable, task, config.batch_size)
        weights = None
        if isinstance(task, VectorTask):
            objective: Objective = Paired(task)
        else:
            weights = class_weights(task, task.training_examples(model), config.class_weights)
            objective = Labels(task, weights)
        trained = train(
            trainable,
            task,
            objective,
            settings_of(config, model.n_parameters, classifies=task.output.is_pooled),
            checkpoint=context.checkpoint,
            monitor=context.monitor,
            about=config.to_dict(),
        )
        extra = {"class_weights": weights is not None, "needed_bytes": needed}
        return ModelResult(trained.model, facts_of(config, trained, extra))
