"""What the terminal prints: tables of runs and of predictions, and where they go."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.recipes.recipe import shortened
from workbench.records import FOR_INFORMATION

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, JustifyMethod
    from rich.table import Table

    from workbench.prediction.predict import Prediction
    from workbench.records import Metric
    from workbench.study import SearchResult


_LONGEST_RECIPE, _SHORTEST_RECIPE = 64, 24


def rows_of(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return the columns that people read, as text."""
    import pandas as pd

    name = metric.name

    def column(values: Any, form: str) -> list[str]:
        return ["" if value != value else format(value, form) for value in values]

    said = {name: list(frame[name]) for name in ("name", "tags") if name in frame}
    if "starred" in frame:
        said = {"☆": ["☆" if star else "" for star in frame["starred"]], **said}
    rows = {
        "id": [str(run) for run in frame.index],
        **said,
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
        places = frame["measured_on"].str.split(FOR_INFORMATION).str[0]
        if places.replace("", None).nunique() > 1:  # else they could be compared
            measured["measured on"] = list(places)
        rows = {**rows, **measured}
    if frame["model"].nunique() > 1:
        rows = {"model": list(frame["model"]), **rows}
    if frame["error"].astype(bool).any():
        rows["error"] = [" ".join(error.split()) for error in frame["error"]]
    return pd.DataFrame(rows)


def print_runs(frame: pd.DataFrame, metric: Metric) -> None:
    """Print the runs of a study, the Pareto front marked."""
    out = output()
    rows = rows_of(frame, metric)
    if rows.empty:
        out.print("No runs yet.")
        return
    states = {"failed": "red", "cancelled": "yellow", "interrupted": "yellow"}
    styles = [
        states.get(state, "bold" if front else "")
        for state, front in zip(rows["state"], rows["front"], strict=True)
    ]
    out.print(_table({name: list(rows[name]) for name in rows.columns}, out, styles))
    better = "higher" if metric.higher_is_better else "lower"
    out.print(f"★ Pareto front: nothing is smaller and better ({metric.name}: {better} is better)")


def print_columns(columns: dict[str, list[str]]) -> None:
    """Print columns of text as a table; those without any text are left out."""
    out = output()
    out.print(_table({name: cells for name, cells in columns.items() if any(cells)}, out))


def print_predictions(predictions: Iterable[Prediction], metric: Metric, n_measured: int) -> None:
    """Print predictions, one a row; never beside measurements.

    ``n_measured`` is how many compressed runs there are to learn the level from.
    """
    found, out = list(predictions), output()

    def column(value: Callable[[Prediction], str | None]) -> list[str]:
        return [value(one) or "" for one in found]

    def between(ends: tuple[float, float] | None) -> str:
        return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"

    columns = {
        "recipe": column(lambda one: one.label),
        "size (MB)": column(lambda one: f"{one.size_bytes / 1e6:.2f}" if one.size_bytes else None),
        metric.name.replace("_", " "): column(
            lambda one: None if one.value is None else f"{one.value:.4g}"
        ),
        "90 % interval": column(lambda one: between(one.interval)),
        "KL (nats)": column(lambda one: None if one.kl is None else f"{one.kl:.3g}"),
        "notes": column(lambda one: one.reason or "; ".join(one.notes)),
    }
    if not any(columns["notes"]):
        del columns["notes"]
    n_runs = max((one.n_runs for one in found), default=0)
    runs = "run" if n_measured == 1 else "runs"
    text = "Predicted, not measured; the level is learned from"
    text += f" {n_runs} of {n_measured} measured {runs}"
    unused = n_measured - n_runs
    text += "." if not unused else ": others are of steps without a prediction, or too far off."
    out.print(text, highlight=False, soft_wrap=True)
    out.print(_table(columns, out))


def print_trials(found: SearchResult) -> None:
    """Print what a search computed, one trial a row."""
    if not found.trials:
        return
    rows, out = found.table(), output()

    def column(name: str, form: str) -> list[str]:
        found = [math.nan if value is None else value for value in rows[name]]
        return ["" if math.isnan(value) else format(value, form) for value in found]

    columns = {
        "id": list(rows["run"]),
        "recipe": list(rows["recipe"]),
        "size (MB)": column("size_mb", ".2f"),
        "predicted": column("predicted", ".4g"),
        "chance": column("chance", ".0%"),
        "quality": column("quality", ".1%"),
        "answer": list(rows["answer"]),
        "seconds": column("seconds", ".1f"),
    }
    out.print(_table(columns, out))


def print_sensitivity(frame: pd.DataFrame) -> None:
    """Print predicted costs in nats, a row per shared input and a column per step."""
    out = output()
    text = "Predicted KL divergence, in nats, of compressing these layers alone; not measured."
    out.print(text, highlight=False, soft_wrap=True)
    columns = {"layers": [str(layers) for layers in frame.index]}
    for name in frame.columns:
        columns[str(name)] = [f"{cost:.2g}" for cost in frame[name]]
    out.print(_table(columns, out))


def _table(
    columns: dict[str, list[str]], out: Console, styles: Sequence[str] | None = None
) -> Table:
    """Return a table; recipes are cut to what is left of the line, numbers never are."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wrapped = {"error", "notes"}
    left = {"study", "model", "task", "part", "name", "tags", "recipe", "state", *wrapped, "layers"}
    shown = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
    taken = 3 * len(columns)
    for name, cells in columns.items():
        width = max(map(len, [name, *cells]))
        taken += 0 if name == "recipe" else min(width, 24) if name in wrapped else width
        justify: JustifyMethod = "left" if name in left else "right"
        shown.add_column(name, justify=justify, no_wrap=name not in wrapped)
    if "recipe" in columns:
        room = min(_LONGEST_RECIPE, max(_SHORTEST_RECIPE, out.width - taken))
        columns = columns | {"recipe": [shortened(label, room) for label in columns["recipe"]]}
    rows = list(zip(*columns.values(), strict=True))
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        shown.add_row(*map(Text, row), style=style)
    return shown


def output() -> Console:
    """Return where results go."""
    return _console(False)


def errors() -> Console:
    """Return where progress and errors go."""
    return _console(True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=not (sys.stderr if stderr else sys.stdout).isatty())
    if not console.is_terminal:
        console.width = 240  # files and pipes have no width; nothing may be cut
    return console
