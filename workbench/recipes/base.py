"""What every step's configuration is made of: fields that forms and validation are made from."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError


@dataclass(frozen=True)
class FieldInfo:
    """What a form or a help text needs to know about one field of a step.

    Attributes
    ----------
    name, help, unit : str
        ``unit`` is empty for plain numbers and choices.
    type : type
        ``bool``, ``int``, ``float`` or ``str``.
    default : object
    optional : bool
        Whether None is accepted; ``none_means`` says what it stands for.
    minimum, maximum : float or None
        Inclusive bounds.
    choices : tuple
        Accepted values, or the suggested ones where ``minimum`` is given too.
    """

    name: str
    help: str
    unit: str
    type: type
    default: Any
    optional: bool
    none_means: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...]


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] = (),
    none_means: str = "",
    positional: bool = False,
    later: bool = False,
) -> Any:
    """Declare a field of a step with what forms, help texts and validation need.

    ``later`` marks a field that was added to a released step; see :meth:`Step.to_dict`.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "none_means": none_means,
        "later": later,
    }
    return dataclasses.field(default=default, metadata=metadata, kw_only=not positional)


@dataclass(frozen=True)
class Step:
    """Base class of all steps; concrete steps are frozen dataclasses of :func:`option` fields."""

    title: ClassVar[str] = ""
    about: ClassVar[str] = ""
    produces: ClassVar[str] = "dense"
    """What is stored afterwards: ``"codes"``, ``"masks"``, ``"corrected"`` or ``"dense"``.

    ``"dense"`` stands for no change of the layers in the blocks. May depend on the step's values.
    """
    keeps: ClassVar[frozenset[str]] = frozenset({"dense"})
    """Stored forms that may come before this step without being destroyed by it."""
    begins_on_codes: ClassVar[bool] = False
    """Whether the step may come first, for a base model that was loaded as codes."""
    repeatable: ClassVar[bool] = True
    """Whether a recipe may hold a second step of this type."""

    def __post_init__(self) -> None:
        for info in fields_of(type(self)):
            _check(self, info)

    @property
    def label(self) -> str:
        """A short text for tables and plots, such as ``"GPTQ 4-bit g128"``."""
        return self.title

    def stored_after(self, stored: str) -> str:
        """Return what the layers in the blocks are stored as afterwards, given what they were."""
        return stored if self.produces == "dense" else self.produces

    def refusal(self, stored: str, before: Step | None) -> str:
        """Return why this step cannot be applied to what is stored, and what to do."""
        name = type(self).__name__
        if stored == "dense" or before is None:
            return (
                f"{self.label} needs a step before it that quantizes or prunes, such as"
                f" GPTQ(4): it restores what that step lost. Put {name} behind one."
            )
        return (
            f"{self.label} cannot follow {before.label}: the weights are stored as {stored} by"
            f" then, and {name} would destroy them. Put {name} first, or leave one of the two out."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON-ready data, ``{"step": name, **fields}``.

        Fields that came with a later version are left out at their default, so that recipes
        which do not use them keep their ids.
        """
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata["later"] or getattr(self, field.name) != field.default
        }
        return {"step": type(self).__name__, **values}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Step:
        """Return the step with these values of its fields; the opposite of :meth:`to_dict`."""
        known = {info.name for info in fields_of(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"{cls.__name__} has no field {', '.join(unknown)}; its fields are"
                f" {', '.join(sorted(known))}."
            )
        return cls(**values)

    @property
    def parts(self) -> tuple[Step, ...]:
        """The steps that this one stands for: itself, unless it is made of others."""
        return (self,)

    def code(self) -> str:
        """Return the Python that makes this step: the obvious first argument, then what differs."""
        parts = []
        for index, info in enumerate(fields_of(type(self))):
            value = getattr(self, info.name)
            if index == 0:
                parts.append(repr(value))
            elif value != info.default:
                parts.append(f"{info.name}={value!r}")
        return f"wb.{type(self).__name__}({', '.join(parts)})"


def fields_of(step: type[Any]) -> tuple[FieldInfo, ...]:
    """Return the fields of a class made of :func:`option` fields, in their order."""
    if step in _FIELDS:  # a journal is read often, and every step in it is checked
        return _FIELDS[step]
    hints = typing.get_type_hints(step)
    infos = []
    for field in dataclasses.fields(step):
        hint = hints[field.name]
        members = typing.get_args(hint) if _is_union(hint) else (hint,)
        kinds = [m for m in members if m is not types.NoneType]
        infos.append(
            FieldInfo(
                name=field.name,
                type=kinds[0],
                default=field.default,
                optional=types.NoneType in members,
                **{key: value for key, value in field.metadata.items() if key != "later"},
            )
        )
    _FIELDS[step] = tuple(infos)
    return _FIELDS[step]


def documented(step: type[Step]) -> str:
    """Return a step's docstring with its parameters, as its fields describe themselves."""
    lines = [inspect.cleandoc(step.__doc__ or ""), "", "Parameters", "----------"]
    for info in fields_of(step):
        lines.append(f"{info.name} : {_accepts(info)}; default {info.default!r}")
        lines += textwrap.wrap(info.help, 92, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


_FIELDS: dict[type[Any], tuple[FieldInfo, ...]] = {}


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _accepts(info: FieldInfo) -> str:
    kind = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    if info.choices and info.minimum is None:
        text = "one of " + ", ".join(repr(c) for c in info.choices)
    else:
        text = kind[info.type]
        if info.minimum is not None and info.maximum is not None:
            text += f" from {info.minimum:g} to {info.maximum:g}"
        elif info.minimum is not None:
            text += f" of at least {info.minimum:g}"
    if info.unit:
        text += f" ({info.unit})"
    if info.optional:
        text += f", or None for {info.none_means}"
    return text


def _check(step: Step, info: FieldInfo) -> None:
    value = getattr(step, info.name)
    if value is None and info.optional:
        return
    if info.type is float and type(value) is int:
        value = float(value)
        object.__setattr__(step, info.name, value)
    fits = type(value) is info.type
    if fits and info.choices and info.minimum is None:
        fits = value in info.choices
    if fits and info.minimum is not None:
        fits = value >= info.minimum
    if fits and info.maximum is not None:
        fits = value <= info.maximum
    if not fits:
        raise ConfigError(
            f"{type(step).__name__}: {info.name}={value!r} is not accepted; give {_accepts(info)}."
        )
