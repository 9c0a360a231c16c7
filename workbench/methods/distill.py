"""Distillation (Hinton et al. 2015): train a student on what its teacher predicts."""

from __future__ import annotations

from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.load import LoadedModel
from workbench.models.loaded import tokenizer_fingerprint
from workbench.models.structure import architecture_of
from workbench.recipes import Distillation, Step
from workbench.training import (
    Distilled,
    check_training_memory,
    settings_of,
    student_of,
    train,
    trainable_of,
)
from workbench.training.facts import facts_of, task_of


class Distiller(ModelMethod):
    """The student begins with blocks of the model as it is; the teacher is what it was before."""

    step: ClassVar[type[Step]] = Distillation
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = True

    def check(self, model: LoadedModel, config: Step) -> None:
        assert isinstance(config, Distillation)
        if config.blocks is not None:
            architecture_of(model)

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, Distillation)
        task = task_of(context.calibrator, config)
        extra: dict[str, Any] = {}
        teacher = _teacher(context, config)  # first: what is free is asked with it in memory
        if tokenizer_fingerprint(teacher.tokenizer) != tokenizer_fingerprint(model.tokenizer):
            raise ConfigError(
                f"{teacher.source.name} cannot teach {model.source.name}: their tokenizers differ,"
                " so they do not predict the same tokens. Give a teacher with the same tokenizer."
            )
        if config.blocks is not None:
            model, extra["kept_blocks"] = student_of(model, config.blocks, config.keep)
        model = task.trained_form(model, monitor=context.monitor)
        trainable = trainable_of(model, config.method, rank=config.rank, seed=config.seed)
        extra["needed_bytes"] = check_training_memory(
            trainable, task, config.batch_size, taught=True
        )
        objective = Distilled(
            task,
            teacher,
            temperature=config.temperature,
            reverse=config.divergence == "reverse",
            hard_weight=config.hard_weight,
            hidden_weight=config.hidden_weight,
        )
        trained = train(
            trainable,
            task,
            objective,
            settings_of(config, model.n_parameters, classifies=task.output.is_pooled),
            checkpoint=context.checkpoint,
            monitor=context.monitor,
            about=[config.to_dict(), teacher.fingerprint],
        )
        return ModelResult(trained.model, facts_of(config, trained, extra))


def _teacher(context: ModelContext, config: Distillation) -> LoadedModel:
    if config.teacher is None:
        return context.teacher()
    if context.load_run is None:
        raise ConfigError(
            f"Distillation: teacher={config.teacher!r} names a run of a study; outside of one"
            " leave teacher out."
        )
    return context.load_run(config.teacher)
