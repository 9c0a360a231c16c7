"""Do the estimates of ``wb.plan`` agree with the memory that models really take?

    python benchmarks/plan_vs_measured.py [--size 150M]

Measures the bundled model and a random Llama, dense and in 4 bits, each in a process of its own
(workbench/runtime/measure/memory.py), and compares what is resident after a run with the plan at
the precision that this machine runs: bfloat16, or float32 where the processor has no instructions
for it. What a process takes to run any model is read from one of 0.2 M parameters, which is not
among those compared. Prints a table, writes a JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import psutil
import torch
from random_models import parse_size, random_llama

import workbench as wb
from workbench.compression.compress import compress
from workbench.models.load import LoadedModel
from workbench.recipes.recipe import Recipe
from workbench.recipes.schemes import IntScheme
from workbench.runtime.measure.memory import measure_memory
from workbench.runtime.packed import pack_model
from workbench.selection.planning import Device, Precision, footprint_of
from workbench.tensors.devices import fast_dtype

TOKENS = 128


def held_bytes(model: LoadedModel, step: Any) -> int:
    """Return what is resident after a run, compressed by a step if there is one."""
    if step is not None:
        model = compress(model, Recipe.of(step), None).model
    packed = pack_model(model, dtype=fast_dtype(model.device))
    return measure_memory(packed, n_tokens=TOKENS).held_bytes


def compared(size: str) -> dict[str, Any]:
    """Compare both models, dense and in 4 bits; see the module."""
    float_bytes = fast_dtype(torch.device("cpu")).itemsize
    dense = Precision(f"dense {8 * float_bytes}-bit", float_bytes=float_bytes)
    tiny = random_llama(200_000)
    alone = held_bytes(tiny, None) - footprint_of(tiny.hf_model.config).weight_bytes(dense)
    print(f"a process that runs a model of 0.2 M parameters holds {alone / 1e6:.1f} MB beside it")
    here = Device("this machine", psutil.virtual_memory().total, 1.0, runtime_bytes=alone)
    rows = []
    for name in ("demo", size):
        model = wb.load_model("demo") if name == "demo" else random_llama(parse_size(size))
        group = 32 if name == "demo" else 128
        four = Precision("4-bit", IntScheme(4, group), float_bytes)
        for step, form in ((None, dense), (wb.RTN(4, group_size=group), four)):
            row = wb.plan(model, here, precisions=[form]).rows[0]
            held = held_bytes(model, step)
            rows.append(
                {
                    "model": name,
                    "precision": form.name,
                    "parameters": model.n_parameters,
                    "planned_weights_bytes": row.weights_bytes,
                    "planned_bytes": row.held_bytes,
                    "measured_bytes": held,
                    "ratio": row.held_bytes / held,
                }
            )
            print(
                f"{name:6s} {form.name:14s} planned {row.held_bytes / 1e6:8.2f} MB, measured"
                f" {held / 1e6:8.2f} MB, ratio {row.held_bytes / held:.3f}",
                flush=True,
            )
    largest = max(abs(row["ratio"] - 1) for row in rows)
    return {"process_bytes": alone, "largest_error": largest, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="150M")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plan.json"))
    args = parser.parse_args()
    record = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        **compared(args.size),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
