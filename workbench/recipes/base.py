"""What every step's configuration is made of: fields that forms and validation are made from."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.fields import FieldInfo, check_fields, fields_of, option, what_is_accepted

__all__ = ["FieldInfo", "Step", "fields_of", "option"]


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
        check_fields(self)

    @property
    def implied(self) -> frozenset[str]:
        """Fields that follow from others here, so that :meth:`code` leaves them out."""
        return frozenset()

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
            elif value != info.default and info.name not in self.implied:
                parts.append(f"{info.name}={value!r}")
        return f"wb.{type(self).__name__}({', '.join(parts)})"


def documented(step: type[Step]) -> str:
    """Return a step's docstring with its parameters, as its fields describe themselves."""
    lines = [inspect.cleandoc(step.__doc__ or ""), "", "Parameters", "----------"]
    for info in fields_of(step):
        lines.append(f"{info.name} : {what_is_accepted(info)}; default {info.default!r}")
        lines += textwrap.wrap(info.help, 92, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
