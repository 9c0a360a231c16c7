"""The terminal's commands that keep order: ``studies``, ``edit``, ``delete`` and ``disk``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.options import StudyPath, open_study
from workbench.cli.tables import output, print_columns
from workbench.errors import ConfigError

commands = typer.Typer()

Runs = Annotated[list[str], typer.Option("--run", help="Id or name of a run; may be repeated.")]


@commands.command()
def studies(
    folder: Annotated[Path, typer.Argument(help="Where to look, two levels deep.")] = Path(),
) -> None:
    """List the studies in a folder: when they changed, of what, how many runs, how large."""
    from workbench.study.curating import studies as listed

    found = listed(folder)
    if found.empty:
        output().print(f"No study lies in {folder}.", markup=False, highlight=False)
        return
    print_columns(
        {
            "study": list(found.index),
            "changed": [str(when) for when in found["changed"]],
            "model": list(found["models"]),
            "task": list(found["task"]),
            "runs": [str(count) for count in found["runs"]],
            "MB": [f"{size:.1f}" for size in found["size_mb"]],
            "error": list(found["problem"]),
        }
    )


@commands.command()
def edit(
    study: StudyPath,
    run: Runs,
    name: Annotated[str | None, typer.Option(help="Shown in place of the recipe.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Adds one; may be repeated.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Takes one away.")] = None,
    note: Annotated[str | None, typer.Option(help="What is to be remembered.")] = None,
    star: Annotated[bool | None, typer.Option("--star/--no-star")] = None,
    hide: Annotated[bool | None, typer.Option("--hide/--unhide")] = None,
) -> None:
    """Name runs, tag them, note something, star or hide them."""
    given: dict[str, Any] = {"name": name, "note": note, "starred": star, "hidden": hide}
    changes = {what: value for what, value in given.items() if value is not None}
    if not changes and not tag and not untag:
        raise ConfigError(
            "Nothing to change: give --name, --tag, --untag, --note, --star or --hide."
        )
    opened = open_study(study)
    for one in [opened[id] for id in run]:
        for what, value in changes.items():
            setattr(one, what, value)
        if tag or untag:
            one.tags = [t for t in (*one.tags, *(tag or ())) if t not in (untag or ())]
        output().print(f"{one.id} {one.label}", markup=False, highlight=False)


@commands.command()
def delete(
    study: StudyPath,
    run: Runs,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete runs and what only they need; says what is freed, and asks first."""
    opened = open_study(study)
    chosen = [opened[id] for id in run]
    freed = opened.would_free(chosen) / 1e6
    names = ", ".join(one.label for one in chosen)
    if not yes and not typer.confirm(f"Delete {names}? It frees {freed:.2f} MB"):
        raise typer.Exit(1)
    freed = opened.delete(chosen) / 1e6
    output().print(f"Deleted {names}: {freed:.2f} MB freed", markup=False, highlight=False)


@commands.command()
def disk(
    study: StudyPath,
    clean: Annotated[
        str | None,
        typer.Option(help="Remove weights, statistics, predictions or checkpoints, by commas."),
    ] = None,
) -> None:
    """Say what a study takes on the disk, or remove what is made again when it is needed."""
    opened, out = open_study(study), output()
    if clean is not None:
        freed = opened.clean([part.strip() for part in clean.split(",") if part.strip()])
        out.print(f"{freed / 1e6:.2f} MB freed", highlight=False)
    found = opened.disk_use()
    print_columns({"part": list(found), "MB": [f"{size / 1e6:.2f}" for size in found.values()]})
