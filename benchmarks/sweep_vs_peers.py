"""Time the same sweep here and with llm-compressor, and compare the quality pair by pair.

    python benchmarks/sweep_vs_peers.py        # makes .venv-llmcompressor if it is missing
    python benchmarks/sweep_vs_peers.py --model a/folder --task corpus.txt --groups 128 64 32

Both sides get the same dense weights, the same calibration tokens and the same number of threads,
and are timed from tokens in memory to compressed weights in memory: here one ``calibrate`` and a
``compress`` per configuration, there one ``oneshot`` per configuration (for GPTQ a pass over the
data is part of each). Loading, tokenising and evaluating are not counted on either side, and each
side runs once before anything is counted. Who goes first alternates by configuration and repeat.
Both results are evaluated by this package on the same windows. Other load on the machine spoils
wall times; CPU seconds and the load average are recorded so that one can see it.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.client import Peer, peer_python
from peers.report import Timing, hardware, load_average, print_row, print_totals, totals
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

import workbench as wb
from workbench import layers
from workbench.calibrate import CalibrationOptions, Calibrator
from workbench.compress import compress
from workbench.evaluate import evaluate
from workbench.loaded import put_weight
from workbench.models import LoadedModel
from workbench.outcomes import Outcomes
from workbench.recipe import Recipe
from workbench.tasks import Task, load_task
from workbench.uncertainty import paired_ratio

SEQUENCE_LENGTH = 256
RESULTS = Path(__file__).parent / "results"

PEER_VARIANTS: dict[str, dict[str, Any]] = {
    "sequential, one window a batch (its default)": {"pipeline": "sequential", "batch_size": 1},
    "sequential, 8 windows a batch": {"pipeline": "sequential", "batch_size": 8},
    "sequential without error propagation, 8 windows a batch": {
        "pipeline": "sequential",
        "batch_size": 8,
        "propagate_error": False,
    },
    "basic, 8 windows a batch": {"pipeline": "basic", "batch_size": 8},
    "basic, 8 windows a batch, 16 layers at once": {
        "pipeline": "basic",
        "batch_size": 8,
        "batched_quantization": 16,
    },
}
"""Ways to run the peer; the fastest whose perplexity is no worse than its default's is used."""


@dataclass(frozen=True)
class Configuration:
    """One quantization that both sides run."""

    method: str
    bits: int
    group_size: int | None
    symmetric: bool

    @property
    def label(self) -> str:
        return self.recipe.label

    @property
    def recipe(self) -> Recipe:
        step = wb.GPTQ if self.method == "gptq" else wb.RTN
        made = step(self.bits, group_size=self.group_size, symmetric=self.symmetric)
        return Recipe.of(made)


class Tokenised:
    """A task whose calibration windows are tokenised already, as the peer's are."""

    def __init__(self, task: Task, rows: list[list[int]]) -> None:
        self.name, self.fingerprint, self._rows = task.name, task.fingerprint, rows

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        return self._rows


class Sides:
    """Both contestants, ready to run one configuration each."""

    def __init__(
        self, args: argparse.Namespace, folder: Path, peer: Peer, model: LoadedModel, task: Task
    ) -> None:
        self.model, self.task, self.peer = model, task, peer
        self.options = CalibrationOptions(solve_tokens=args.windows * SEQUENCE_LENGTH)
        self._folder = folder
        rows = task.calibration_windows(
            model, sequence_length=SEQUENCE_LENGTH, seed=self.options.seed
        )
        if len(rows) < args.windows:
            raise SystemExit(f"The task has {len(rows)} calibration windows, not {args.windows}.")
        self._tokenised = Tokenised(task, rows)
        np.save(folder / "tokens.npy", np.array(rows[: args.windows]))
        model.hf_model.save_pretrained(folder / "dense")

    def calibrate(self) -> tuple[Calibrator, float, float]:
        """Return a calibrator with fresh statistics, and their wall and CPU seconds."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        calibrator = Calibrator(self._tokenised, self.options, folder=folder)  # type: ignore[arg-type]
        _, wall, cpu = timed(lambda: calibrator.statistics(self.model))
        return calibrator, wall, cpu

    def ours(
        self, configuration: Configuration, calibrator: Calibrator | None
    ) -> tuple[LoadedModel, float, float]:
        """Return the compressed model, and the wall and CPU seconds."""
        found, wall, cpu = timed(lambda: compress(self.model, configuration.recipe, calibrator))
        return found.model, wall, cpu

    def theirs(
        self, configuration: Configuration, options: dict[str, Any]
    ) -> tuple[LoadedModel, float, float]:
        """Return this package's model with the peer's weights, and the peer's seconds."""
        out = self._folder / "peer.safetensors"
        answer = self.peer.run(
            {
                "model": str(self._folder / "dense"),
                "tokens": str(self._folder / "tokens.npy"),
                "out": str(out),
                "options": options,
                **asdict(configuration),
            }
        )
        if answer["fallbacks"]:
            print(f"  llm-compressor fell back to RTN in {answer['fallbacks']}")
        model = self.model.copy()
        weights = load_file(out)
        linears = layers.find_linears(model.hf_model)
        if set(weights) != set(linears):
            raise SystemExit(f"Different layers: {sorted(set(weights) ^ set(linears))[:5]} …")
        for name, weight in weights.items():
            put_weight(linears[name], weight)
        return model, answer["seconds"], answer["cpu_seconds"]

    def outcomes(self, model: LoadedModel) -> Outcomes:
        """Evaluate either side's model by one function on the same windows."""
        return evaluate(model, self.task).outcomes


def timed(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what an action returns, and the wall and CPU seconds that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def choose_variant(sides: Sides, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the peer's fastest variant of equal quality, and all that was tried.

    Judged at 3 bits per group of 128, where quality differs visibly; equal means that the lower
    end of the paired 95 % interval of the perplexity ratio to its default is at most 1.
    """
    if wanted is not None:
        return wanted, []
    probe = Configuration("gptq", 3, 128, False)
    sides.theirs(probe, next(iter(PEER_VARIANTS.values())))  # warm-up
    tried: list[dict[str, Any]] = []
    default = None
    for name, options in PEER_VARIANTS.items():
        model, wall, cpu = sides.theirs(probe, options)
        estimate = sides.task.estimate("perplexity", sides.outcomes(model))
        default = default or estimate
        low = paired_ratio(estimate, default).low if estimate is not default else 1.0
        tried.append(
            {
                "variant": name,
                "seconds": wall,
                "cpu_seconds": cpu,
                "perplexity": estimate.value,
                "no_worse": low <= 1.0,
            }
        )
        print(f"  {name}: {wall:.1f} s ({cpu:.1f} s CPU), perplexity {estimate.value:.4f}")
    best = min((t for t in tried if t["no_worse"]), key=lambda t: t["cpu_seconds"])
    return best["variant"], tried


def run_method(
    sides: Sides, method: str, configurations: list[Configuration], variant: str, repeats: int
) -> dict[str, Any]:
    """Run one method's sweep on both sides and return times, totals and paired quality."""
    options = PEER_VARIANTS[variant]
    calibration = Timing()
    rows = [{"ours": Timing(), "peer": Timing()} for _ in configurations]
    quality: list[dict[str, Any]] = []
    print(f"\n{'':26} {'ours s':>8} {'peer s':>8} {'ours ppl':>10} {'peer ppl':>10}  ratio - 1")
    for repeat in range(repeats):
        calibrator = None
        if method == "gptq":
            calibrator, wall, cpu = sides.calibrate()
            calibration.add(wall, cpu)
        for index, configuration in enumerate(configurations):
            actions: dict[str, Callable[[], tuple[LoadedModel, float, float]]] = {
                "ours": lambda c=configuration, s=calibrator: sides.ours(c, s),
                "peer": lambda c=configuration: sides.theirs(c, options),
            }
            names = list(actions) if (index + repeat) % 2 == 0 else list(reversed(actions))
            models = {}
            for name in names:
                models[name], wall, cpu = actions[name]()
                rows[index][name].add(wall, cpu)
            if repeat == 0:
                quality.append(compare(sides, models["ours"], models["peer"]))
                print_row(configuration.label, rows[index], quality[-1])
    return {
        "calibration": asdict(calibration),
        "totals": totals(calibration, rows),
        "configurations": [
            {
                "label": c.label,
                **asdict(c),
                "ours": asdict(r["ours"]),
                "peer": asdict(r["peer"]),
                **q,
            }
            for c, r, q in zip(configurations, rows, quality, strict=True)
        ],
    }


def compare(sides: Sides, ours: LoadedModel, peer: LoadedModel) -> dict[str, Any]:
    """Return both perplexities, and their ratio with its paired, clustered 95 % interval."""
    a = sides.task.estimate("perplexity", sides.outcomes(ours))
    b = sides.task.estimate("perplexity", sides.outcomes(peer))
    ratio = paired_ratio(a, b)
    return {
        "ours_perplexity": a.value,
        "peer_perplexity": b.value,
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "bits_per_weight": bits_per_weight(ours),
    }


def bits_per_weight(model: LoadedModel) -> float:
    """Return the stored bits per weight of the quantized layers, scales and zero points too."""
    count = sum(w.shape[0] * w.shape[1] for w in model.weights.values())
    return 8 * sum(w.stored_bytes for w in model.weights.values()) / count


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="'demo', a folder or a Hugging Face id")
    parser.add_argument("--task", default="demo", help="'demo' or a text file or folder")
    parser.add_argument("--methods", nargs="+", default=["gptq", "rtn"], choices=["gptq", "rtn"])
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4, 3, 2])
    parser.add_argument(
        "--groups",
        nargs="+",
        type=int,
        default=[0, 128, 64],
        help="group sizes; 0: one scale per output channel; they must divide every in_features",
    )
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--windows", type=int, default=128, help="for calibration, of 256 tokens")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variant", choices=list(PEER_VARIANTS), help="skip choosing the fastest")
    parser.add_argument("--peer-env", type=Path, default=Path(".venv-llmcompressor"))
    parser.add_argument("--peer-python", type=Path, help="use this interpreter, install nothing")
    parser.add_argument("--pip-args", default="", help="passed to pip when installing the peer")
    parser.add_argument("--name", help="of the file in benchmarks/results/")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    python = args.peer_python or peer_python(args.peer_env, args.pip_args.split())
    model, task = wb.load_model(args.model), load_task(args.task)
    model = task.bind(model)
    groups = [group or None for group in args.groups]
    with (
        tempfile.TemporaryDirectory() as folder,
        Peer(python, threads=args.threads, log=Path(folder) / "peer.log") as peer,
    ):
        sides = Sides(args, Path(folder), peer, model, task)
        print(f"{model.source.name}: {model.n_parameters:,} parameters, {args.threads} threads")
        variant, tried = choose_variant(sides, args.variant)
        print(f"llm-compressor {peer.about['llmcompressor']}, {variant}")
        warm_up = Configuration("gptq", 3, groups[-1], args.symmetric)
        sides.ours(warm_up, sides.calibrate()[0])
        sides.theirs(warm_up, PEER_VARIANTS[variant])
        dense = sides.task.estimate("perplexity", sides.outcomes(model)).value
        print(f"dense perplexity {dense:.4f}")
        about: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d"),
            "hardware": hardware(args.threads),
            "load_average": {"before": load_average()},
            "versions": {
                "ours": {
                    "python": platform.python_version(),
                    **{p: version(p) for p in ("compression-workbench", "torch", "transformers")},
                },
                "peer": peer.about,
            },
            "model": {
                "name": model.source.name,
                "fingerprint": model.fingerprint,
                "parameters": model.n_parameters,
            },
            "task": {"name": task.name, "fingerprint": task.fingerprint},
            "calibration": asdict(sides.options),
            "peer_variant": {"name": variant, "options": PEER_VARIANTS[variant], "tried": tried},
            "dense_perplexity": dense,
            "results": {},
        }
        path = RESULTS / f"{args.name or f'{model.source.name}-vs-llmcompressor'}.json"
        for method in args.methods:
            configurations = [
                Configuration(method, bits, group, args.symmetric)
                for bits in args.bits
                for group in groups
            ]
            result = run_method(sides, method, configurations, variant, args.repeats)
            print_totals(method, result)
            about["results"][method] = result
            about["load_average"][f"after {method}"] = load_average()
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"\nWritten to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
