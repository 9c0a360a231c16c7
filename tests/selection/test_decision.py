"""Tests of deciding with confidence, on outcomes made by hand and on simulated sweeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.choose_simulation import simulate
from workbench.errors import ConfigError, StudyError
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.selection.cost import CostModel
from workbench.selection.decision import FAILS, LEFT_OUT, PASSES, UNCLEAR, decide
from workbench.selection.requirements import Requirements
from workbench.tasks.metrics import ACCURACY, PERPLEXITY, contrast, score_outcomes
from workbench.tasks.outcomes import Outcomes


def table(right, **columns):
    n = len(right)
    base = {"example": np.arange(n), "document": np.arange(n), "n_predictions": np.ones(n)}
    return Outcomes({**base, "n_correct": np.asarray(right, dtype=int), **columns})


def record(id, size, value, *, metric="accuracy", more=()):
    recipe = Recipe.of([] if id == "dense" else [RTN(4)])
    found = (Measurement(metric, value, n=1000, stderr=0.01), *more)
    return RunRecord(id, "tiny", recipe, RunState.DONE, None, found, size)


def study(n, lost_by_run):
    """Return records and outcomes: the baseline is right in 90 %, each run loses so many."""
    right = np.arange(n) % 10 > 0
    tables = {"dense": table(right)}
    records = [record("dense", 1000, right.mean())]
    for number, lost in enumerate(lost_by_run):
        answers = right.copy()
        answers[np.flatnonzero(right)[:lost]] = False
        records.append(record(f"run {number}", 900 - 100 * number, answers.mean()))
        tables[f"run {number}"] = table(answers)
    return records, tables


def decided(records, tables, wanted, metric=ACCURACY):
    return decide(records, records[0], metric, wanted, outcomes=lambda r: tables.get(r.id))


def test_the_smallest_that_surely_passes_is_chosen_and_each_run_has_its_answer():
    records, tables = study(3000, [3, 20, 70, 300])  # the bar allows 81
    found = decided(records, tables, Requirements(0.97))
    assert [v.answer for v in found.verdicts] == [FAILS, UNCLEAR, PASSES, PASSES]
    assert found.run.id == "run 1"
    assert "run" not in found.nearest.split()[0]
    unclear = found.verdicts[1]
    assert unclear.enough_examples > 3000
    assert "2 pass, 1 fails, 1 cannot be told" in found.nearest


def test_too_few_examples_say_how_many_would_be_enough():
    records, tables = study(100, [1])
    found = decided(records, tables, Requirements(0.97))
    assert found.run is None
    assert found.verdict.answer == UNCLEAR
    assert f"about {found.verdict.enough_examples:,} would be enough" in found.nearest
    assert 100 < found.verdict.enough_examples < 2000


def test_a_run_that_changes_nothing_needs_more_examples_not_another_bar():
    right = np.ones(30, dtype=bool)
    records = [record("dense", 1000, 1.0), record("same", 500, 1.0)]
    found = decided(records, {"dense": table(right), "same": table(right)}, Requirements(0.97))
    assert found.verdict.answer == UNCLEAR
    assert found.verdict.enough_examples > 30
    assert "no number of examples" not in found.nearest


def test_without_an_error_it_is_not_said_that_examples_are_too_few():
    records, tables = study(100, [1])
    one = {k: Outcomes({**_columns(t), "document": np.zeros(100)}) for k, t in tables.items()}
    records = [replace(r, measurements=(Measurement("accuracy", 0.9, n=100),)) for r in records]
    for kept in ({}, one):
        found = decided(records, kept, Requirements(0.97))
        assert found.verdict.answer == UNCLEAR
        assert (
            "no standard error was recorded, or all examples are of one document" in found.nearest
        )
        assert "too few" not in found.nearest


def test_one_run_reads_as_one():
    records, tables = study(3000, [400])
    found = decided(records, tables, Requirements(0.7))
    assert (
        "It is the only run that was tested. 1 passes, 0 fail, 0 cannot be told." in found.nearest
    )
    more = decided(*study(3000, [400, 300]), Requirements(0.7))
    assert "It is the smallest of 2 tested runs that surely passes. 2 pass, 0 fail" in more.nearest
    assert "1 fails" in decided(records, tables, Requirements(0.99)).nearest


def test_a_run_that_is_far_below_the_bar_is_not_the_nearest_because_it_is_small():
    records, tables = study(3000, [400, 2000])
    found = decided(records, tables, Requirements(0.97, size_bytes=890))
    assert found.verdict.run.id == "run 0"  # 1 % too large and 12 % too bad, against 71 % too bad
    assert "takes 0.0009 MB" in found.verdict.lacks[0]
    assert "where 97.0% is asked" in found.verdict.lacks[1]


def _columns(outcomes):
    return {name: outcomes[name] for name in ("example", "n_predictions", "n_correct")}


def test_none_passes_and_the_nearest_says_what_it_lacks():
    records, tables = study(3000, [400, 300])
    found = decided(records, tables, Requirements(0.97))
    assert found.run is None
    assert found.verdict.run.id == "run 1"
    assert "88.9% of the baseline's quality, where 97.0% is asked" in found.nearest


def test_the_more_runs_the_harder():
    records, tables = study(1000, [13])
    alone = decided(records, tables, Requirements(0.97))
    many, more = study(1000, [200] * 20 + [13])
    crowded = decided(
        [*many[:1], *[replace(r, size_bytes=500) for r in many[1:]]], more, Requirements(0.97)
    )
    assert alone.run is not None
    assert crowded.run is None
    assert crowded.verdicts[-1].p_value == pytest.approx(alone.verdict.p_value)


def test_runs_beyond_the_limits_cost_no_confidence():
    records, tables = study(1000, [200] * 8 + [13])
    sizes = [1000, *[900] * 8, 300]
    records = [replace(r, size_bytes=s) for r, s in zip(records, sizes, strict=True)]
    found = decided(records, tables, Requirements(0.97, size_bytes=400))
    assert found.verdict.level == pytest.approx(0.05)
    assert "over the limit" in found.verdicts[-1].lacks[0]


def test_missing_latency_is_said_and_not_guessed():
    records, tables = study(3000, [3, 3])
    timed = Measurement("latency_ms", 5.0, "ms", 7, part="")
    records[1] = replace(records[1], measurements=(*records[1].measurements, timed))
    found = decided(records, tables, Requirements(0.97, latency_ms=10))
    assert found.run.id == "run 0"
    assert found.verdicts[0].answer == UNCLEAR
    assert "study.measure(run)" in found.verdicts[0].lacks[0]
    nobody = decided(records[:1] + records[2:], tables, Requirements(0.97, latency_ms=10))
    assert nobody.run is None
    assert "no measured latency" in nobody.nearest


def test_cost_and_memory_are_limits_too():
    records, tables = study(3000, [3, 3])
    extra = (
        Measurement("latency_batch32_ms", 320.0, "ms", 7, part=""),
        Measurement("resident_bytes", 5e6, "bytes", 1, part=""),
    )
    records = [replace(r, measurements=(*r.measurements, *extra)) for r in records]
    prices = CostModel(price_per_hour_usd=3.6, utilisation=0.5)  # 10 ms each: 0.02 dollars
    cheap = Requirements(0.97, cost_per_1k_usd=0.03, cost=prices, memory_bytes=6e6)
    assert decided(records, tables, cheap).run.id == "run 1"
    dear = decided(records, tables, Requirements(0.97, cost_per_1k_usd=0.01, cost=prices))
    assert dear.run is None
    assert "dollars per 1,000 queries" in dear.nearest
    assert decided(records, tables, Requirements(0.97, memory_bytes=4e6)).run is None


def test_an_empty_study_and_one_without_a_baseline():
    assert decide([], None, ACCURACY, Requirements(0.97)).run is None
    records, _ = study(100, [1])
    assert (
        "No run can be chosen"
        in decide(records[:1], records[0], ACCURACY, Requirements(0.9)).nearest
    )
    with pytest.raises(StudyError, match="baseline first"):
        decide(records[1:], None, ACCURACY, Requirements(0.97))


def test_ties_go_to_the_better_run():
    records, tables = study(3000, [20, 3])
    records[1] = replace(records[1], size_bytes=800)
    assert decided(records, tables, Requirements(0.97)).run.id == "run 1"


def test_what_is_not_smaller_is_not_tested():
    records, tables = study(3000, [3, 3])
    records[1] = replace(records[1], size_bytes=1000)
    found = decided(records, tables, Requirements(0.97))
    assert found.verdicts[-1].lacks == ("is not smaller than the base model",)
    assert found.verdicts[-1].answer == LEFT_OUT, "which is no failure"
    assert "1 is not smaller and left out" in found.nearest
    records[1] = replace(records[1], measurements=record("worse", 1000, 0.5).measurements)
    assert decided(records, tables, Requirements(0.97)).verdicts[-1].answer == FAILS
    assert found.verdict.level == pytest.approx(0.05)


def test_one_class_and_an_absolute_bar():
    labels = np.zeros(300, dtype=int)
    predictions = (np.arange(300) % 50 == 0).astype(int)
    columns = {
        "example": np.arange(300),
        "document": np.arange(300),
        "n_predictions": np.ones(300),
        "label": labels,
        "prediction": predictions,
    }
    records = [record("dense", 1000, 0.98), record("a", 500, 0.98)]
    wanted = Requirements(0.95, relative=False)
    found = decided(records, {"a": Outcomes(columns)}, wanted)
    assert found.run.id == "a"
    assert found.verdict.method == "own"
    assert (
        decided(records, {"a": Outcomes(columns)}, Requirements(0.99, relative=False)).run is None
    )


def test_perplexity_is_better_when_lower_and_clustered_by_document():
    rng = np.random.default_rng(0)
    n = 400
    loss = rng.gamma(4.0, 25.0, n)
    base = {"example": np.arange(n), "document": np.arange(n) // 4, "n_predictions": np.full(n, 30)}
    tables = {
        "dense": Outcomes({**base, "loss": loss}),
        "good": Outcomes({**base, "loss": loss + rng.normal(0.03, 1.0, n)}),
        "bad": Outcomes({**base, "loss": loss + rng.normal(3.0, 1.0, n)}),
    }
    value = {k: math.exp(t["loss"].sum() / t["n_predictions"].sum()) for k, t in tables.items()}
    records = [
        record(k, s, value[k], metric="perplexity")
        for k, s in (("dense", 1000), ("good", 500), ("bad", 300))
    ]
    found = decided(records, tables, Requirements(0.98), PERPLEXITY)
    assert [v.answer for v in found.verdicts] == [FAILS, PASSES]
    assert found.verdict.method == "paired"
    good, dense = (score_outcomes(PERPLEXITY, tables[name]) for name in ("good", "dense"))
    assert len(contrast(good, dense, 0.98).advantages) == 100


def test_no_perplexity_lies_below_a_bar_of_zero():
    records = [record(k, 10, 20.0, metric="perplexity") for k in ("dense", "a")]
    with pytest.raises(ConfigError, match="such as 20"):
        decided(records, {}, Requirements(-1, relative=False), PERPLEXITY)


def test_a_metric_of_ones_own_is_tested_by_its_influences():
    own = Metric("my_score", statistic="own")
    records, tables = study(2000, [10, 400])
    records = [
        replace(r, measurements=(replace(r.measurements[0], metric="my_score"),)) for r in records
    ]
    found = decide(
        records,
        records[0],
        own,
        Requirements(0.97),
        outcomes=lambda r: tables[r.id],
        statistic=lambda table: lambda rows: float(table["n_correct"][rows].mean()),
    )
    assert [v.answer for v in found.verdicts] == [FAILS, PASSES]
    alone = decide(records, records[0], own, Requirements(0.97))
    assert {v.method for v in alone.verdicts} == {"independent"}


def test_limits_alone_choose_the_best_that_fits():
    records, tables = study(1000, [30, 5, 400])
    found = decided(records, tables, Requirements(size_bytes=850))
    assert found.run.id == "run 1"
    assert found.verdict.p_value is None


def test_simulated_sweeps_hardly_ever_choose_a_model_that_fails():
    rows = [
        simulate(s, n, a, 60)
        for s, n, a in (("just below", 300, 0.0), ("just below", 1000, 0.8), ("mixed", 1000, 0.0))
    ]
    assert sum(row["chosen_truly_fails"] for row in rows) / len(rows) <= 0.05
    assert rows[0]["plain_rule_truly_fails"] > 0.5  # what is guarded against does happen
    assert rows[2]["chosen_truly_passes"] > 0.8


def test_limits_may_come_from_a_table():
    assert Requirements(np.float32(0.5), size_bytes=np.int64(4_000_000)).size_bytes == 4e6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "asks for nothing"),
        ({"accuracy": 97}, "give 0.97"),
        ({"accuracy": -1}, "above 0"),
        ({"size_bytes": 0}, "a number above 0"),
        ({"accuracy": 0.9, "confidence": 1.0}, "below 1"),
        ({"cost_per_1k_usd": 1.0}, "CostModel"),
    ],
)
def test_requirements_without_meaning_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Requirements(**options)
