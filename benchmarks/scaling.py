"""Measure how calibrating and solving grow with a model's parameters, in time and peak memory.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --sizes 10M 100M --windows 128 --configurations 12

Llamas of random weights, each in a process of its own, from tokens in memory to compressed weights
in memory. Every size reads the same number of tokens, and that number is printed. Peak memory is
the process's largest resident set until then, the float32 model, libraries and the page cache's
share of the mapped statistics included; it is what a machine must have.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SEQUENCE_LENGTH = 256
CONFIGURATIONS = tuple((bits, group) for bits in (4, 3, 2, 8) for group in (128, 64, None))


def peak_bytes() -> int:
    """Return the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measured(action: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Return an action's result, its wall and CPU seconds, and peak memory at its end."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_bytes": peak_bytes(),
    }


def measure(size: str, windows: int, count: int, threads: int) -> dict[str, Any]:
    """Calibrate and solve one model in this process."""
    import torch
    from random_models import RandomTokens, parse_size, random_llama

    import workbench as wb
    from workbench.calibration.calibrate import CalibrationOptions, Calibrator
    from workbench.compression.compress import compress
    from workbench.compression.joint_solving import SolvedAhead
    from workbench.recipes.recipe import Recipe

    torch.set_num_threads(threads)
    model, loading = measured(lambda: random_llama(parse_size(size)))
    judge = max(1, windows // 4)
    options = CalibrationOptions(
        solve_tokens=windows * SEQUENCE_LENGTH,
        judge_tokens=judge * SEQUENCE_LENGTH,
        sequence_length=SEQUENCE_LENGTH,
    )
    steps = [wb.GPTQ(bits, group_size=group) for bits, group in CONFIGURATIONS[:count]]
    with tempfile.TemporaryDirectory() as folder:
        task: Any = RandomTokens(windows + judge)
        calibrator = Calibrator(task, options, folder=Path(folder))
        statistics, calibration = measured(lambda: calibrator.statistics(model))
        ahead = SolvedAhead()
        solving = []
        for index, step in enumerate(steps):
            ahead.expect(steps[index:])
            recipe = Recipe.of(step)
            _, taken = measured(lambda r=recipe: compress(model, r, calibrator, ahead=ahead))
            solving.append({"label": step.label, **taken})
    config = model.hf_model.config
    return {
        "size": size,
        "parameters": model.n_parameters,
        "width": config.hidden_size,
        "blocks": config.num_hidden_layers,
        "model_bytes": 4 * model.n_parameters,
        "tokens": statistics.n_tokens,
        "loading": loading,
        "calibration": calibration,
        "solving": solving,
        "solving_seconds": round(sum(s["seconds"] for s in solving), 3),
        "solving_cpu_seconds": round(sum(s["cpu_seconds"] for s in solving), 3),
    }


def print_row(row: dict[str, Any]) -> None:
    tokens = sum(row["tokens"].values())
    peak = max(part["peak_bytes"] for part in (row["calibration"], *row["solving"]))
    print(
        f"{row['parameters'] / 1e6:8.1f} M {row['width']:6} {row['blocks']:4} {tokens:9,}"
        f" {row['calibration']['seconds']:9.1f} {row['solving_seconds']:9.1f}"
        f" {len(row['solving']):5} {row['calibration']['peak_bytes'] / 2**30:9.2f}"
        f" {peak / 2**30:9.2f} {row['model_bytes'] / 2**30:9.2f}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["10M", "30M", "100M", "300M", "500M"])
    parser.add_argument(
        "--windows", type=int, default=32, help="of 256 tokens, a fourth more judge"
    )
    parser.add_argument("--configurations", type=int, default=3, help="of GPTQ, at most 12")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default="scaling", help="of the file in benchmarks/results/")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, args.windows, args.configurations, args.threads)))
        return
    from peers.report import hardware, load_average

    import workbench as wb

    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(args.threads),
        "load_average": {"before": load_average()},
        "versions": {
            "workbench": wb.__version__,
            **{package: version(package) for package in ("torch", "transformers")},
        },
        "sizes": [],
    }
    print(f"GPTQ, {args.configurations} configurations, {args.threads} threads")
    names = ("parameters", "width", "blks", "tokens", "calib. s", "solve s", "confs", "GiB", "GiB")
    print("{:>10} {:>6} {:>4} {:>9} {:>9} {:>9} {:>5} {:>9} {:>9}     model".format(*names))
    for size in args.sizes:
        command = [sys.executable, __file__, "--one", size, "--windows", str(args.windows)]
        command += ["--configurations", str(args.configurations), "--threads", str(args.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result["sizes"].append(json.loads(done.stdout.splitlines()[-1]))
        print_row(result["sizes"][-1])
    result["load_average"]["after"] = load_average()
    path = RESULTS / f"{args.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
