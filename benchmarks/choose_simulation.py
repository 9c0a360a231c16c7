"""How often does choosing with confidence choose a model that fails, and how often can it tell?

    python benchmarks/choose_simulation.py [--sweeps 1000]

Simulated sweeps of 20 candidates on 300 to 3,000 examples, with true accuracies that are known.
The bar is 97 % of the baseline's true accuracy of 0.85. Candidates make the baseline's own
mistakes, some of their own, and get some right that it gets wrong; how alike candidates are to each
other is a setting. In "below" all truly fail, by 0.01 points or by up to 2 points; in "mixed" every
second one passes by 1.5 points or more, whatever its size; in "monotone" larger ones are better.
Prints a table and writes a JSON: the share of sweeps in which the chosen run truly fails (at most
5 % is promised), and the share in which any, and the smallest, of those that pass is chosen;
beside it what the plain rule does that takes the smallest run whose measured value passes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.selection.decision import choose, decide
from workbench.selection.requirements import Requirements
from workbench.tasks.metrics import ACCURACY
from workbench.tasks.outcomes import Outcomes

BASELINE, SHARE, CANDIDATES = 0.85, 0.97, 20
BAR = BASELINE * SHARE


def true_accuracies(scenario: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the candidates' true accuracies, largest candidate first."""
    if scenario == "just below":
        return np.full(CANDIDATES, BAR - 1e-4)
    if scenario == "below":
        return BAR - 1e-4 - rng.uniform(0, 0.02, CANDIDATES)
    if scenario == "mixed":
        passes = np.arange(CANDIDATES) % 2 == 0
        above = BAR + rng.uniform(0.015, 0.025, CANDIDATES)
        return np.where(passes, above, BAR - 1e-4 - rng.uniform(0, 0.05, CANDIDATES))
    return np.linspace(BASELINE, BAR - 0.03, CANDIDATES)


def simulated(
    accuracies: NDArray[np.float64], n: int, alike: float, rng: np.random.Generator
) -> tuple[list[RunRecord], dict[str, Outcomes]]:
    """Return the records and outcomes of one sweep, the baseline first.

    Parameters
    ----------
    accuracies : ndarray of shape (candidates,)
    n : int
        Examples.
    alike : float
        Share of the candidates' luck that is common to all of them.
    rng : numpy.random.Generator
    """
    common = rng.random(n)
    right = rng.random(n) < BASELINE
    records, tables = [], {}
    for number, accuracy in enumerate([BASELINE, *accuracies]):
        answers = right
        if number:
            gain = 0.02 / (1 - BASELINE)  # of the baseline's mistakes 2 points are put right
            loss = (BASELINE + 0.02 - accuracy) / BASELINE
            draw = np.where(rng.random(n) < alike, common, rng.random(n))
            answers = np.where(right, draw >= loss, draw < gain)
        steps = [RTN(4)] if number else []
        value = float(answers.mean())
        error = float(np.sqrt(value * (1 - value) / n))
        found = Measurement("accuracy", value, n=n, stderr=error)
        size = 1000 - 10 * number
        record = RunRecord(
            f"run {number}", "m", Recipe.of(steps), RunState.DONE, None, (found,), size
        )
        records.append(record)
        index = np.arange(n)
        tables[record.id] = Outcomes(
            {
                "example": index,
                "document": index,
                "n_predictions": np.ones(n, dtype=np.int64),
                "n_correct": answers.astype(np.int64),
            }
        )
    return records, tables


def simulate(scenario: str, n: int, alike: float, sweeps: int, seed: int = 0) -> dict[str, Any]:
    """Return how often sweeps end well, and how often badly."""
    rng = np.random.default_rng([seed, n, int(100 * alike), len(scenario)])
    wrong = told = best = plainly_wrong = 0
    for _ in range(sweeps):
        accuracies = true_accuracies(scenario, rng)
        records, tables = simulated(accuracies, n, alike, rng)
        truth = {f"run {i}": a >= BAR for i, a in enumerate(accuracies, 1)}
        smallest = [id for id, passes in truth.items() if passes][-1:]
        found = decide(
            records,
            records[0],
            ACCURACY,
            Requirements(SHARE),
            outcomes=lambda record, tables=tables: tables[record.id],  # type: ignore[misc]
        )
        plain = choose(records, records[0], ACCURACY, accuracy=SHARE).run
        plainly_wrong += plain is not None and not truth[plain.id]
        if found.run is not None:
            chosen = found.run.id
            wrong += not truth[chosen]
            told += truth[chosen]
            best += [chosen] == smallest
    return {
        "scenario": scenario,
        "examples": n,
        "alike": alike,
        "sweeps": sweeps,
        "chosen_truly_fails": wrong / sweeps,
        "chosen_truly_passes": told / sweeps,
        "smallest_passing_chosen": best / sweeps,
        "plain_rule_truly_fails": plainly_wrong / sweeps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/choose.json"))
    args = parser.parse_args()
    rows = []
    print("scenario     examples alike  fails   passes  smallest  plain rule fails")
    for scenario in ("just below", "below", "mixed", "monotone"):
        for n in (300, 1000, 3000):
            for alike in (0.0, 0.8):
                row = simulate(scenario, n, alike, args.sweeps)
                rows.append(row)
                print(
                    f"{scenario:12s} {n:8d} {alike:5.1f} {row['chosen_truly_fails']:7.1%}"
                    f" {row['chosen_truly_passes']:7.1%} {row['smallest_passing_chosen']:8.1%}"
                    f" {row['plain_rule_truly_fails']:8.1%}",
                    flush=True,
                )
    worst = max(row["chosen_truly_fails"] for row in rows)
    print(f"At most {worst:.1%} of the sweeps of a setting choose a model that truly fails.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "baseline": BASELINE,
        "share": SHARE,
        "candidates": CANDIDATES,
        "largest_share_that_truly_fails": worst,
        "settings": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
