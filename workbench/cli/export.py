"""The terminal's commands that export: ``export`` and ``formats``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.options import StudyPath, open_study
from workbench.cli.tables import errors, output
from workbench.cli.tasks import TrustRemoteCode
from workbench.errors import StudyError

if TYPE_CHECKING:
    from workbench.study import Run, Study

commands = typer.Typer()

RunId = Annotated[str, typer.Option(help="Id of a run, from the table --csv.", show_default=False)]


@commands.command()
def export(
    study: StudyPath,
    to: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    run: RunId,
    format: Annotated[str, typer.Option(help="As the command formats lists them.")] = "hf",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
    zipped: Annotated[bool, typer.Option("--zip", help="Write it as one file too.")] = False,
    push: Annotated[
        str | None,
        typer.Option(help="Then upload it to this repository of the hub; token from HF_TOKEN."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Of a repository that --push makes.")
    ] = False,
) -> None:
    """Write a run's model for other programs, load it again and compare its logits."""
    from workbench.cli.progress import show_stages

    chosen, out = _run(open_study(study), run), output()
    try:
        with show_stages(errors()) as on_progress:
            exported = chosen.export(to, format, overwrite=overwrite, on_progress=on_progress)
    except KeyboardInterrupt:
        out.print("Cancelled. Nothing was written.", markup=False, highlight=False)
        raise typer.Exit(130) from None
    out.print(str(exported), markup=False, highlight=False, soft_wrap=True)
    card = f"How to load it: {exported.path / 'README.md'}"
    out.print(card, markup=False, highlight=False, soft_wrap=True)
    if zipped:
        out.print(f"As one file: {exported.zip(overwrite=overwrite)}", markup=False, soft_wrap=True)
    if push is not None:
        where = exported.push(push, private=not public)
        out.print(f"Pushed: {where}", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def points(
    study: StudyPath,
    to: Annotated[Path, typer.Argument(help="A .csv or .json file.", show_default=False)],
) -> None:
    """Write every run and every predicted point of the front to a file."""
    path = open_study(study).save_points(to)
    output().print(f"Wrote {path}", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def mlflow(
    study: StudyPath,
    uri: Annotated[str | None, typer.Option(help="A server, or file:///a/folder.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Default: of the task's name.")] = None,
) -> None:
    """Log a study's finished runs to MLflow, each once."""
    logged = open_study(study).log_to_mlflow(tracking_uri=uri, experiment=experiment)
    output().print(f"{len(logged)} runs are in MLflow", markup=False, highlight=False)


@commands.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="Folder or Hugging Face id of a checkpoint.", show_default=False)
    ],
    to: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    format: Annotated[
        str, typer.Option(help="gptq, awq, compressed-tensors, mlx, gguf …", show_default=False)
    ],
    requantize: Annotated[
        int | None,
        typer.Option(help="Bits to which layers are rounded that the format cannot hold."),
    ] = None,
    group_size: Annotated[
        int, typer.Option(help="Of --requantize: weights that share a scale.")
    ] = 32,
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
) -> None:
    """Write a checkpoint in another format that holds its codes as they are."""
    from workbench.cli.progress import show_stages
    from workbench.export.convert import convert as convert_checkpoint
    from workbench.recipes import RTN

    step = None if requantize is None else RTN(requantize, group_size=group_size)
    with show_stages(errors()) as on_progress:
        converted = convert_checkpoint(
            source,
            to,
            format,
            requantize=step,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    output().print(str(converted), markup=False, highlight=False, soft_wrap=True)


@commands.command()
def formats(study: StudyPath, run: RunId) -> None:
    """List the formats that can hold a run's model, with their sizes, and why others cannot."""
    for offer in _run(open_study(study), run).export_offers():
        if offer.size_bytes is None:
            text = f"{offer.format:<20} -            {offer.refusal}"
        else:
            text = f"{offer.format:<20} {offer.size_bytes / 1e6:>8.2f} MB  for {offer.loaders}"
        output().print(text, markup=False, highlight=False, soft_wrap=True)


def _run(study: Study, id: str) -> Run:
    found = [run for run in study.runs if run.id == id]
    if not found:
        raise StudyError(
            f"The study in {study.path} has no run {id!r}; its table --csv lists their ids."
        )
    return found[0]
