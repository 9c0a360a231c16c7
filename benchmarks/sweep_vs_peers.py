"""Time the same sweep here and with other engines, and compare the quality pair by pair.

    python benchmarks/sweep_vs_peers.py                   # makes .venv-… where it is missing
    python benchmarks/sweep_vs_peers.py --peer llm-compressor gptqmodel
    python benchmarks/sweep_vs_peers.py --model a/folder --task corpus.txt --groups 128 64 32
    python benchmarks/sweep_vs_peers.py --model random:100M --configurations 3

All sides get the same dense weights, the same calibration tokens and the same number of threads,
and are timed from tokens in memory to compressed weights in memory: here one ``calibrate``, and a
``compress`` per configuration that knows which ones come next, as in a study's sweep (so the first
one takes most of the time); there one run per configuration (for GPTQ a pass over the data is part
of each). Loading, tokenising and evaluating are not counted on any side, and each side runs once
before anything is counted. Who goes first alternates by configuration and repeat. All results are
evaluated by this package on the same windows; a random model, of which perplexity says nothing, by
its layers' output errors on tokens that no side saw. Other load on the machine spoils wall times;
CPU seconds and the load average are recorded so that one can see it.
"""

from __future__ import annotations

import argparse
import contextlib
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
from peers.client import GPTQMODEL, LLMCOMPRESSOR, Peer, peer_python
from peers.report import Timing, hardware, load_average, print_row, print_totals, totals
from random_models import RandomTokens, parse_size, random_llama
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

import workbench as wb
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.compression.joint_solving import SolvedAhead
from workbench.compression.layerwise import layer_errors
from workbench.models import layers
from workbench.models.load import LoadedModel
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import evaluate
from workbench.tasks import Task, load_task
from workbench.tasks.uncertainty import Estimate, paired_ratio

SEQUENCE_LENGTH = 256
RESULTS = Path(__file__).parent / "results"
WORKERS = Path(__file__).parent / "peers"

LLMCOMPRESSOR_VARIANTS: dict[str, dict[str, Any]] = {
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
GPTQMODEL_VARIANTS: dict[str, dict[str, Any]] = {
    "its default": {"offload_to_disk": True},
    "weights kept in memory": {},
    "weights kept in memory, 8 windows a batch": {"batch_size": 8},
    "weights kept in memory, 8 windows a batch, a block's layers at once": {
        "batch_size": 8,
        "true_sequential": False,
    },
}


@dataclass(frozen=True)
class PeerKind:
    """How to install a peer and how to run it.

    Attributes
    ----------
    packages : tuple of str
        What each call of ``pip install`` is given.
    worker : str
        File in ``benchmarks/peers/``.
    environment : str
        Default folder of its virtual environment.
    methods : tuple of str
    variants : dict of str to dict
        Ways to run it, its default first; the fastest whose perplexity is no worse than the
        default's is used.
    """

    packages: tuple[str, ...]
    worker: str
    environment: str
    methods: tuple[str, ...]
    variants: dict[str, dict[str, Any]]


PEERS = {
    "llm-compressor": PeerKind(
        LLMCOMPRESSOR,
        "llmcompressor_worker.py",
        ".venv-llmcompressor",
        ("gptq", "rtn"),
        LLMCOMPRESSOR_VARIANTS,
    ),
    "gptqmodel": PeerKind(
        GPTQMODEL, "gptqmodel_worker.py", ".venv-gptqmodel", ("gptq",), GPTQMODEL_VARIANTS
    ),
}
PROBE_GROUP = 128


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

    def __init__(self, task: Task | RandomTokens, rows: list[list[int]]) -> None:
        self.name, self.fingerprint, self._rows = task.name, task.fingerprint, rows

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        return self._rows

    calibration_examples = Task.calibration_examples


class Sides:
    """All contestants, ready to run one configuration each."""

    def __init__(
        self, args: argparse.Namespace, folder: Path, model: LoadedModel, task: Task | RandomTokens
    ) -> None:
        self.model, self.task = model, task
        self.options = CalibrationOptions(solve_tokens=args.windows * SEQUENCE_LENGTH)
        self.peers: dict[str, Peer] = {}
        self.variants: dict[str, dict[str, Any]] = {}
        self._folder = folder
        rows = task.calibration_windows(
            model, sequence_length=SEQUENCE_LENGTH, seed=self.options.seed
        )
        if len(rows) < args.windows:
            raise SystemExit(f"The task has {len(rows)} calibration windows, not {args.windows}.")
        self._tokenised = Tokenised(task, rows)
        self._calibrator: Calibrator | None = None
        np.save(folder / "tokens.npy", np.array(rows[: args.windows]))
        model.hf_model.save_pretrained(folder / "dense")
        model.tokenizer.save_pretrained(folder / "dense")

    def calibrate(self) -> tuple[Calibrator, float, float]:
        """Return a calibrator with fresh statistics, and their wall and CPU seconds."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        calibrator = Calibrator(self._tokenised, self.options, folder=folder)  # type: ignore[arg-type]
        _, wall, cpu = timed(lambda: calibrator.statistics(self.model))
        self._calibrator = calibrator
        return calibrator, wall, cpu

    def ours(
        self, configuration: Configuration, calibrator: Calibrator | None, ahead: SolvedAhead
    ) -> tuple[LoadedModel, float, float]:
        """Return the compressed model, and the wall and CPU seconds."""
        recipe = configuration.recipe
        found, wall, cpu = timed(lambda: compress(self.model, recipe, calibrator, ahead=ahead))
        return found.model, wall, cpu

    def theirs(
        self, name: str, configuration: Configuration, options: dict[str, Any]
    ) -> tuple[LoadedModel, float, float]:
        """Return this package's model with a peer's weights, and the peer's seconds.

        Raises
        ------
        RuntimeError
            If the peer cannot do it.
        """
        out = self._folder / "peer.safetensors"
        answer = self.peers[name].run(
            {
                "model": str(self._folder / "dense"),
                "tokens": str(self._folder / "tokens.npy"),
                "out": str(out),
                "options": options,
                **asdict(configuration),
            }
        )
        if answer["fallbacks"]:
            print(f"  {name} fell back to RTN in {answer['fallbacks']}")
        model = self.model.copy()
        weights = load_file(out)
        linears = layers.find_linears(model.hf_model)
        if set(weights) != set(linears):
            raise SystemExit(f"Different layers: {sorted(set(weights) ^ set(linears))[:5]} …")
        for layer, weight in weights.items():
            linears[layer].put(weight)
        return model, answer["seconds"], answer["cpu_seconds"]

    def quality(self, model: LoadedModel) -> Estimate | float:
        """Return the perplexity, or for a random model the mean relative output error."""
        if isinstance(self.task, RandomTokens):
            if self._calibrator is None:
                self.calibrate()
            assert self._calibrator is not None
            statistics = self._calibrator.statistics(self.model)
            errors: dict[str, float] = {}
            for group in statistics.groups:
                gram = statistics[group.key].judge.mean_gram
                errors |= layer_errors(self.model, model, group, gram, statistics.outputs)
            return sum(errors.values()) / len(errors)
        return self.task.estimate("perplexity", evaluate(model, self.task).outcomes)


def timed(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what an action returns, and the wall and CPU seconds that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def choose_variant(sides: Sides, name: str, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of a peer's fastest variant of equal quality, and all that was tried.

    Judged at 3 bits per group of 128, where quality differs visibly; equal means that the lower
    end of the paired 95 % interval of the perplexity ratio to its default is at most 1.
    """
    if wanted is not None:
        return wanted, []
    variants = PEERS[name].variants
    probe = Configuration("gptq", 3, PROBE_GROUP, False)
    sides.theirs(name, probe, next(iter(variants.values())))  # warm-up
    tried: list[dict[str, Any]] = []
    default: Estimate | float | None = None
    for variant, options in variants.items():
        model, wall, cpu = sides.theirs(name, probe, options)
        found = sides.quality(model)
        default = found if default is None else default
        entry = compared(found, default)
        tried.append(
            {
                "variant": variant,
                "seconds": wall,
                "cpu_seconds": cpu,
                "quality": entry["ours"],
                "no_worse": entry["ratio_low"] <= 1.0 or found is default,
            }
        )
        print(f"  {variant}: {wall:.1f} s ({cpu:.1f} s CPU), {entry['ours']:.4f}", flush=True)
    best = min((t for t in tried if t["no_worse"]), key=lambda t: t["cpu_seconds"])
    return best["variant"], tried


def run_method(
    sides: Sides, method: str, configurations: list[Configuration], repeats: int
) -> dict[str, Any]:
    """Run one method's sweep on all sides and return times, totals and paired quality."""
    names = [name for name in sides.peers if method in PEERS[name].methods]
    calibration = Timing()
    ours = [Timing() for _ in configurations]
    peers = {name: [Timing() for _ in configurations] for name in names}
    quality: list[dict[str, Any]] = [{} for _ in configurations]
    failed: dict[str, dict[int, str]] = {name: {} for name in names}
    print(f"\n{'':26} {'side':15} {'seconds':>8} {'quality':>10}  ours / theirs - 1")
    for repeat in range(repeats):
        calibrator = None
        if method == "gptq":
            calibrator, wall, cpu = sides.calibrate()
            calibration.add(wall, cpu)
            print(f"{'calibration':26} {'ours':15} {wall:8.2f}", flush=True)
        ahead = SolvedAhead()
        steps = [c.recipe.steps[0] for c in configurations]
        for index, configuration in enumerate(configurations):
            models: dict[str, LoadedModel] = {}
            order = ["ours", *names]
            for name in order if (index + repeat) % 2 == 0 else reversed(order):
                if name == "ours":
                    ahead.expect(steps[index:])
                    models[name], wall, cpu = sides.ours(configuration, calibrator, ahead)
                    ours[index].add(wall, cpu)
                elif index not in failed[name]:
                    try:
                        found = sides.theirs(name, configuration, sides.variants[name])
                    except RuntimeError as error:
                        failed[name][index] = str(error)
                        continue
                    models[name], wall, cpu = found
                    peers[name][index].add(wall, cpu)
            if repeat == 0:
                own = sides.quality(models["ours"])
                quality[index] = {
                    name: compared(own, sides.quality(models[name]))
                    for name in names
                    if name in models
                }
                print_row(
                    configuration.label, ours[index], value_of(own), peers, index, quality[index]
                )
    return {
        "calibration": asdict(calibration),
        "totals": {
            name: totals(calibration, ours, peers[name], set(failed[name])) for name in names
        },
        "configurations": [
            {
                "label": c.label,
                **asdict(c),
                "ours": asdict(ours[i]),
                "peers": {
                    name: {**asdict(peers[name][i]), **quality[i].get(name, {})}
                    | ({"failed": failed[name][i]} if i in failed[name] else {})
                    for name in names
                },
            }
            for i, c in enumerate(configurations)
        ],
    }


def value_of(quality: Estimate | float) -> float:
    return quality if isinstance(quality, float) else quality.value


def compared(ours: Estimate | float, theirs: Estimate | float) -> dict[str, float]:
    """Return both qualities, and their ratio with its paired, clustered 95 % interval if known."""
    a, b = value_of(ours), value_of(theirs)
    low = high = ratio = a / b if b else 1.0
    if not isinstance(ours, float) and not isinstance(theirs, float) and ours is not theirs:
        paired = paired_ratio(ours, theirs)
        ratio, low, high = paired.value, paired.low, paired.high
    return {"ours": a, "theirs": b, "ratio": ratio, "ratio_low": low, "ratio_high": high}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="demo", help="'demo', a folder, a Hugging Face id, or 'random:100M'"
    )
    parser.add_argument("--task", default="demo", help="'demo' or a text file or folder")
    parser.add_argument("--peer", nargs="+", default=["llm-compressor"], choices=list(PEERS))
    parser.add_argument("--methods", nargs="+", default=["gptq", "rtn"], choices=["gptq", "rtn"])
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4, 3, 2])
    parser.add_argument(
        "--groups",
        nargs="+",
        type=int,
        default=[0, 128, 64],
        help="group sizes; 0: one scale per output channel; they must divide every in_features",
    )
    parser.add_argument(
        "--configurations", type=int, help="only so many of bits × groups, taken evenly"
    )
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--windows", type=int, default=128, help="for calibration, of 256 tokens")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for name, kind in PEERS.items():
        key = name.replace("-", "")
        group = parser.add_argument_group(name)
        group.add_argument(
            f"--{key}-variant", choices=list(kind.variants), help="skip choosing the fastest"
        )
        group.add_argument(f"--{key}-env", type=Path, default=Path(kind.environment))
        group.add_argument(
            f"--{key}-python", type=Path, help="use this interpreter, install nothing"
        )
    parser.add_argument("--pip-args", default="", help="passed to pip when installing a peer")
    parser.add_argument("--name", help="of the file in benchmarks/results/")
    return parser.parse_args(argv)


def loaded(args: argparse.Namespace) -> tuple[LoadedModel, Task | RandomTokens]:
    """Return the model, bound to its task."""
    if args.model.startswith("random:"):
        model = random_llama(parse_size(args.model.removeprefix("random:")))
        return model, RandomTokens(args.windows + 32)
    task = load_task(args.task)
    return task.bind(wb.load_model(args.model)), task


def configurations_of(args: argparse.Namespace, method: str) -> list[Configuration]:
    """Return the configurations of a method's sweep."""
    found = [
        Configuration(method, bits, group or None, args.symmetric)
        for bits in args.bits
        for group in args.groups
    ]
    count = min(args.configurations or len(found), len(found))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    model, task = loaded(args)
    settings = {
        name: {
            key: getattr(args, f"{name.replace('-', '')}_{key}")
            for key in ("variant", "env", "python")
        }
        for name in args.peer
    }
    for name, own in settings.items():
        if own["python"] is None:
            own["python"] = peer_python(own["env"], args.pip_args.split(), PEERS[name].packages)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = Sides(args, Path(folder), model, task)
        print(f"{model.source.name}: {model.n_parameters:,} parameters, {args.threads} threads")
        about: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d"),
            "hardware": hardware(args.threads),
            "load_average": {"before": load_average()},
            "versions": {
                "ours": {
                    "python": platform.python_version(),
                    "workbench": wb.__version__,
                    **{p: version(p) for p in ("torch", "transformers")},
                },
            },
            "model": {"name": args.model, "parameters": model.n_parameters},
            "task": {"name": task.name, "fingerprint": task.fingerprint},
            "calibration": asdict(sides.options),
            "quality": "output error" if isinstance(task, RandomTokens) else "perplexity",
            "peer_variants": {},
            "results": {},
        }
        warm_up = Configuration("gptq", 3, PROBE_GROUP, args.symmetric)
        sides.ours(warm_up, sides.calibrate()[0], SolvedAhead())
        for name, own in settings.items():
            log = Path(folder) / f"{name}.log"
            worker = WORKERS / PEERS[name].worker
            sides.peers[name] = peer = stack.enter_context(
                Peer(own["python"], threads=args.threads, log=log, worker=worker, name=name)
            )
            print(f"{name}:")
            variant, tried = choose_variant(sides, name, own["variant"])
            sides.variants[name] = PEERS[name].variants[variant]
            print(f"  used: {variant}")
            if not tried:
                sides.theirs(name, warm_up, sides.variants[name])
            about["versions"][name] = peer.about
            about["peer_variants"][name] = {"name": variant, "tried": tried}
        if not isinstance(task, RandomTokens):
            about["dense_perplexity"] = value_of(sides.quality(model))
            print(f"dense perplexity {about['dense_perplexity']:.4f}")
        stem = args.name or f"{args.model.replace(':', '-').replace('/', '-')}-vs-peers"
        path = RESULTS / f"{stem}.json"
        for method in args.methods:
            result = run_method(sides, method, configurations_of(args, method), args.repeats)
            print_totals(method, result)
            about["results"][method] = result
            about["load_average"][f"after {method}"] = load_average()
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"\nWritten to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
