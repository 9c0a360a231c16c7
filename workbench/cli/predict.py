"""The terminal's commands that predict: ``predict``, ``frontier``, ``sensitivity`` and ``fit``.

What they print is predicted where it says so; only ``fit`` runs something.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from workbench.cli.progress import kept
from workbench.cli.tables import errors, output, print_predictions, print_sensitivity
from workbench.errors import ConfigError
from workbench.records import RunState

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction
    from workbench.recipes import Step
    from workbench.study import Study

commands = typer.Typer()


@commands.command()
def predict(
    study: StudyPath,
    methods: Methods = "gptq",
    bits: Bits = "2,3,4",
    group_sizes: GroupSizes = "128",
    ratios: Ratios = "0.3,0.5,0.7",
    exportable: Exportable = False,
) -> None:
    """Predict recipes without running them, given as for sweep."""
    recipes = recipes_of(methods, bits, group_sizes, ratios, exportable)
    opened = _ready(study)
    _print(opened, [opened.predict(recipe) for recipe in recipes])


@commands.command()
def frontier(
    study: StudyPath,
    n_mixed: Annotated[
        int, typer.Option(help="Sizes at which mixed precision is looked at.", min=0)
    ] = 12,
) -> None:
    """Print the predicted Pareto front over uniform and mixed recipes."""
    opened = _ready(study)
    _print(opened, opened.frontier(n_mixed=n_mixed))


@commands.command()
def sensitivity(
    study: StudyPath,
    methods: Methods = "gptq",
    bits: Bits = "2,3,4",
    group_sizes: GroupSizes = "128",
    ratios: Ratios = "0.3,0.5,0.7",
    exportable: Exportable = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="A heatmap is written here.", show_default=False)
    ] = None,
) -> None:
    """Print what every group of layers is predicted to cost, in nats."""
    steps: list[Step] = []
    for recipe in recipes_of(methods, bits, group_sizes, ratios, exportable):
        if len(recipe.steps) > 1:
            raise ConfigError(f"--methods: {recipe.label} has several steps; give one at a time.")
        steps += recipe.steps
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or html.is_dir()):
        raise ConfigError(f"--html {html} is not accepted; give a file that ends with .html.")
    found = _ready(study).sensitivity(steps)
    print_sensitivity(found.table)
    if html is None:
        return
    from workbench.views.figures import write_html

    try:
        write_html(found.plot(), html)
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror or error}.") from error
    output().print(f"Wrote the heatmap: {html.resolve()}", highlight=False, soft_wrap=True)


@commands.command()
def fit(
    study: StudyPath,
    bits_per_weight: Annotated[
        float | None,
        typer.Option(help="Mean stored bits of the compressed layers, scales included."),
    ] = None,
    size_mb: Annotated[
        float | None, typer.Option(help="Or: megabytes (10^6 bytes) of the whole model.")
    ] = None,
    verify: Annotated[
        int, typer.Option(help="So many candidates are run; 0 trusts the prediction.", min=0)
    ] = 3,
) -> None:
    """Find the recipe with the least loss within a budget: a precision for every layer."""
    from workbench.cli.progress import show_stages

    if (bits_per_weight is None) == (size_mb is None):
        raise ConfigError("Give either --bits-per-weight 3 or --size-mb 4.")
    opened, out = _ready(study), output()
    with kept(opened), show_stages(errors()) as on_progress:
        recipe = opened.fit(
            bits_per_weight=bits_per_weight,
            size_bytes=None if size_mb is None else size_mb * 1e6,
            verify=verify,
            on_progress=on_progress,
        )
    name = opened.models[0]
    runs = [r for r in opened.runs if r.recipe == recipe and r.record.model == name and verify]
    out.print(recipe.label, markup=False, highlight=False, soft_wrap=True)
    if runs:
        numbers = [f"{runs[0].size_bytes or 0:,} bytes"]
        numbers += [f"{m.metric} {m.value:.4g}" for m in runs[0].measurements if not m.conditions]
        out.print(f"Measured: {', '.join(numbers)}", markup=False, highlight=False, soft_wrap=True)
        code = f"wb.Study.open({str(study)!r}).model({runs[0].id!r})"
        out.print(f"Its model in Python: {code}", markup=False, highlight=False, soft_wrap=True)
    else:
        text = str(opened.predict(recipe)).removeprefix(f"{recipe.label}: ")
        out.print(f"Not run: {text}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"The recipe in Python: {recipe.code()}", markup=False, highlight=False)


def _print(study: Study, predictions: Iterable[Prediction]) -> None:
    done = [r for r in study.runs if r.state is RunState.DONE and r.recipe.steps]
    print_predictions(predictions, study.metric, len(done))


def _ready(path: Path) -> Study:
    """Return a study whose predictions are made, with a progress bar if they are not yet."""
    from workbench.cli.progress import show_stages

    opened = open_study(path)
    with kept(opened), show_stages(errors()) as on_progress:
        opened.tabulate(on_progress=on_progress)
    return opened
