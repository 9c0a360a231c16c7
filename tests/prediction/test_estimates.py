"""Times and memory that are said before a run, from the trainings that are done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.app.fake import record
from tests.toy import toy_study
from workbench.app.parts.durations import duration
from workbench.prediction.estimates import estimate_range, estimate_training_bytes
from workbench.recipes import RTN, Distillation, FineTuning
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord

TUNED = FineTuning(epochs=2, batch_size=8)


def trained(step: FineTuning | Distillation = TUNED, seconds: float = 0.5) -> RunRecord:
    """Return a run that trained on 80 examples; the rest took two seconds."""
    fact = {"seconds_per_step": seconds, "examples": 80, "needed_bytes": 7}
    made = record("t", 1, 0.5, step)
    return replace(made, facts={"training": [fact]}, seconds={"compress": 10.0})


def base() -> RunRecord:
    return replace(record("dense", 2, 0.5), seconds={"evaluate": 2.0})


def spent(recipe: list, *records: RunRecord) -> tuple[float, float] | None:
    return estimate_range(records, Recipe.of(recipe), records[0].model)


def test_a_training_is_not_estimated_from_runs_that_did_not_train() -> None:
    other = replace(record("a", 1, 0.5, RTN(4)), seconds={"compress": 3.0})
    assert spent([TUNED], base(), other) is None
    assert spent([RTN(3)], base(), other) == pytest.approx((2.0, 4.5))


def test_its_time_is_that_of_its_steps_and_may_end_as_early_as_patience_says() -> None:
    low, high = spent([FineTuning(epochs=6, batch_size=8, patience=2)], base(), trained())
    assert low == pytest.approx(60 * 0.5 / 1.5 * (3 / 6) + 2 / 1.5)
    assert high == pytest.approx(60 * 0.5 * 1.5 + 2 * 1.5)
    low, high = spent([FineTuning(epochs=6, batch_size=16, patience=None)], base(), trained())
    assert (low, high) == pytest.approx((30 / 1.5 + 2 / 1.5, 45 + 3)), "twice the examples a step"
    wide = spent([Distillation(epochs=6, batch_size=16, patience=None)], base(), trained())
    assert wide[0] < low < high < wide[1], "another kind of training is known roughly"


def test_its_memory_is_what_such_a_training_needed() -> None:
    assert estimate_training_bytes([trained()], Recipe.of([TUNED]), 100) == (7, True)
    assert estimate_training_bytes([base()], Recipe.of([TUNED]), 100) == (2000, False)
    assert estimate_training_bytes([trained()], Recipe.of([RTN(4)]), 100) == (0, True)


def test_what_a_training_records_tells_the_next_one(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "study")
    study.run(FineTuning(epochs=2))
    longer = FineTuning(epochs=4, patience=None)
    low, high = estimate_range(study.records, Recipe.of([longer]), study.models[0])
    (fact,) = study.run(longer).record.facts["training"]
    assert low / 3 < fact["seconds_per_step"] * fact["steps"] < 3 * high  # machines are shared
    assert fact["needed_bytes"] == estimate_training_bytes(study.records, Recipe.of([longer]), 1)[0]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(3.3, 7.5, "about 5 s"), (20.9, 61, "20 s to 61 s"), (80, 700, "80 s to 12 min")],
)
def test_ranges_are_rounded_outwards(low: float, high: float, words: str) -> None:
    assert duration(low, high) == words
