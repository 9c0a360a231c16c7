"""How long a study of many runs takes to look at, and how many of its files are read for that.

    python benchmarks/study_scale.py [--check] [--runs 1000 5000] [--rows 100000] [--sweep 20 200]

The recorded study of the package is grown by synthetic runs, which are written through the store:
journal rows and facts as large as real ones, outcomes of 114 windows as the recorded ones have. A
second study has 20 runs with 100,000 evaluation rows each. Prints the first reading, then table,
plot, choice, lineage, application and report after it, a refresh after one more run, the bytes of
the state that a notebook saves, and how many files of outcomes each has read. Then a tiny model of
random weights is really compressed by a short and by a long sweep in this process; the time per
recipe is printed. Says which ceilings are passed. With --check it fails if one is, else it writes a
JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import workbench as wb
from workbench.app.recorded_study import FOLDER
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.storage.store import Store
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.uncertainty import clustered_ratio, estimate_ratio

RESULTS = Path(__file__).parent / "results" / "study_scale.json"
CEILINGS = {
    "table": 2.0,
    "plot": 2.0,
    "choose": 2.0,
    "lineage": 5.0,
    "application": 5.0,
    "report": 10.0,
}
"""Seconds, after the first reading."""

MOST_SWEEP_GROWTH = 1.5
"""Most time per recipe of the longest sweep, as a multiple of the shortest one's."""

MOST_STATE_BYTES = 1_000_000
MOST_GROWTH = 3.0
"""Most that a refresh may take of five times as many runs, of the time that it takes of few."""


def grow(folder: Path, runs: int, examples: int = 114) -> Store:
    """Return the recorded study with only its base model's run, and so many synthetic ones."""
    shutil.copytree(FOLDER, folder)
    store = Store.open(folder)
    recorded = [record for record in store.records() if record.recipe.steps]
    for record in recorded:
        store.delete(record.id)
    base = next(iter(store.snapshot().baselines.values()))
    dense = _resized(store.outcomes(base.id), examples)
    if examples != len(store.outcomes(base.id)):
        store.delete(base.id)
        add(store, base, base.id, dense, dense)
    for number in range(runs):
        add_run(store, recorded[number % len(recorded)], number, dense)
    return store


def add_run(store: Store, like: RunRecord, number: int, dense: Outcomes) -> str:
    """Add a run that is ``number``th in size, between a better and a much worse one."""
    rng = np.random.default_rng(number)
    step = wb.MagnitudePruning(round(0.05 + 0.9 * ((number * 0.618) % 1), 9))
    recipe = Recipe.of([step, wb.RTN(int(rng.integers(2, 9)))])
    id = hashlib.sha256(f"{number}".encode()).hexdigest()[:12]
    worse = float(rng.exponential(0.03)) - 0.01
    loss = dense["loss"] * (1 + worse + 0.01 * rng.standard_normal(len(dense)))
    columns = dict(dense.columns) | {"loss": loss, "kl": np.abs(loss - dense["loss"])}
    right = dense["n_correct"] * (1 - max(worse, 0.0))
    columns["n_correct"] = np.floor(right).astype(np.int64)
    add(store, like, id, Outcomes(columns), dense, recipe=recipe, size=4_000_000 + 97 * number)
    return id


def add(
    store: Store,
    like: RunRecord,
    id: str,
    outcomes: Outcomes,
    dense: Outcomes,
    *,
    recipe: Recipe | None = None,
    size: int | None = None,
) -> None:
    """Write a finished run with the facts of another, its metrics computed from its outcomes."""
    clusters, count = outcomes["document"], outcomes["n_predictions"]
    perplexity = estimate_ratio(outcomes["loss"], count, clusters).exp()
    numbers = {
        "perplexity": (perplexity.value, perplexity.stderr),
        "bits_per_byte": clustered_ratio(
            outcomes["loss"] / math.log(2), outcomes["n_bytes"], clusters
        ),
        "accuracy": clustered_ratio(outcomes["n_correct"], count, clusters),
        "kl": clustered_ratio(outcomes["kl"], count, clusters),
    }
    claim = store.claim(id, model=like.model, recipe=recipe or like.recipe, parent=like.parent)
    assert claim is not None
    claim.finish(
        size_bytes=size or like.size_bytes or 0,
        measurements=[
            Measurement(name, value, n=len(outcomes), stderr=stderr)
            for name, (value, stderr) in numbers.items()
        ],
        outcomes=outcomes,
        artifact=None,
        facts=like.facts,
        seconds=like.seconds,
    )


def _resized(outcomes: Outcomes, examples: int) -> Outcomes:
    """Return as many examples, repeated with numbers of their own, three of a document."""
    columns = {n: np.resize(column, examples) for n, column in outcomes.columns.items()}
    if examples != len(outcomes):
        columns["example"] = np.arange(examples)
        columns["document"] = np.arange(examples) // 3
    return Outcomes(columns)


@contextmanager
def counting() -> Iterator[list[Path]]:
    """Give the list of the files of outcomes that are read meanwhile."""
    read: list[Path] = []
    load = Outcomes.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Outcomes], path: Path) -> Outcomes:
        read.append(path)
        return load(cls, path)  # type: ignore[no-any-return]

    Outcomes.load = classmethod(counted)  # type: ignore[method-assign,assignment]
    try:
        yield read
    finally:
        Outcomes.load = classmethod(load)  # type: ignore[method-assign]


def timed(what: Callable[[], Any]) -> dict[str, float]:
    """Return how long something took, and how many files of outcomes it read."""
    with counting() as read:
        start = time.perf_counter()
        what()
        return {"seconds": round(time.perf_counter() - start, 3), "outcomes_read": len(read)}


def state_bytes(app: wb.Workbench) -> int:
    """Return the size of what a notebook saves of the application: its widgets and its picture."""
    from ipywidgets import Widget
    from ipywidgets.embed import dependency_state

    state = dependency_state([app.widget], drop_defaults=True)
    assert isinstance(app.widget, Widget)
    return len(json.dumps(state, default=str)) + len(json.dumps(app._saved()))


def look(folder: Path, runs: int) -> dict[str, Any]:
    """Look at a study in every way, and return the times."""
    bar = wb.Requirements(0.97)
    study = wb.Study.open(folder)
    found: dict[str, Any] = {"first plot": timed(lambda: study.plot())}
    found["first choose"] = timed(lambda: study.choose(bar))
    found["table"] = timed(lambda: study.table())
    found["plot"] = timed(lambda: study.plot())
    found["choose"] = timed(lambda: study.choose(bar))
    found["choose, another bar"] = timed(lambda: study.choose(wb.Requirements(0.95)))
    found["report"] = timed(lambda: study.report(folder.parent / "report.html", bar))
    found["lineage"] = timed(lambda: study.lineage().plot()._repr_mimebundle_())
    found["report bytes"] = (folder.parent / "report.html").stat().st_size
    apps: list[wb.Workbench] = []
    found["application"] = timed(lambda: apps.append(wb.Workbench(study)))
    found["state bytes"] = state_bytes(apps[0])
    store = Store.open(folder)
    base = next(iter(store.snapshot().baselines.values()))
    like = next(record for record in store.records() if record.recipe.steps)
    add_run(store, like, runs, store.outcomes(base.id))
    found["refresh of the application"] = timed(apps[0].refresh)
    add_run(store, like, runs + 1, store.outcomes(base.id))
    found["refresh"] = timed(lambda: study.records)
    apps[0].close()
    study.close()
    return found


def sweep(folder: Path, recipes: int) -> dict[str, float]:
    """Compute so many recipes of a tiny model in this process, and return how long each took."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.toy import toy_study

    with toy_study(folder) as study:
        study.run([])
        steps = [wb.MagnitudePruning(0.1 + 0.8 * number / recipes) for number in range(recipes)]
        start = time.perf_counter()
        runs = study.sweep(steps)
        seconds = time.perf_counter() - start
        assert len({run.id for run in runs}) == recipes
        assert all(run.state is RunState.DONE for run in runs)
    return {"recipes": recipes, "seconds per recipe": round(seconds / recipes, 4)}


def failures(results: dict[str, Any]) -> list[str]:
    """Return which ceilings are passed, in words."""
    found = []
    sizes = [name for name in results if name.endswith("runs")]
    for name in sizes:
        for what, most in CEILINGS.items():
            if results[name][what]["seconds"] > most:
                found.append(f"{name}: {what} took {results[name][what]['seconds']} s")
        if results[name]["state bytes"] > MOST_STATE_BYTES:
            found.append(f"{name}: {results[name]['state bytes']} bytes of state")
        for what in ("table", "plot", "choose"):
            if results[name][what]["outcomes_read"]:
                found.append(f"{name}: {what} read files again")
        if results[name]["refresh of the application"]["outcomes_read"] > 1:
            found.append(f"{name}: a refresh read more than one file")
    for what, least in (("refresh", 0.02), ("refresh of the application", 0.5)):
        few, many = (results[name][what]["seconds"] for name in (sizes[0], sizes[-1]))
        if many > MOST_GROWTH * max(few, least):
            found.append(f"a {what} grew from {few} to {many} s")
    short, *_, long = (sweep["seconds per recipe"] for sweep in results["sweeps"].values())
    if long > MOST_SWEEP_GROWTH * short:
        found.append(f"a recipe of a sweep grew from {short} to {long} s")
    return found


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sweep", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--check", action="store_true", help="fail where a ceiling is passed")
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        for runs in asked.runs:
            folder = Path(name) / f"runs-{runs}" / "study"
            made = timed(lambda folder=folder, runs=runs: grow(folder, runs))  # type: ignore[misc]
            results[f"{runs} runs"] = {"written": made} | look(folder, runs)
            shutil.rmtree(folder)
        folder = Path(name) / "rows" / "study"
        grow(folder, 20, asked.rows)
        results[f"20 times {asked.rows} rows"] = look(folder, 20)
        sweep(Path(name) / "warm", 2)
        results["sweeps"] = {
            f"{count} recipes": sweep(Path(name) / f"sweep-{count}", count) for count in asked.sweep
        }
    for what, found in results.items():
        print(what)
        for name, value in found.items():
            print(f"  {name:28} {value if isinstance(value, int) else list(value.values())}")
    if not asked.check:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    wrong = failures(results)
    for line in wrong:
        print(line, file=sys.stderr)
    return bool(wrong and asked.check)


if __name__ == "__main__":
    raise SystemExit(main())
