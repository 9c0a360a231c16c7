"""A recipe: the steps that turn one model into a smaller one."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.fields import shown
from workbench.recipes import Step, step_from_dict

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """A tuple of steps, applied from first to last. The empty recipe is the dense baseline.

    Raises
    ------
    ConfigError
        If a member is not a step, if a step would destroy what an earlier one stored, or has
        nothing to work on.

    Examples
    --------
    >>> from workbench.recipes import GPTQ, MagnitudePruning
    >>> Recipe.of([MagnitudePruning(0.5), GPTQ(4)]).label
    'Magnitude 50% → GPTQ 4-bit g128'
    """

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        stored = "dense"
        for index, step in enumerate(self.steps):
            if not isinstance(step, Step):
                hint = f"; did you mean {step.__name__}()?" if isinstance(step, type) else "."
                raise ConfigError(f"{shown(step)} is not a step{hint}")
            if not step.repeatable and type(step) in map(type, self.steps[:index]):
                raise ConfigError(
                    f"{step.label}: a recipe has at most one {type(step).__name__}; leave one out."
                )
            if index == 0 and step.begins_on_codes:
                stored = "codes"  # whether the base model has them is seen where it is known
            if stored not in step.keeps:
                raise ConfigError(step.refusal(stored, self.steps[index - 1] if index else None))
            stored = step.stored_after(stored)

    @classmethod
    def of(cls, steps: Recipe | Step | Iterable[Step]) -> Recipe:
        """Return a recipe from a recipe, one step, or several steps."""
        if isinstance(steps, Recipe):
            return steps
        if isinstance(steps, Step):
            return cls((steps,))
        found = None
        if not isinstance(steps, (str, bytes, type)):
            with contextlib.suppress(TypeError):  # an array of no dimension says it is iterable
                found = tuple(steps)
        if found is not None:
            return cls(found)
        raise ConfigError(
            f"{shown(steps)} is not a recipe; give a step such as GPTQ(4), or a list of steps."
        )

    @property
    def label(self) -> str:
        """A short text for tables and plots; ``"dense"`` for the empty recipe."""
        return " → ".join(step.label for step in self.steps) or "dense"

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that depend on the steps and their values alone."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def prefix(self, length: int) -> Recipe:
        """Return the recipe of the first ``length`` steps."""
        return Recipe(self.steps[:length])

    def to_json(self) -> str:
        """Return the canonical JSON form (sorted keys, no spaces)."""
        data = {"version": FORMAT_VERSION, "steps": [step.to_dict() for step in self.steps]}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the recipe that :meth:`to_json` wrote.

        Raises
        ------
        ConfigError
            If the text is no recipe, or was written by a newer version.
        """
        try:
            data = json.loads(text)
            version, steps = data["version"], data["steps"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"Not a recipe in JSON: {text[:80]!r}") from error
        if version > FORMAT_VERSION:
            raise ConfigError(
                f"The recipe has format version {version}; this version reads up to"
                f" {FORMAT_VERSION}. Upgrade compression-workbench to read it."
            )
        return cls(tuple(step_from_dict(step) for step in steps))

    @property
    def short_label(self) -> str:
        """The label, cut with an ellipsis where a row of a table has no room for it."""
        return shortened(self.label)

    def code(self) -> str:
        """Return the Python expression that makes the recipe's steps."""
        codes = [step.code() for step in self.steps]
        return codes[0] if len(codes) == 1 else f"[{', '.join(codes)}]"


def shortened(text: str, most: int = 64) -> str:
    """Return a text of at most so many characters, with an ellipsis for what was cut."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip(' ,→')}…"
