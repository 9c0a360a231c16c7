"""The terminal's commands that decide: ``choose``, ``plan`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.options import StudyPath, open_study
from workbench.cli.progress import kept
from workbench.cli.tables import errors, output, print_trials
from workbench.errors import ConfigError
from workbench.selection.cost import CostModel
from workbench.selection.requirements import Requirements

commands = typer.Typer()

Accuracy = Annotated[
    float | None,
    typer.Option(help="Least quality, as a share of the base model's (0.97 for 97 %)."),
]
Absolute = Annotated[
    bool, typer.Option("--absolute", help="--accuracy is a value of the metric itself.")
]
SizeMb = Annotated[float | None, typer.Option(help="Most megabytes (10^6 bytes).")]
LatencyMs = Annotated[float | None, typer.Option(help="Most milliseconds.")]
MemoryMb = Annotated[float | None, typer.Option(help="Most megabytes of memory, as measured.")]
CostPer1k = Annotated[
    float | None, typer.Option("--cost-per-1k", help="Most dollars for 1,000 queries.")
]
Confidence = Annotated[
    float | None,
    typer.Option(help="Choose only a run that passes so surely, such as 0.95."),
]
PerHour = Annotated[
    float | None,
    typer.Option("--price-per-hour", help="Dollars an hour of the machine that was measured on."),
]
Utilisation = Annotated[float, typer.Option(help="Share of the paid time that it works.")]


@commands.command()
def choose(
    study: StudyPath,
    accuracy: Accuracy = None,
    absolute: Absolute = False,
    size_mb: SizeMb = None,
    latency_ms: LatencyMs = None,
    memory_mb: MemoryMb = None,
    cost_per_1k: CostPer1k = None,
    price_per_hour: PerHour = None,
    utilisation: Utilisation = 0.5,
    confidence: Confidence = None,
) -> None:
    """Name the smallest run that passes; the exit code is 1 if none does.

    With --confidence, --memory-mb or --cost-per-1k a run must pass surely, on the examples that
    there are and for all runs together; else its measured value decides.
    """
    if all(bar is None for bar in (accuracy, size_mb, latency_ms, memory_mb, cost_per_1k)):
        raise ConfigError(
            "Nothing to choose by: give --accuracy 0.97 (a share of the base model's), --size-mb,"
            " --latency-ms, --memory-mb or --cost-per-1k."
        )
    _check_accuracy(accuracy, absolute)
    opened = open_study(study)
    if confidence is None and memory_mb is None and cost_per_1k is None:
        found = opened.choose(
            accuracy,
            relative=not absolute,
            size_bytes=None if size_mb is None else size_mb * 1e6,
            latency_ms=latency_ms,
        )
    else:
        found = opened.choose(
            _requirements(
                accuracy,
                absolute,
                size_mb,
                latency_ms,
                memory_mb,
                cost_per_1k,
                _prices(price_per_hour, utilisation),
                confidence,
            )
        )
    out = output()
    out.print(found.nearest, markup=False, highlight=False)
    if found.run is None:
        raise typer.Exit(1)
    code = f"wb.Study.open({str(study)!r}).model({found.run.id!r})"
    out.print(f"Its model in Python: {code}", markup=False, highlight=False)


@commands.command()
def search(
    study: StudyPath,
    accuracy: Accuracy = 0.97,
    absolute: Absolute = False,
    minutes: Annotated[float, typer.Option(help="The most time it takes.")] = 30.0,
    size_mb: SizeMb = None,
    latency_ms: LatencyMs = None,
    memory_mb: MemoryMb = None,
    cost_per_1k: CostPer1k = None,
    price_per_hour: PerHour = None,
    utilisation: Utilisation = 0.5,
    confidence: Confidence = 0.95,
) -> None:
    """Search for the smallest run that surely passes; the exit code is 1 if none is found.

    Predictions order what is tried, runs verify it. Finished runs are kept: after Ctrl-C, or when
    the time is spent, the same command goes on.
    """
    from workbench.cli.progress import show_stages

    _check_accuracy(accuracy, absolute)
    prices = _prices(price_per_hour, utilisation)
    wanted = _requirements(
        accuracy, absolute, size_mb, latency_ms, memory_mb, cost_per_1k, prices, confidence
    )
    opened, out = open_study(study), output()
    with kept(opened), show_stages(errors()) as on_progress:
        found = opened.search(wanted, budget_minutes=minutes, on_progress=on_progress)
    print_trials(found)
    out.print(str(found), markup=False, highlight=False, soft_wrap=True)
    if found.run is None:
        raise typer.Exit(1)
    code = f"wb.Study.open({str(study)!r}).model({found.run.id!r})"
    out.print(f"Its model in Python: {code}", markup=False, highlight=False, soft_wrap=True)


@commands.command(name="next")
def next_step(
    study: StudyPath,
    accuracy: Accuracy = 0.97,
    absolute: Absolute = False,
    size_mb: SizeMb = None,
    confidence: Confidence = 0.95,
) -> None:
    """Say the most useful thing to do next, computed from what is known; nothing is run."""
    _check_accuracy(accuracy, absolute)
    wanted = _requirements(accuracy, absolute, size_mb, None, None, None, None, confidence)
    found = open_study(study).next_step(wanted)
    output().print(found.text, markup=False, highlight=False, soft_wrap=True)
    if found.recipe is not None:
        code = f"The recipe in Python: {found.recipe.code()}"
        output().print(code, markup=False, highlight=False, soft_wrap=True)


@commands.command()
def report(
    study: StudyPath,
    html: Annotated[Path, typer.Option("--html", help="The page is written here.")] = Path(
        "workbench-report.html"
    ),
    question: Annotated[str, typer.Option(help="What is to be decided, in your words.")] = "",
    accuracy: Accuracy = 0.97,
    absolute: Absolute = False,
    size_mb: SizeMb = None,
    latency_ms: LatencyMs = None,
    memory_mb: MemoryMb = None,
    cost_per_1k: CostPer1k = None,
    price_per_hour: PerHour = None,
    utilisation: Utilisation = 0.5,
    confidence: Confidence = 0.95,
) -> None:
    """Write one page for the person who decides; it opens without a network and prints."""
    if html.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--html {html} is not accepted; give a file that ends with .html.")
    _check_accuracy(accuracy, absolute)
    prices = _prices(price_per_hour, utilisation)
    wanted = _requirements(
        accuracy, absolute, size_mb, latency_ms, memory_mb, cost_per_1k, prices, confidence
    )
    path = open_study(study).report(html, wanted, question=question, cost=prices)
    output().print(f"Wrote the report: {path.resolve()}", highlight=False, soft_wrap=True)


@commands.command()
def plan(
    model: Annotated[
        list[str],
        typer.Argument(
            help='A bundled name ("list" shows them), a folder, a config.json, or a Hub id.'
        ),
    ],
    device: Annotated[
        list[str] | None, typer.Option(help="Name of a device; may be repeated.")
    ] = None,
    devices: Annotated[
        Path | None, typer.Option(help="A catalogue of devices of your own, in JSON.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Such as 4-bit; may be repeated.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens of each sequence.", min=1)] = 4096,
    batch: Annotated[int, typer.Option(help="Sequences at once.", min=1)] = 1,
    html: Annotated[Path | None, typer.Option("--html", help="Write the figure here too.")] = None,
) -> None:
    """Estimate whether models fit on devices, from their configurations alone."""
    from workbench.selection.planning import known_devices, known_models
    from workbench.views.plan import plan as estimate

    known = {one.name: one for one in known_devices(devices)}
    chosen = list(known.values())
    if device:
        missing = [name for name in device if name not in known]
        if missing:
            raise ConfigError(
                f"--device {missing[0]!r} is not known; there are {', '.join(map(repr, known))}."
            )
        chosen = [known[name] for name in device]
    if model == ["list"]:
        lines = ["Models:", *known_models(), "", "Devices:", *known]
        output().print("\n".join(lines), markup=False, highlight=False)
        return
    found = estimate(model, chosen, precisions=precision or None, context=context, batch=batch)
    out = output()
    out.print(str(found), markup=False, highlight=False, soft_wrap=True)
    if html is not None:
        from workbench.views.figures import write_html

        path = write_html(found.plot(), html, table=found.table().round(3))
        out.print(f"Wrote the figure: {path.resolve()}", highlight=False, soft_wrap=True)


def _check_accuracy(accuracy: float | None, absolute: bool) -> None:
    if accuracy is not None and accuracy >= 2 and not absolute:
        raise ConfigError(
            f"--accuracy {accuracy:g} is a share of the base model's quality; for {accuracy:g} %"
            f" give {accuracy / 100:g}, for a value of the metric itself add --absolute."
        )


def _prices(per_hour: float | None, utilisation: float) -> CostModel | None:
    return None if per_hour is None else CostModel(per_hour, utilisation=utilisation)


def _requirements(
    accuracy: float | None,
    absolute: bool,
    size_mb: float | None,
    latency_ms: float | None,
    memory_mb: float | None,
    cost_per_1k: float | None,
    prices: CostModel | None,
    confidence: float | None,
) -> Requirements:
    if cost_per_1k is not None and prices is None:
        raise ConfigError("--cost-per-1k needs the machine's price: give --price-per-hour too.")
    return Requirements(
        accuracy,
        relative=not absolute,
        size_bytes=None if size_mb is None else size_mb * 1e6,
        latency_ms=latency_ms,
        memory_bytes=None if memory_mb is None else memory_mb * 1e6,
        cost_per_1k_usd=cost_per_1k,
        cost=prices,
        confidence=0.95 if confidence is None else confidence,
    )
