"""Classifiers in the form of their own class: what ``AutoModelForSequenceClassification`` loads."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from workbench.errors import ConfigError
from workbench.models.architectures import class_of, quiet
from workbench.models.loaded import LoadedModel

SEED = 0
"""Of the weights that a class has before its last layer, where a checkpoint has none for them."""


def classifier_class(model: LoadedModel) -> Any:
    """Return the transformers class of a model for sequence classification, None without one."""
    import transformers

    auto = transformers.AutoModelForSequenceClassification
    config = model.hf_model.config
    known = type(config) in auto._model_mapping
    if not known or model.is_encoder_decoder or config.get_text_config() is not config:
        return None
    return class_of(auto, config)


def as_classifier(model: LoadedModel, labels: Sequence[str]) -> LoadedModel | None:
    """Return a model in the class for sequence classification, its labels in ``id2label``.

    What the class has beyond the backbone (a pooler, the last layer) begins as the class itself
    begins it, the same every time.

    Parameters
    ----------
    model : LoadedModel
        Not changed; the returned one shares no tensor with it.
    labels : sequence of str

    Returns
    -------
    LoadedModel or None
        None if there is no such class, or it is not built around the same backbone.
    """
    built = classifier_class(model)
    old: Any = model.hf_model
    if built is None:
        return None
    config = _config(model, labels)
    with torch.random.fork_rng(devices=[]), quiet(), no_init_weights():
        new: Any = built(config)
    if type(old.base_model) is not type(new.base_model):
        return None
    given = copy.deepcopy(old.base_model)
    shell = new.base_model
    made = [module for name, module in new.named_children() if module is not shell]
    for name in {n for n, _ in (*given.named_children(), *shell.named_children())}:
        wanted = getattr(shell, name, None)
        if wanted is None or getattr(given, name, None) is None:  # a pooler
            setattr(given, name, wanted)
            made += [] if wanted is None else [wanted]
    given.config = config
    setattr(new, new.base_model_prefix, given)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        for part in made:
            for module in part.modules():
                new._init_weights(module)
            part.to(device=model.device, dtype=model.dtype)
    new.eval()
    new.requires_grad_(False)

    before = "" if old.base_model is old else f"{old.base_model_prefix}."
    result = dataclasses.replace(
        model,
        hf_model=new,
        weights={},
        head=None,
        structure=dict(model.structure),
    )
    result.wide = frozenset(
        name_in(result, model, name) for name in model.wide if name.startswith(before)
    )
    for name, weight in model.weights.items():
        moved = name_in(result, model, name)
        if name.startswith(before) and _has(result, moved):
            result.weights[moved] = weight
    return result


def last_layer(model: LoadedModel) -> str | None:
    """Return the name of the linear layer that gives a classifier's logits, None if none does."""
    hf_model: Any = model.hf_model
    prefix, n_labels = f"{hf_model.base_model_prefix}.", hf_model.config.num_labels
    found = [
        name
        for name, module in hf_model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(prefix)
    ]
    is_last = found and hf_model.get_submodule(found[-1]).out_features == n_labels
    return found[-1] if is_last else None


def own_labels(model: LoadedModel) -> list[str] | None:
    """Return the classes that a model's class itself answers, None if it answers none."""
    if model.head is not None or not is_classifier(model.hf_model):
        return None
    names: dict[Any, str] = dict(model.hf_model.config.id2label or {})
    return [str(names[code]) for code in sorted(names, key=int)]


def is_classifier(hf_model: nn.Module) -> bool:
    """Return whether a model's class is one for sequence classification."""
    return type(hf_model).__name__.endswith("ForSequenceClassification")


def is_of_head(hf_model: nn.Module, name: str) -> bool:
    """Return whether a parameter is of what a class for classification adds to a backbone."""
    model: Any = hf_model
    if not is_classifier(model):
        return False
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def name_in(other: LoadedModel, model: LoadedModel, name: str) -> str:
    """Return what a module of one model is called in another around the same backbone."""
    before, after = (
        "" if hf.base_model is hf else f"{hf.base_model_prefix}."
        for hf in (model.hf_model, other.hf_model)
    )
    return after + name.removeprefix(before) if name.startswith(before) else name


def _config(model: LoadedModel, labels: Sequence[str]) -> Any:
    config: Any = copy.deepcopy(model.hf_model.config)
    config.id2label = dict(enumerate(labels))  # sets num_labels
    config.label2id = {label: code for code, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if getattr(config, "pad_token_id", None) is None:  # decoders look for the end of a text by it
        config.pad_token_id = model.pad_token_id
    return config


def _has(model: LoadedModel, name: str) -> bool:
    try:
        model.site(name)
    except ConfigError:
        return False
    return True
