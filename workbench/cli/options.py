"""How the terminal names a study and recipes: methods and numbers, separated by commas."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from workbench.recipes.recipe import Recipe
    from workbench.study import Study

StudyPath = Annotated[Path, typer.Argument(help="Folder of the study.", show_default=False)]
Methods = Annotated[
    str, typer.Option(help="Names, separated by commas; gptq+correction is a recipe of two steps.")
]
Bits = Annotated[str, typer.Option(help="For methods that quantize.")]
GroupSizes = Annotated[
    str, typer.Option(help='For methods that quantize; "none" is one scale per channel.')
]
Ratios = Annotated[str, typer.Option(help="For methods that prune.")]
Exportable = Annotated[
    bool,
    typer.Option(
        "--exportable",
        help="AWQ: scale only what the layer before can absorb, so that the formats gptq, awq,"
        " compressed-tensors and gguf can hold the result.",
    ),
]


def recipes_of(
    methods: str, bits: str, group_sizes: str, ratios: str, exportable: bool = False
) -> list[Recipe]:
    """Return every combination that the options ``--methods``, ``--bits`` … name, without repeats.

    Methods joined by ``+`` are the steps of one recipe, from first to last. ``exportable`` is for
    the steps that have such a field.

    Raises
    ------
    ConfigError
        If a name or a number is not accepted, or no method can be made exportable.
    """
    from workbench.recipes import fields_of
    from workbench.recipes.recipe import Recipe

    numbers = _numbers("--bits", bits, int)
    sizes = _numbers("--group-sizes", group_sizes, _size)
    shares = _numbers("--ratios", ratios, float)

    def variants(name: str) -> list[Any]:
        step = _step(name)
        fields = {info.name for info in fields_of(step)}
        if "ratio" in fields:  # before bits: SparseGPT has them too, and prunes only by default
            return [step(ratio=share) for share in shares]
        if {"bits", "group_size"} <= fields:
            more = {"exportable": True} if exportable and "exportable" in fields else {}
            return [step(bits=b, group_size=g, **more) for b in numbers for g in sizes]
        return [step()]

    recipes = []
    for chain in _names("--methods", methods):
        steps = [variants(name.strip()) for name in chain.split("+")]
        recipes += [Recipe.of(chosen) for chosen in itertools.product(*steps)]
    made = [step for recipe in recipes for step in recipe.steps]
    if exportable and not any(getattr(step, "exportable", False) for step in made):
        raise ConfigError(
            f"--exportable is for AWQ, and --methods {methods} has none; other methods store"
            " nothing that a format cannot hold. Leave it out, or add awq to --methods."
        )
    return list(dict.fromkeys(recipes))


def _step(name: str) -> Any:
    import difflib

    from workbench.recipes import STEPS

    known = {key.lower(): step for key, step in STEPS.items()}
    known |= {step.title.lower(): step for step in STEPS.values()}
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), known, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        titles = ", ".join(step.title.lower() for step in STEPS.values())
        raise ConfigError(f"--methods: {name!r} is not a method; there are {titles}.{hint}")
    return known[name.lower()]


def _names(option: str, text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ConfigError(f"{option} is empty; give values separated by commas.")
    return names


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    numbers = []
    for part in _names(option, text):
        try:
            numbers.append(kind(part))
        except ValueError:
            raise ConfigError(
                f"{option}: {part!r} is not a number; give numbers separated by commas."
            ) from None
    return numbers


def _size(text: str) -> int | None:
    return None if text.lower() in ("none", "channel") else int(text)


def open_study(path: Path) -> Study:
    """Return the study in a folder.

    Raises
    ------
    StudyError
        If there is none.
    """
    from workbench.study import Study

    if path.is_file():
        raise StudyError(f"{path} is a file; give the folder of a study.")
    if not path.is_dir():
        raise StudyError(f"There is no study in {path}; workbench sweep --study {path} makes one.")
    return Study.open(path)
