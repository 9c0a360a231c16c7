"""Is a fitted mixture of precisions better than any uniform one of its size?

    python benchmarks/mixed_precision.py

Fits the bundled model to 3.0 and 2.5 bits per weight, runs every tabulated uniform quantization
that takes as few or fewer bytes, and compares them on the same examples: the difference of the KL
divergence to the dense model and of the loss, with 95 % intervals. Prints a table, writes a JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import workbench as wb
from workbench.prediction.tabulate import GRID
from workbench.recipes import Quantization

BUDGETS = (3.0, 2.5)


def compared(study: wb.Study, bits: float) -> dict[str, Any]:
    """Fit one budget and compare what it gives with every uniform recipe that is no larger."""
    recipe = study.fit(bits_per_weight=bits)
    fitted = study.run(recipe)
    uniform = [
        step
        for step in GRID
        if isinstance(step, Quantization)
        and (study.predict(step).size_bytes or 0) <= (fitted.size_bytes or 0)
    ]
    rows = []
    for run in study.sweep(uniform):
        row: dict[str, Any] = {"recipe": run.label, "size_bytes": run.size_bytes}
        for metric in ("kl", "bits_per_byte"):
            found = study.task.difference(metric, run.outcomes(), fitted.outcomes())
            row[metric] = {"difference": found.value, "low": found.low, "high": found.high}
        rows.append(row)
    measured = {m.metric: m.value for m in fitted.measurements}
    print(f"\n{bits} bits per weight: {fitted.label}, {fitted.size_bytes:,} bytes, {measured}")
    for row in rows:
        parts = [
            f"{name} {row[name]['difference']:+.4f} ({row[name]['low']:+.4f} to"
            f" {row[name]['high']:+.4f})"
            for name in ("kl", "bits_per_byte")
        ]
        print(f"  {row['recipe']:20s} {row['size_bytes']:>10,} bytes: {', '.join(parts)}")
    return {
        "bits_per_weight": bits,
        "stored_bits_per_weight": fitted.record.facts["bits_per_weight"],
        "recipe": json.loads(recipe.to_json()),
        "size_bytes": fitted.size_bytes,
        "metrics": measured,
        "uniform_minus_fitted": rows,
        "none_is_better": all(row["kl"]["high"] > 0 for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mixed_precision.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = wb.Study("demo", "demo", path=Path(folder, "study"))
        results = [compared(study, bits) for bits in BUDGETS]
        study.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": platform.machine(), "python": platform.python_version(), "fits": results}
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
