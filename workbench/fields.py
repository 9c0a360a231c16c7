"""Declared fields: what forms, help texts and validation of options are made from.

Every option of the package is checked here, be it a field of a record or a parameter of a function:
what is accepted, and how it is said, is the same everywhere. A number is a number whoever made it,
so numpy's are taken, and become Python's; True is no number, and neither is a text.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError

MOST_WHOLE = 2**63 - 1
MOST_NUMBER = 1e300
"""Sums and products of larger ones are no longer finite."""

MOST_SEED = 2**32 - 1
"""What numpy and torch both take."""


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
    above, below : float or None
        Exclusive bounds.
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
    above: float | None = None
    below: float | None = None


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
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a field of a record with what forms, help texts and validation need.

    ``later`` marks a field that was added to a released step; see ``Step.to_dict``.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "none_means": none_means,
        "later": later,
        "above": above,
        "below": below,
    }
    return dataclasses.field(default=default, metadata=metadata, kw_only=not positional)


def fields_of(record: type[Any]) -> tuple[FieldInfo, ...]:
    """Return the fields of a class made of :func:`option` fields, in their order."""
    if record in _FIELDS:  # a journal is read often, and every step in it is checked
        return _FIELDS[record]
    hints = typing.get_type_hints(record)
    infos = []
    for field in dataclasses.fields(record):
        if "help" not in field.metadata:  # a field that no form shows
            continue
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
    _FIELDS[record] = tuple(infos)
    return _FIELDS[record]


_FIELDS: dict[type[Any], tuple[FieldInfo, ...]] = {}


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def check_fields(record: Any) -> None:
    """Check every declared field of a frozen record and put what was accepted in its place.

    Raises
    ------
    ConfigError
        With the first field that is not accepted.
    """
    for info in fields_of(type(record)):
        value = accepted(type(record).__name__, info, getattr(record, info.name))
        object.__setattr__(record, info.name, value)


def accepted(owner: str, info: FieldInfo, value: Any) -> Any:
    """Return a value as the type that is declared, if it is accepted.

    Parameters
    ----------
    owner : str
        The class or function, for the message.
    info : FieldInfo
    value : object

    Raises
    ------
    ConfigError
        If it is of another type, out of bounds, not finite or none of the choices.
    """
    if value is None and info.optional:
        return None
    found = _as_type(info.type, value)
    fits = found is not None
    if fits and info.choices and info.minimum is None:
        fits = found in info.choices
    if fits and not isinstance(found, (str, bool)):
        fits = (
            abs(found) <= (MOST_WHOLE if info.type is int else MOST_NUMBER)
            and (info.minimum is None or found >= info.minimum)
            and (info.maximum is None or found <= info.maximum)
            and (info.above is None or found > info.above)
            and (info.below is None or found < info.below)
        )
    if not fits:
        raise ConfigError(
            f"{owner}: {info.name}={shown(value)} is not accepted; give {what_is_accepted(info)}."
            f"{_meant(info, value)}"
        )
    return found


def whole(
    owner: str,
    name: str,
    value: Any,
    *,
    minimum: int = 1,
    maximum: int | None = None,
    unit: str = "",
    none_means: str = "",
) -> Any:
    """Return a parameter that is a whole number, or None where ``none_means`` says what for.

    Raises
    ------
    ConfigError
        As :func:`accepted`.
    """
    info = _parameter(name, int, unit, none_means, minimum=minimum, maximum=maximum)
    return accepted(owner, info, value)


def number(owner: str, name: str, value: Any, *, none_means: str = "", **about: Any) -> Any:
    """Return a parameter that is a finite number, or None where ``none_means`` says what for.

    Parameters
    ----------
    owner, name : str
    value : object
    none_means : str
    **about
        ``unit``, ``minimum``, ``maximum``, ``above`` and ``below`` of :class:`FieldInfo`.
    """
    unit = about.pop("unit", "")
    return accepted(owner, _parameter(name, float, unit, none_means, **about), value)


def seed(owner: str, value: Any, name: str = "seed") -> int:
    """Return a seed: a whole number that numpy and torch both take."""
    found: int = whole(owner, name, value, minimum=0, maximum=MOST_SEED)
    return found


def flag(owner: str, name: str, value: Any) -> bool:
    """Return a parameter that is True or False."""
    found: bool = accepted(owner, _parameter(name, bool, "", ""), value)
    return found


def words(owner: str, name: str, value: Any, *, none_means: str = "", most: int = 1000) -> Any:
    """Return a parameter that is a text of one line, not blank and not endless.

    Raises
    ------
    ConfigError
        As :func:`accepted`.
    """
    if value is None and none_means:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > most or "\0" in value:
        more = f", or None for {none_means}" if none_means else ""
        raise ConfigError(
            f"{owner}: {name}={shown(value)} is not accepted; give a text of 1 to {most:,}"
            f" characters{more}."
        )
    if _HIDDEN.search(value):
        raise ConfigError(
            f"{owner}: {name}={shown(value)} has marks that cannot be seen; give it without them."
        )
    return value


def listed(owner: str, name: str, value: Any, what: str) -> list[Any]:
    """Return the members of a list, or of another collection that is no text.

    Parameters
    ----------
    owner, name : str
    value : object
    what : str
        What is accepted, for the message.
    """
    try:
        if isinstance(value, (str, bytes, type)):
            raise TypeError
        return list(value)
    except TypeError as error:
        raise ConfigError(
            f"{owner}: {name}={shown(value)} is not accepted; give {what}."
        ) from error


def instance(owner: str, name: str, value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """Return a value that must be of a class, or None."""
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{owner}: {name}={shown(value)} is not accepted; give {what}.")
    return value


def text_given(owner: str, name: str, value: Any) -> str:
    """Return a text of whole characters, which a tokenizer takes.

    Raises
    ------
    ConfigError
        If it is no text, or has half a character (a lone surrogate).
    """
    if not isinstance(value, str):
        raise ConfigError(f"{owner}: {name}={shown(value)} is no text; give a string.")
    if any("\ud800" <= mark <= "\udfff" for mark in value):
        raise ConfigError(
            f"{owner}: {name}={shown(value)} has half a character (a lone surrogate); give whole"
            " ones."
        )
    return value


def texts_given(owner: str, name: str, value: Any) -> list[str]:
    """Return a list of texts, each as :func:`text_given` takes it.

    Raises
    ------
    ConfigError
        If it is one text, no list, or a member is no text.
    """
    return [text_given(owner, name, one) for one in listed(owner, name, value, "a list of texts")]


_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, and marks that turn the direction of what is written around them."""


def printable(text: str) -> str:
    """Return a name that somebody else wrote without what could disguise it, each mark as a �."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def shown(value: Any) -> str:
    """Return a value for a message: its ``repr``, cut where it is long, or its type."""
    if isinstance(value, numbers.Integral) and abs(int(value)) >= 10**30:
        return f"a number of {len(f'{int(value):x}') * 4} bits"
    try:
        text = printable(repr(value))
    except Exception:  # whatever a stranger's class does
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:76]} …"


def _parameter(name: str, kind: type, unit: str, none_means: str, **bounds: Any) -> FieldInfo:
    limits = {"minimum": None, "maximum": None, **bounds}
    return FieldInfo(name, "", unit, kind, None, bool(none_means), none_means, choices=(), **limits)


def _as_type(kind: type, value: Any) -> Any:
    """Return the value as ``kind``, None if it is none; the text of a path is a text."""
    is_flag = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind is bool:
        return bool(value) if is_flag else None
    if kind is str:
        return value if isinstance(value, str) else str(value) if isinstance(value, Path) else None
    if is_flag:
        return None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) else None
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


def what_is_accepted(info: FieldInfo) -> str:
    """Return in words what a field takes."""
    kind = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    if info.choices and info.minimum is None:
        text = "one of " + ", ".join(repr(c) for c in info.choices)
    else:
        text = kind[info.type]
        low = None if info.minimum is None else f"of at least {_bound(info.minimum)}"
        high = None if info.maximum is None else f"at most {_bound(info.maximum)}"
        if info.minimum is not None and info.maximum is not None:
            low, high = f"from {_bound(info.minimum)} to {_bound(info.maximum)}", None
        if info.above is not None:
            low = f"above {_bound(info.above)}"
        if info.below is not None:
            high = f"below {_bound(info.below)}"
        text = " ".join([text, " and ".join(part for part in (low, high) if part)]).rstrip()
    if info.unit:
        text += f" ({info.unit})"
    if info.optional:
        text += f", or None for {info.none_means}"
    return text


def _bound(value: float) -> str:
    large = abs(value) >= 1e5 and float(value).is_integer()
    return f"{int(value):,}" if large else f"{value:g}"


def _meant(info: FieldInfo, value: Any) -> str:
    if not isinstance(value, str) or info.type is not str or not info.choices:
        return ""
    near = difflib.get_close_matches(value, [str(c) for c in info.choices], 1, 0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
