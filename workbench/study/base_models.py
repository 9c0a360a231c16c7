"""The base models of a study: what is accepted as one, and how another one is added."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.fields import words
from workbench.study.workspace import Workspace

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel


def add(workspace: Workspace, model: LoadedModel, name: str | None) -> str:
    """Add a base model unless the study has it, and return its name; see ``Study.add_model``."""
    from workbench.study.running.engine import describe_model, record_device

    name = words("add_model", "name", name, none_means="its own", most=100)
    store, models = workspace.store, workspace.store.models()
    for known, description in models.items():
        if description["fingerprint"] == model.fingerprint and name in (None, known):
            record_device(store, known, model)
            workspace.attach(known, model)
            return known
    wanted = name or model.source.name
    chosen, number = wanted, 1
    while name is None and chosen in models:
        number += 1
        chosen = f"{wanted}-{number}"
    if chosen in models:
        raise StudyError(
            f"The study has another model named {chosen!r} already; give another name."
        )
    description = describe_model(store, chosen, model)
    try:
        store.add_model(chosen, description)
    except StudyError:  # another process may have added the same one at the same time
        if store.models().get(chosen, {}).get("fingerprint") != model.fingerprint:
            raise
    workspace.attach(chosen, model)
    return chosen


def base_model(model: Any) -> LoadedModel:
    """Return what was given as a base model, loaded.

    Raises
    ------
    ConfigError
        If it is no model.
    StudyError
        If a study cannot start from it: it was compressed here, and is in no checkpoint.
    """
    from workbench.models.architectures import refuse_unsupported
    from workbench.models.load import LoadedModel, load_model

    if isinstance(model, (str, os.PathLike)):
        model = load_model(model)
    if not isinstance(model, LoadedModel):
        raise ConfigError(
            f"A {type(model).__name__} is not accepted as a model; give load_model(...), which"
            " takes a reference, or a live transformers model with its tokenizer."
        )
    kind = type(model.hf_model).__name__
    refuse_unsupported(repr(model.source.name), model.hf_model.config, kind)
    if model.weights and not _is_a_checkpoint(model):
        raise StudyError(
            f"{model.source.name!r} has weights that were compressed here, and a study starts from"
            " a model that it can load again. Give load_model(...) of the original model, or export"
            " the run and give load_model(...) of that folder."
        )
    return model


def _is_a_checkpoint(model: LoadedModel) -> bool:
    """Return whether the codes of a model are those of the checkpoint that it was loaded from."""
    from workbench.models.load import load_again

    source = model.source
    if source.kind not in ("folder", "hub"):
        return False
    found = load_again(source, model.tokenizer, device=model.device, dtype=model.dtype)
    return found.fingerprint == model.fingerprint
