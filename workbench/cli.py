"""The terminal: ``workbench demo``, ``lab``, ``sweep``, ``measure``, ``table``, ``plot`` and more.

Exit codes: 0 all is well; 1 a run failed, or no run passes the bar; 2 the input is not accepted;
130 cancelled with Ctrl-C. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.errors import ConfigError, DataError, StudyError, WorkbenchError
from workbench.records import RunState
from workbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from workbench.recipe import Recipe
    from workbench.records import Metric
    from workbench.study import Study
    from workbench.tasks import Task

NOTEBOOK = "01-quickstart.ipynb"
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")

app = typer.Typer(
    name="workbench",
    help="Make language models smaller and see what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyPath = Annotated[Path, typer.Argument(help="Folder of the study.", show_default=False)]
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
        _errors().print(f"Error: {text}", style="red", markup=False, highlight=False)
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
    from workbench.steps import AWQ, GPTQ, RTN, MagnitudePruning

    recipes: list[Any] = [
        method(bits, group_size=32) for bits in (4, 3, 2) for method in (RTN, GPTQ, AWQ)
    ]
    recipes += [MagnitudePruning(ratio) for ratio in (0.3, 0.5, 0.7)]
    run_sweep(lambda: _study("demo", "demo", study), recipes, html, "workbench demo")
    if importlib.util.find_spec("jupyterlab") is None:
        following = 'make lab   (or pip install "compression-workbench[lab]", then workbench lab)'
    else:
        following = "workbench lab   (opens the quickstart notebook in JupyterLab)"
    _output().print(f"Next: {following}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def sweep(
    model: Annotated[str, typer.Option(help='"demo", a folder, or a Hugging Face id.')] = "demo",
    task: Annotated[
        str, typer.Option(help='"demo", a text file, or a table with --text and --label.')
    ] = "demo",
    text: Annotated[str | None, typer.Option(help="Column of the table with the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the table with the labels.")] = None,
    encoding: Annotated[str, typer.Option(help="Of the text file or table.")] = "utf-8",
    methods: Annotated[
        str,
        typer.Option(help="Names, separated by commas; gptq+correction is a recipe of two steps."),
    ] = "rtn,gptq,awq,magnitude",
    bits: Annotated[str, typer.Option(help="For methods that quantize.")] = "2,3,4",
    group_sizes: Annotated[
        str, typer.Option(help='For methods that quantize; "none" is one scale per channel.')
    ] = "128",
    ratios: Annotated[str, typer.Option(help="For methods that prune.")] = "0.3,0.5,0.7",
    study: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("workbench-study"),
    html: HtmlPath = Path("workbench-plot.html"),
) -> None:
    """Compress a model in every combination of methods and settings; finished runs are kept."""
    recipes = recipes_of(methods, bits, group_sizes, ratios)
    run_sweep(
        lambda: _study(model, _task(task, text, label, encoding), study),
        recipes,
        html,
        "the same command",
    )


@app.command()
def table(
    study: StudyPath,
    csv: Annotated[bool, typer.Option("--csv", help="Print all columns as CSV.")] = False,
) -> None:
    """Print the runs of a study."""
    opened = _open(study)
    if csv:
        typer.echo(opened.table().to_csv(), nl=False)
    else:
        _print_table(opened.table(), opened.metric)


@app.command()
def plot(
    study: StudyPath,
    html: HtmlPath = Path("workbench-plot.html"),
    log_x: Annotated[bool, typer.Option(help="Logarithmic size axis.")] = False,
) -> None:
    """Write the interactive plot of a study, or a picture if the file ends with .svg."""
    _check_plot(html)
    _write_plot(_open(study), html, log_x)


@app.command()
def choose(
    study: StudyPath,
    accuracy: Annotated[
        float | None,
        typer.Option(help="Least quality, as a share of the base model's (0.97 for 97 %)."),
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="--accuracy is a value of the metric itself.")
    ] = False,
    size_mb: Annotated[float | None, typer.Option(help="Most megabytes (10^6 bytes).")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Most milliseconds.")] = None,
) -> None:
    """Name the smallest run that passes; the exit code is 1 if none does."""
    opened = _open(study)
    found = opened.choose(
        accuracy,
        relative=not absolute,
        size_bytes=None if size_mb is None else size_mb * 1e6,
        latency_ms=latency_ms,
    )
    out = _output()
    out.print(found.nearest, markup=False, highlight=False)
    if found.run is None:
        raise typer.Exit(1)
    code = f"wb.Study.open({str(study)!r}).model({found.run.id!r})"
    out.print(f"Its model in Python: {code}", markup=False, highlight=False)


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
    opened, out = _open(study), _output()
    chosen = run or [r.id for r in opened.records if r.state is RunState.DONE]
    if not chosen:
        raise StudyError(f"The study in {study} has no finished runs to measure.")
    for number, id in enumerate(chosen, 1):
        found = {m.metric: m for m in opened.measure(id, repeats=repeats)}
        record = next(r for r in opened.records if r.id == id)
        latency = found["latency_ms"]
        text = f"[{number}/{len(chosen)}] {record.model}, {record.label}: "
        text += f"{latency.value:.4g} ms (spread {latency.spread:.2g}), {latency.how}"
        if "resident_bytes" in found:
            text += f", {found['resident_bytes'].value / 1e6:.1f} MB in memory"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    out.print(f"Measured on {latency.conditions}", markup=False, highlight=False, soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    notebook: Annotated[Path, typer.Argument(help="A notebook to open.")] = Path(NOTEBOOK),
) -> None:
    """Open the quickstart notebook in JupyterLab; further options are JupyterLab's own."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ConfigError(
            'JupyterLab is not installed. Install it with: pip install "compression-workbench[lab]"'
        )
    if not notebook.exists():
        if notebook != Path(NOTEBOOK):
            raise DataError(
                f"There is no notebook {str(notebook)!r}; without a name the quickstart is opened."
            )
        shutil.copyfile(quickstart(), notebook)
        _output().print(f"Copied the quickstart notebook to {notebook}", highlight=False)
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *context.args]
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # JupyterLab gets it too and asks whether to stop
            continue
    raise typer.Exit(code)


def quickstart() -> Path:
    """Return the quickstart notebook: in the installed package, or in a source checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "notebooks", here.parent / "notebooks"):
        if (folder / NOTEBOOK).is_file():
            return folder / NOTEBOOK
    raise DataError(f"This installation has no {NOTEBOOK}; install compression-workbench again.")


def recipes_of(methods: str, bits: str, group_sizes: str, ratios: str) -> list[Recipe]:
    """Return every combination that the options of ``workbench sweep`` name, without repeats.

    Methods joined by ``+`` are the steps of one recipe, from first to last.

    Raises
    ------
    ConfigError
        If a name or a number is not accepted.
    """
    from workbench.recipe import Recipe
    from workbench.steps import fields_of

    numbers = _numbers("--bits", bits, int)
    sizes = _numbers("--group-sizes", group_sizes, _size)
    shares = _numbers("--ratios", ratios, float)

    def variants(name: str) -> list[Any]:
        step = _step(name)
        fields = {info.name for info in fields_of(step)}
        if "ratio" in fields:  # before bits: SparseGPT has them too, and prunes only by default
            return [step(ratio=share) for share in shares]
        if {"bits", "group_size"} <= fields:
            return [step(bits=b, group_size=g) for b in numbers for g in sizes]
        return [step()]

    recipes = []
    for chain in _names("--methods", methods):
        steps = [variants(name.strip()) for name in chain.split("+")]
        recipes += [Recipe.of(chosen) for chosen in itertools.product(*steps)]
    return list(dict.fromkeys(recipes))


def _step(name: str) -> Any:
    import difflib

    from workbench.steps import STEPS

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


def _task(ref: str, text: str | None, label: str | None, encoding: str) -> Task | str:
    if not ref.lower().endswith(_TABLES):
        if text is not None or label is not None:
            raise ConfigError(
                f"--text and --label name columns of a table, and --task {ref} is none; give a"
                f" file that ends with {', '.join(_TABLES)}, or leave them out."
            )
        if ref == "demo":
            return ref
        from workbench.tasks import LanguageModeling

        return LanguageModeling(ref, encoding=encoding)
    if text is None or label is None:
        raise ConfigError(
            f"--task {ref} is a table: name its columns, as in --text question --label intent."
        )
    from workbench.tasks import TextClassification

    return TextClassification(ref, text=text, label=label, encoding=encoding)


def _check_plot(path: Path) -> None:
    """Refuse a plot file before minutes are spent on its runs."""
    if path.suffix.lower() not in (".html", ".htm", ".svg") or path.is_dir():
        raise ConfigError(
            f"--html {path} is not accepted; give a file that ends with .html (interactive) or"
            " .svg (a picture)."
        )


def _open(path: Path) -> Study:
    from workbench.study import Study

    if path.is_file():
        raise StudyError(f"{path} is a file; give the folder of a study.")
    if not path.is_dir():
        raise StudyError(f"There is no study in {path}; workbench sweep --study {path} makes one.")
    return Study.open(path)


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
    from workbench.terminal import follow

    _check_plot(html)
    console, out = _errors(), _output()
    waiting = console.status("Loading the model and the task …")
    with waiting if console.is_terminal else contextlib.nullcontext():
        study = make_study()
    with study:
        ended = follow(study, recipes, console)
        _print_table(study.table(), study.metric)
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
    from workbench.plots import static_svg, tradeoff_figure, write_html

    view = study.plot().view
    try:
        if path.suffix.lower() == ".svg":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(static_svg(view, log_x=log_x), encoding="utf-8")
        else:
            rows = _rows(study.table(), study.metric)
            write_html(tradeoff_figure(view, log_x=log_x), path, table=rows)
    except OSError as error:
        raise ConfigError(
            f"--html {path}: the plot cannot be written there ({error.strerror or error}). Finished"
            f" runs are kept: workbench plot {study.path} --html FILE writes it again."
        ) from error
    _output().print(f"Wrote the plot: {path.resolve()}", highlight=False, soft_wrap=True)


def _rows(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return the columns that people read, as text."""
    import pandas as pd

    name = metric.name

    def column(values: Any, form: str) -> list[str]:
        return ["" if value != value else format(value, form) for value in values]

    rows = {
        "recipe": list(frame["recipe"]),
        "size (MB)": column(frame["size_mb"], ".2f"),
        "of dense": column(frame["size_ratio"], ".1%"),
        name.replace("_", " "): column(frame[name], ".4g"),
        "± 95 %": column(1.96 * frame[f"{name}_stderr"], ".2g"),
        "front": ["★" if kept else "" for kept in frame["pareto"]],
        "seconds": column(frame["seconds"], ".1f"),
        "state": list(frame["state"]),
    }
    if "latency_ms" in frame:
        measured = {
            "ms": column(frame["latency_ms"], ".4g"),
            "spread": column(frame["latency_ms_spread"], ".2g"),
            "runs as": list(frame["runs_as"]),
        }
        if frame["measured_on"].replace("", None).nunique() > 1:  # else they could be compared
            measured["measured on"] = list(frame["measured_on"])
        rows = {**rows, **measured}
    if frame["model"].nunique() > 1:
        rows = {"model": list(frame["model"]), **rows}
    if frame["error"].astype(bool).any():
        rows["error"] = [" ".join(error.split()) for error in frame["error"]]
    return pd.DataFrame(rows)


def _print_table(frame: pd.DataFrame, metric: Metric) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = _output()
    rows = _rows(frame, metric)
    if rows.empty:
        out.print("No runs yet.")
        return
    shown = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
    for name in rows.columns:
        left = name in ("model", "recipe", "state", "error")
        shown.add_column(name, justify="left" if left else "right", no_wrap=name != "error")
    states = {"failed": "red", "cancelled": "yellow", "interrupted": "yellow"}
    for row in rows.to_dict("records"):
        style = states.get(row["state"], "bold" if row["front"] else "")
        shown.add_row(*(Text(str(value)) for value in row.values()), style=style)
    out.print(shown)
    better = "higher" if metric.higher_is_better else "lower"
    out.print(f"★ Pareto front: nothing is smaller and better ({metric.name}: {better} is better)")


def _output() -> Console:
    return _console(False)


def _errors() -> Console:
    return _console(True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=not (sys.stderr if stderr else sys.stdout).isatty())
    if not console.is_terminal:
        console.width = 240  # files and pipes have no width; nothing may be cut
    return console
