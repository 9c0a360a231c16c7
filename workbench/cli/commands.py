"""The terminal: ``workbench demo``, ``lab``, ``sweep``, ``measure``, ``table``, ``plot`` and more.

The commands that predict are in :mod:`workbench.cli.predict`, those that export in
:mod:`workbench.cli.export`, those that decide in :mod:`workbench.cli.decide`, those that keep order
in :mod:`workbench.cli.curate`.

Exit codes: 0 all is well; 1 a run failed, or no run passes the bar; 2 the input is not accepted;
130 cancelled with Ctrl-C. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.atomic_files import write_file
from workbench.cli import curate as curating
from workbench.cli import decide as deciding
from workbench.cli import export as exporting
from workbench.cli import predict as predicting
from workbench.cli.options import (
    Bits,
    Exportable,
    GroupSizes,
    Methods,
    Ratios,
    StudyPath,
    open_study,
    recipes_of,
)
from workbench.cli.tables import errors, output, print_runs, rows_of
from workbench.cli.tasks import Kind, Shots, Target, TaskOptions, Template, TrustRemoteCode, task_of
from workbench.errors import ConfigError, DataError, StudyError, WorkbenchError
from workbench.records import RunState
from workbench.study.handing_over import csv_of
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.study import Study
    from workbench.tasks import Task

NOTEBOOKS = (
    "01-quickstart.ipynb",
    "02-distil-and-specialise.ipynb",
    "03-choose-the-right-size.ipynb",
)

app = typer.Typer(
    name="workbench",
    help="Make language models smaller and see what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(predicting.commands)
app.add_typer(exporting.commands)
app.add_typer(deciding.commands)
app.add_typer(curating.commands)

HtmlPath = Annotated[Path, typer.Option("--html", help="The interactive plot is written here.")]


def main() -> NoReturn:
    """Run the command line and exit; an error of the workbench is one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app()
    except WorkbenchError as error:
        text = " ".join(str(error).split())
        errors().print(f"Error: {text}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"compression-workbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    study: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("workbench-demo"),
    html: HtmlPath = Path("workbench-demo.html"),
) -> None:
    """Compress the bundled model in twelve ways and draw the trade-off (about two minutes)."""
    from workbench.recipes import AWQ, GPTQ, RTN, MagnitudePruning

    recipes: list[Any] = [
        method(bits, group_size=32) for bits in (4, 3, 2) for method in (RTN, GPTQ, AWQ)
    ]
    recipes += [MagnitudePruning(ratio) for ratio in (0.3, 0.5, 0.7)]
    run_sweep(lambda: _study("demo", "demo", study), recipes, html, "workbench demo")
    if importlib.util.find_spec("jupyterlab") is None:
        following = 'make lab   (or pip install "compression-workbench[lab]", then workbench lab)'
    else:
        following = "workbench lab   (opens the quickstart notebook in JupyterLab)"
    output().print(f"Next: {following}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def sweep(
    model: Annotated[str, typer.Option(help='"demo", a folder, or a Hugging Face id.')] = "demo",
    task: Annotated[
        str,
        typer.Option(
            help='"demo", a text file, a table with --text and --label, or a task of the'
            " lm-evaluation-harness: lm-eval:NAME or a .yaml file."
        ),
    ] = "demo",
    kind: Kind = None,
    text: Annotated[str | None, typer.Option(help="Column of the table with the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the table with the labels.")] = None,
    target: Target = None,
    shots: Shots = None,
    template: Template = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of the text file or table; by default it is detected.")
    ] = None,
    on_bad_rows: Annotated[
        str | None,
        typer.Option(help='"error", or "skip" to leave out rows of a table that are not usable.'),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    methods: Methods = "rtn,gptq,awq,magnitude",
    bits: Bits = "2,3,4",
    group_sizes: GroupSizes = "128",
    ratios: Ratios = "0.3,0.5,0.7",
    exportable: Exportable = False,
    study: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("workbench-study"),
    html: HtmlPath = Path("workbench-plot.html"),
) -> None:
    """Compress a model in every combination of methods and settings; finished runs are kept."""
    recipes = recipes_of(methods, bits, group_sizes, ratios, exportable)
    told = TaskOptions(
        kind, text, label, target, shots, template, trust_remote_code, encoding, on_bad_rows
    )
    run_sweep(lambda: _study(model, task_of(task, told), study), recipes, html, "the same command")


@app.command()
def table(
    study: StudyPath,
    csv: Annotated[bool, typer.Option("--csv", help="Print all columns as CSV.")] = False,
    filter: Annotated[str, typer.Option(help="Words of the name, recipe, note, tags, state.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Runs with it; may be repeated.")] = None,
    starred: Annotated[bool, typer.Option("--starred", help="Runs with a star.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Hidden runs too.")] = False,
) -> None:
    """Print the runs of a study."""
    opened = open_study(study)
    chosen = opened.select(filter, tags=tag or (), starred=True if starred else None)
    found = opened.table(hidden=everything)
    found = found[found.index.isin([run.id for run in chosen])]
    if csv:
        typer.echo(csv_of(found), nl=False)
    else:
        print_runs(found, opened.metric)


@app.command()
def plot(
    study: StudyPath,
    html: HtmlPath = Path("workbench-plot.html"),
    log_x: Annotated[bool, typer.Option(help="Logarithmic size axis.")] = False,
) -> None:
    """Write the interactive plot of a study, or a picture if the file ends with .svg."""
    _check_plot(html)
    _write_plot(open_study(study), html, log_x)


@app.command()
def measure(
    study: StudyPath,
    run: Annotated[
        list[str] | None, typer.Option(help="Id of a run, from the table; may be repeated.")
    ] = None,
    all_runs: Annotated[
        bool, typer.Option("--all", help="All finished runs, the base models included.")
    ] = False,
    repeats: Annotated[int, typer.Option(help="Medians of so many are recorded.", min=3)] = 7,
) -> None:
    """Measure memory and latency of runs on this machine, and record them in the study."""
    if bool(run) == all_runs:
        raise ConfigError("Give either --run ID (the table --csv has the ids) or --all.")
    opened, out = open_study(study), output()
    chosen = run or [r.id for r in opened.records if r.state is RunState.DONE]
    if not chosen:
        raise StudyError(f"The study in {study} has no finished runs to measure.")
    failed, where = 0, ""
    for number, id in enumerate(chosen, 1):
        try:
            found = {m.metric: m for m in opened.measure(id, repeats=repeats)}
        except WorkbenchError as error:
            if len(chosen) == 1:
                raise
            failed += 1
            typer.echo(f"[{number}/{len(chosen)}] {id} failed: {error}", err=True)
            continue
        record = next(r for r in opened.records if r.id == id)
        latency = found["latency_ms"]
        text = f"[{number}/{len(chosen)}] {record.model}, {record.label}: "
        text += f"{latency.value:.4g} ms (spread {latency.spread:.2g}), {latency.how}"
        if "resident_bytes" in found:
            text += f", holds {found['resident_bytes'].value / 1e6:.1f} MB after a run"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
        where = latency.conditions
    if where:
        out.print(f"Measured on {where}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    notebook: Annotated[
        Path, typer.Argument(help=f"A notebook to open: yours, or {', '.join(NOTEBOOKS)}.")
    ] = Path(NOTEBOOKS[0]),
) -> None:
    """Open a notebook in JupyterLab; further options are JupyterLab's own.

    The package's own notebooks are copied to this folder first, where they are not here yet.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise ConfigError(
            'JupyterLab is not installed. Install it with: pip install "compression-workbench[lab]"'
        )
    further = list(context.args)
    if str(notebook).startswith("-"):  # an option of JupyterLab's comes first, and was taken for it
        given = [str(notebook), *further]
        named = next((word for word in given if word.endswith(".ipynb")), None)
        notebook = Path(NOTEBOOKS[0] if named is None else named)
        further = [word for word in given if word != named]
    if not notebook.exists():
        if str(notebook) not in NOTEBOOKS:
            raise DataError(
                f"There is no notebook {str(notebook)!r}. Give a file that exists, or one that"
                f" comes with the package: {', '.join(NOTEBOOKS)}."
            )
        try:
            shutil.copyfile(bundled_notebook(notebook.name), notebook)
        except OSError as error:
            raise DataError(
                f"{notebook} cannot be copied to this folder ({error.strerror or error}); go to one"
                " that can be written to."
            ) from error
        output().print(f"Copied {notebook} to this folder", highlight=False)
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *further]
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # JupyterLab gets it too and asks whether to stop
            continue
    raise typer.Exit(code)


def bundled_notebook(name: str) -> Path:
    """Return a notebook of the package: in its installation, or in a source checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "notebooks", here.parent / "notebooks"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"This installation has no {name}; install compression-workbench again.")


def _check_plot(path: Path) -> None:
    """Refuse a plot file before minutes are spent on its runs."""
    if path.suffix.lower() not in (".html", ".htm", ".svg") or path.is_dir():
        raise ConfigError(
            f"--html {path} is not accepted; give a file that ends with .html (interactive) or"
            " .svg (a picture)."
        )


def _study(model: str, task: Task | str, path: Path) -> Study:
    from workbench.study import Study

    return Study(model, task, path)


def run_sweep(
    make_study: Callable[[], Study], recipes: Iterable[Any], html: Path, again: str
) -> None:
    """Compute recipes in the study's worker, show progress, table and plot, set the exit code.

    Parameters
    ----------
    make_study : callable
        Called once; closed at the end.
    recipes : iterable
        Of steps, sequences of steps, or recipes.
    html : Path
        Where the plot is written.
    again : str
        What to run to go on after Ctrl-C.

    Raises
    ------
    typer.Exit
        With 1 if a run failed, with 130 after Ctrl-C.
    """
    from workbench.cli.progress import follow

    _check_plot(html)
    console, out = errors(), output()
    waiting = console.status("Loading the model and the task …")
    with waiting if console.is_terminal else contextlib.nullcontext():
        study = make_study()
    with study:
        ended = follow(study, recipes, console)
        print_runs(study.table(), study.metric)
        if ended["finished"]:
            _write_plot(study, html, False)
        if ended["cancelled"]:
            done = sum(record.state is RunState.DONE for record in study.records)
            runs = "run is" if done == 1 else "runs are"
            out.print(
                f"Cancelled. {done} finished {runs} kept in {study.path}; run {again} again to go"
                " on.",
                highlight=False,
            )
            raise typer.Exit(130)
        out.print(f"The study is kept in {study.path}", highlight=False)
        if ended["failed"]:
            raise typer.Exit(1)


def _write_plot(study: Study, path: Path, log_x: bool) -> None:
    from workbench.views.figures import static_svg, tradeoff_figure, write_html

    view = study.plot().view
    try:
        if path.suffix.lower() == ".svg":
            write_file(path, static_svg(view, log_x=log_x))
        else:
            rows = rows_of(study.table(), study.metric)
            write_html(tradeoff_figure(view, log_x=log_x), path, table=rows)
    except OSError as error:
        raise ConfigError(
            f"--html {path}: the plot cannot be written there ({error.strerror or error}). Finished"
            f" runs are kept: workbench plot {study.path} --html FILE writes it again."
        ) from error
    output().print(f"Wrote the plot: {path.resolve()}", highlight=False, soft_wrap=True)
