"""Which classes of a model are which labels of a table: by name where that is certain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.errors import ConfigError
from workbench.fields import shown
from workbench.models.classifiers import is_classifier, own_labels
from workbench.models.load import LoadedModel

INDEX = "index"
"""Value of ``label_map`` that says: the labels in their order are the classes in theirs."""


def class_names(model: LoadedModel) -> list[str] | None:
    """Return the names of a model's classes in their order, None if it has no classes."""
    if model.head is not None:
        return list(model.head.labels)
    return own_labels(model)


def has_own_head(model: LoadedModel) -> bool:
    """Return whether the model's class has a head of labels itself."""
    return is_classifier(model.hf_model)


def matching(labels: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return which class each label is, None where that is not certain.

    Names are the same if they are equal; else, if no two labels and no two classes become one by
    it, whatever their case; else also without ``LABEL_`` before them.
    """
    for form in _FORMS:
        known, wanted = [form(name) for name in names], [form(label) for label in labels]
        if len(set(known)) < len(known) or len(set(wanted)) < len(wanted):
            continue
        place = {name: code for code, name in enumerate(known)}
        if all(name in place for name in wanted):
            return [place[name] for name in wanted]
    return None


def _folded(name: str) -> str:
    return name.strip().casefold()


_FORMS: tuple[Callable[[str], str], ...] = (
    str.strip,
    _folded,
    lambda name: _folded(name).removeprefix("label_"),
)


def columns_for(labels: Sequence[str], model: LoadedModel) -> list[int] | None:
    """Return the order of a model's classes that begins with these labels, None without such."""
    names = class_names(model)
    if names is None or len(names) < 2:
        return None
    chosen = matching(labels, names)
    if chosen is None:
        return None
    return chosen + [code for code in range(len(names)) if code not in set(chosen)]


def check_label_map(label_map: Any, labels: Sequence[str]) -> None:
    """Raise ConfigError if a ``label_map`` cannot be one for these labels."""
    if label_map is None or label_map == INDEX:
        return
    if not isinstance(label_map, Mapping):
        raise ConfigError(
            f"label_map={shown(label_map)} is not accepted; give a mapping from your labels to the"
            ' names or numbers of the model\'s classes, such as {"0": "NEGATIVE"}, or "index" if'
            f" your labels in this order ({', '.join(map(repr, labels[:6]))}) are its classes in"
            " theirs."
        )
    given = {str(label) for label in label_map}
    missing = [label for label in labels if label not in given]
    if missing:
        raise ConfigError(
            f"label_map lacks the labels {', '.join(map(repr, missing[:6]))}; it maps every label"
            " of the table to the name or the number of a class of the model."
        )


def named_by(model: LoadedModel, labels: Sequence[str], label_map: Any) -> LoadedModel:
    """Return a model whose own classes are called as the table calls them.

    Parameters
    ----------
    model : LoadedModel
        With a head of its own; not changed. The returned one shares its weights.
    labels : sequence of str
    label_map : mapping or "index"
        As :func:`check_label_map` accepts it.

    Raises
    ------
    ConfigError
        If a class does not exist, or two labels are one class.
    """
    names = class_names(model) or []
    shown = ", ".join(f"{code}: {name!r}" for code, name in enumerate(names[:12]))
    if label_map == INDEX:
        if len(labels) != len(names):
            raise ConfigError(
                f'label_map="index" needs as many labels as classes: the table has {len(labels)},'
                f" {model.source.name} has {len(names)} ({shown}). Give a mapping from labels to"
                " classes."
            )
        codes = list(range(len(labels)))
    else:
        codes = [_code(label_map, label, names, shown, model.source.name) for label in labels]
    if len(set(codes)) < len(codes):
        twice = next(code for code in codes if codes.count(code) > 1)
        raise ConfigError(
            f"label_map gives the class {names[twice]!r} to more than one label; each label needs"
            " a class of its own."
        )
    renamed = dict(enumerate(names))
    for code, label in zip(codes, labels, strict=True):
        renamed[code] = label
    for code, name in renamed.items():
        if code not in codes and name in labels:
            renamed[code] = f"{name} (class {code})"
    return with_config(
        model, id2label=renamed, label2id={name: code for code, name in renamed.items()}
    )


def _code(
    label_map: Mapping[Any, Any], label: str, names: Sequence[str], shown: str, model: str
) -> int:
    given = {str(key): value for key, value in label_map.items()}[label]
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(names):
        return given
    found = matching([str(given)], names) if isinstance(given, str) else None
    if found is None:
        raise ConfigError(
            f"label_map says that {label!r} is the class {given!r}, which {model} does not have;"
            f" it has {shown}."
        )
    return found[0]


def with_config(model: LoadedModel, **fields: Any) -> LoadedModel:
    """Return a model that shares all weights and has other fields in its configuration."""
    import dataclasses

    hf_model = copy.copy(model.hf_model)
    hf_model._modules = dict(hf_model._modules)
    hf_model.config = copy.deepcopy(model.hf_model.config)
    for name, value in fields.items():
        setattr(hf_model.config, name, value)
    return dataclasses.replace(model, hf_model=hf_model, weights=dict(model.weights))


def replaced_words(model: LoadedModel, labels: Sequence[str]) -> str:
    """Return what is said where a model's own head is not the one that is measured."""
    names = class_names(model) or []
    few = ", ".join(map(repr, names[:6])) + (" …" if len(names) > 6 else "")
    own = ", ".join(map(repr, labels[:6])) + (" …" if len(labels) > 6 else "")
    index = ', or label_map="index" if they are the same in this order'
    return (
        f"the head of {model.source.name} is not used: its {len(names)} classes ({few}) are not"
        f" the table's {len(labels)} labels ({own}) by name. A new head on mean-pooled features"
        " was trained in its place, and every number, also of the base model, is of that one. If"
        f" the classes are the labels, say which is which with label_map={{{labels[0]!r}:"
        f" {names[0] if names else ''!r}, …}}{index if len(names) == len(labels) else ''}."
    )
