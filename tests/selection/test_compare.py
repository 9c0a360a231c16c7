"""Tests of the table, the front, the view and the choice, on records made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from workbench.errors import ConfigError, StudyError
from workbench.recipes import GPTQ, RTN, MagnitudePruning
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.selection.compare import SHARE_FACT, pareto_front, table, tradeoff_view
from workbench.selection.decision import choose
from workbench.tasks.metrics import ACCURACY, KL, PERPLEXITY
from workbench.tasks.outcomes import Outcomes


def record(id, size, value, recipe=(), *, metric="accuracy", stderr=None, **changes):
    found = () if value is None else (Measurement(metric, value, n=100, stderr=stderr),)
    return replace(
        RunRecord(id, "tiny", Recipe.of(recipe), RunState.DONE),
        measurements=found,
        size_bytes=size,
        **changes,
    )


DENSE = record("dense", 1000, 0.90, stderr=0.01)
GOOD = record("good", 400, 0.89, [GPTQ(4)], stderr=0.01)
SMALL = record("small", 250, 0.80, [RTN(2)], stderr=0.02)
FAT = record("fat", 1000, 0.85, [MagnitudePruning(0.5)], stderr=0.02)
FAILED = record("failed", None, None, [RTN(3)], state=RunState.FAILED, error="no <memory>")
RECORDS = [DENSE, GOOD, SMALL, FAT, FAILED]


# -- the front -------------------------------------------------------------------------------


def test_front_keeps_what_nothing_beats():
    mask = pareto_front([4, 3, 2, 2, 1], [0.9, 0.95, 0.5, 0.6, math.nan])
    assert mask.tolist() == [False, True, False, True, False]


def test_front_of_ties():
    assert pareto_front([1, 1, 2, 2], [5, 5, 5, 6]).tolist() == [True, True, False, True]


def test_front_where_lower_is_better():
    assert pareto_front([1, 2, 3], [60, 50, 55], higher_is_better=False).tolist() == [
        True,
        True,
        False,
    ]


def test_front_ignores_infinite_and_handles_none():
    assert pareto_front([1, 2], [math.inf, 0.5]).tolist() == [False, True]
    assert pareto_front([], []).tolist() == []
    with pytest.raises(ValueError, match="one value per size"):
        pareto_front([1], [])


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_front_equals_its_definition(seed, higher):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (rng.integers(1, 12), 2)).tolist()

    def beats(a, b):
        better = a[1] >= b[1] if higher else a[1] <= b[1]
        return a[0] <= b[0] and better and a != b

    expected = [not any(beats(a, b) for a in points) for b in points]
    sizes, values = zip(*points, strict=True)
    assert pareto_front(sizes, values, higher).tolist() == expected


# -- the table -------------------------------------------------------------------------------


def test_table_has_a_row_per_run_and_stderr_beside_each_metric():
    extra = replace(
        GOOD,
        measurements=(*GOOD.measurements, Measurement("kl", 0.02, "nats", 100, 0.001)),
        facts={SHARE_FACT: 0.8},
        seconds={"compress": 1.0, "evaluate": 2.0},
    )
    frame = table([DENSE, extra, FAILED], ACCURACY)
    assert list(frame.index) == ["dense", "good", "failed"]
    assert frame.index.name == "run"
    row = frame.loc["good"]
    assert row["size_mb"] == pytest.approx(0.0004)
    assert row["size_ratio"] == pytest.approx(0.4)
    assert row["compressed_share"] == 0.8
    assert (row["accuracy"], row["accuracy_stderr"]) == (0.89, 0.01)
    assert (row["kl"], row["kl_stderr"]) == (0.02, 0.001)
    assert row["seconds"] == 3.0
    assert row["recipe"] == "GPTQ 4-bit g128"
    assert frame["pareto"].tolist() == [True, True, False]
    assert frame.loc["failed", "error"] == "no <memory>"
    assert math.isnan(frame.loc["failed", "accuracy"])
    assert list(frame.columns).index("accuracy") < list(frame.columns).index("kl")


def test_table_of_nothing_still_has_its_columns():
    frame = table([], PERPLEXITY)
    assert len(frame) == 0
    assert {"recipe", "perplexity", "perplexity_stderr", "pareto"} <= set(frame.columns)


def test_ratio_is_to_the_runs_own_model():
    other = replace(record("other", 500, 0.7), model="small")
    child = replace(record("child", 100, 0.6, [RTN(4)]), model="small")
    assert table([DENSE, other, child], ACCURACY).loc["child", "size_ratio"] == 0.2


# -- the view --------------------------------------------------------------------------------


def test_view_has_points_for_measured_runs_only():
    others = (RunState.QUEUED, RunState.CANCELLED)
    waiting = [replace(FAILED, id=state.value, state=state) for state in others]
    view = tradeoff_view([*RECORDS, *waiting], ACCURACY, task="demo")
    assert [p.run_id for p in view.points] == ["dense", "good", "small", "fat"]
    assert [p.family for p in view.points] == ["dense", "GPTQ", "RTN", "Magnitude"]
    assert [p.on_front for p in view.points] == [True, True, True, False]
    assert [p.is_baseline for p in view.points] == [True, False, False, False]
    assert view.n_unmeasured == 1
    assert view.models == ("tiny",)
    assert ("size", "40.0% of tiny") in view.points[1].facts


def test_view_of_infinite_perplexity_has_no_point():
    broken = record("broken", 100, math.inf, [RTN(2)], metric="perplexity")
    view = tradeoff_view([broken], PERPLEXITY)
    assert view.points == ()
    assert view.n_unmeasured == 1


# -- the choice ------------------------------------------------------------------------------


def test_smallest_that_passes():
    choice = choose(RECORDS, DENSE, ACCURACY, accuracy=0.97)
    assert choice.run is GOOD
    assert choice.quality == pytest.approx(0.89 / 0.90)
    assert choice.interval.method == "independent"
    assert choice.interval.low < choice.quality < choice.interval.high
    assert not choice.surely
    assert "below the bar" in choice.nearest
    assert choose(RECORDS, DENSE, ACCURACY, accuracy=0.85).run is SMALL


def test_none_passes_names_the_nearest_and_by_how_much():
    choice = choose(RECORDS, DENSE, ACCURACY, accuracy=0.999)
    assert choice.run is None
    assert choice.nearest_run is GOOD
    assert "GPTQ 4-bit g128" in choice.nearest
    assert "98.9% of the baseline's quality, where 99.9% is asked" in choice.nearest


def test_lower_is_better_bar_is_baseline_over_accuracy():
    dense = record("dense", 1000, 50.0, metric="perplexity")
    near = record("near", 400, 51.5, [GPTQ(4)], metric="perplexity")
    far = record("far", 300, 51.6, [GPTQ(3)], metric="perplexity")
    assert choose([near, far], dense, PERPLEXITY, accuracy=0.97).run is near  # bar is 51.546
    absolute = choose([near, far], dense, PERPLEXITY, accuracy=51.6, relative=False)
    assert absolute.run is far


def test_absolute_accuracy():
    assert choose(RECORDS, DENSE, ACCURACY, accuracy=0.8, relative=False).run is SMALL
    assert choose(RECORDS, DENSE, ACCURACY, accuracy=0.81, relative=False).run is GOOD


def test_size_alone_gives_the_best_that_fits():
    assert choose(RECORDS, DENSE, ACCURACY, size_bytes=500).run is GOOD
    choice = choose(RECORDS, DENSE, ACCURACY, size_bytes=100)
    assert choice.run is None
    assert choice.nearest_run is SMALL
    assert "over the limit" in choice.nearest


def test_both_bars_together():
    choice = choose(RECORDS, DENSE, ACCURACY, accuracy=0.95, size_bytes=300)
    assert choice.run is None
    assert choice.nearest_run is SMALL  # 6 % too bad is nearer than 33 % too large


def test_failed_and_unmeasured_runs_are_never_chosen():
    lucky = replace(GOOD, id="x", size_bytes=1, state=RunState.INTERRUPTED)
    unmeasured = record("y", 1, None, [RTN(3)])
    assert choose([*RECORDS, lucky, unmeasured], DENSE, ACCURACY, accuracy=0.97).run is GOOD
    choice = choose([DENSE, FAILED], DENSE, ACCURACY, accuracy=0.97)
    assert choice.run is None
    assert choice.nearest_run is None
    assert "none of 2 runs" in choice.nearest
    assert choose([], DENSE, ACCURACY, accuracy=0.5).run is None


def test_a_choice_no_smaller_than_the_baseline_says_so():
    assert "not smaller" in choose([FAT], DENSE, ACCURACY, accuracy=0.5).nearest


def test_latency_that_was_never_measured_is_explained():
    with pytest.raises(StudyError, match="measured latency"):
        choose(RECORDS, DENSE, ACCURACY, latency_ms=5)
    timed = replace(GOOD, measurements=(*GOOD.measurements, Measurement("latency_ms", 7.0, "ms")))
    assert choose([timed, SMALL], DENSE, ACCURACY, accuracy=0.5, latency_ms=8).run is timed
    assert "over the limit of 6" in choose([timed], DENSE, ACCURACY, latency_ms=6).nearest


def test_bars_without_meaning():
    with pytest.raises(ConfigError, match=r"give 0\.97"):
        choose(RECORDS, DENSE, ACCURACY, accuracy=97)
    with pytest.raises(ConfigError, match="Nothing to choose by"):
        choose(RECORDS, DENSE, ACCURACY)
    with pytest.raises(ConfigError, match="above 0"):
        choose(RECORDS, DENSE, ACCURACY, size_bytes=-1)
    with pytest.raises(StudyError, match="baseline"):
        choose(RECORDS, None, ACCURACY, accuracy=0.9)
    with pytest.raises(StudyError, match="is 0"):
        choose(RECORDS, record("z", 10, 0.0), ACCURACY, accuracy=0.9)


def outcomes_of(correct, *, loss=None):
    n = len(correct)
    return Outcomes(
        {
            "example": np.arange(n),
            "document": np.arange(n),
            "n_predictions": np.ones(n, dtype=np.int64),
            "n_correct": np.asarray(correct, dtype=np.int64),
            "loss": np.zeros(n) if loss is None else np.asarray(loss, dtype=float),
        }
    )


def test_paired_interval_is_narrower_than_independent():
    rng = np.random.default_rng(0)
    dense = (rng.random(1000) < 0.9).astype(int)
    other = dense.copy()
    other[np.flatnonzero(dense)[:10]] = 0
    tables = {"dense": outcomes_of(dense), "good": outcomes_of(other)}
    base = record("dense", 1000, dense.mean(), stderr=0.0095)
    run = record("good", 400, other.mean(), [GPTQ(4)], stderr=0.0097)
    wide = choose([run], base, ACCURACY, accuracy=0.97).interval
    choice = choose([run], base, ACCURACY, accuracy=0.97, outcomes=lambda r: tables[r.id])
    assert choice.interval.method == "paired"
    assert choice.interval.low < choice.quality < choice.interval.high
    assert choice.interval.high - choice.interval.low < 0.5 * (wide.high - wide.low)
    assert choice.surely
    # ten flips among 1000: the difference has a standard error of sqrt(10)/1000
    half = 1.96 * math.sqrt(10 * (1 - 0.01)) / 1000 / dense.mean()
    assert choice.interval.high - choice.quality == pytest.approx(half, rel=0.02)


def test_paired_interval_of_perplexity():
    rng = np.random.default_rng(1)
    losses = rng.normal(4.0, 1.0, 400)
    worse = losses + rng.normal(0.01, 0.05, 400)
    ones = np.ones(400)
    tables = {"dense": outcomes_of(ones, loss=losses), "run": outcomes_of(ones, loss=worse)}
    base = record("dense", 1000, math.exp(losses.mean()), metric="perplexity")
    run = record("run", 400, math.exp(worse.mean()), [GPTQ(4)], metric="perplexity")
    choice = choose([run], base, PERPLEXITY, accuracy=0.97, outcomes=lambda r: tables[r.id])
    gap = worse.mean() - losses.mean()
    spread = 1.96 * (worse - losses).std(ddof=1) / 20
    assert choice.interval.low == pytest.approx(math.exp(-gap - spread), rel=1e-3)
    assert choice.interval.high == pytest.approx(math.exp(-gap + spread), rel=1e-3)
    assert choice.surely


def test_paired_bars_of_the_view():
    rng = np.random.default_rng(2)
    losses = rng.normal(4.0, 1.0, 400)
    worse = losses + rng.normal(0.01, 0.05, 400)
    ones = np.ones(400)
    tables = {"dense": outcomes_of(ones, loss=losses), "run": outcomes_of(ones, loss=worse)}
    base = record("dense", 10, math.exp(losses.mean()), metric="perplexity", stderr=3)
    run = record("run", 4, math.exp(worse.mean()), [GPTQ(4)], metric="perplexity", stderr=3)
    own = tradeoff_view([base, run], PERPLEXITY)
    assert [p.paired for p in own.points] == [False, False]
    assert own.points[1].interval == pytest.approx(
        (run_value(run) - 5.88, run_value(run) + 5.88), abs=0.01
    )
    view = tradeoff_view([base, run], PERPLEXITY, outcomes=lambda r: tables[r.id])
    assert [p.paired for p in view.points] == [False, True]
    assert view.points[0].interval is None
    low, high = view.points[1].interval
    assert low < run_value(run) < high
    spread = 1.96 * (worse - losses).std(ddof=1) / 20
    assert high == pytest.approx(run_value(run) * math.exp(spread), rel=1e-3)


def run_value(run):
    return run.measurements[0].value


def test_a_mean_of_a_column_of_its_name_is_paired():
    rng = np.random.default_rng(4)
    scores = rng.random(500)
    lower = scores - rng.normal(0.01, 0.02, 500)
    tables = {
        name: Outcomes({**outcomes_of(np.ones(500)).columns, "rouge": values})
        for name, values in (("dense", scores), ("run", lower))
    }
    metric = Metric("rouge")
    base = record("dense", 1000, scores.mean(), metric="rouge", stderr=0.013)
    run = record("run", 400, lower.mean(), [GPTQ(4)], metric="rouge", stderr=0.013)
    choice = choose([run], base, metric, accuracy=0.9, outcomes=lambda r: tables[r.id])
    assert choice.interval.method == "paired"
    half = 1.96 * (lower - scores).std(ddof=1) / math.sqrt(500) / scores.mean()
    assert choice.interval.high - choice.quality == pytest.approx(half, rel=0.05)
    lower[0] = math.nan  # an example without a score is no zero
    tables["run"] = Outcomes({**tables["run"].columns, "rouge": lower.copy()})
    choice = choose([run], base, metric, accuracy=0.9, outcomes=lambda r: tables[r.id])
    assert choice.interval.method == "independent"


def test_outcomes_of_different_examples_are_not_paired():
    tables = {"dense": outcomes_of([1, 1, 1]), "good": outcomes_of([1])}
    choice = choose([GOOD], DENSE, ACCURACY, accuracy=0.9, outcomes=lambda r: tables[r.id])
    assert choice.interval.method == "independent"


def classified(labels, predictions):
    n = len(labels)
    return Outcomes(
        {
            "example": np.arange(n),
            "document": np.arange(n),
            "loss": np.ones(n),
            "n_predictions": np.ones(n, dtype=np.int64),
            "kl": np.zeros(n),
            "label": np.asarray(labels),
            "prediction": np.asarray(predictions),
            "confidence": np.ones(n),
        }
    )


def test_accuracy_of_a_classifier_is_paired():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 1000)
    dense = np.where(rng.random(1000) < 0.9, labels, (labels + 1) % 4)
    other = dense.copy()
    right = np.flatnonzero(dense == labels)[:10]
    other[right] = (labels[right] + 2) % 4
    wrong = np.flatnonzero(dense != labels)[:5]
    other[wrong] = (labels[wrong] + 3) % 4  # another wrong class: neither better nor worse
    tables = {"dense": classified(labels, dense), "good": classified(labels, other)}
    base = record("dense", 1000, (dense == labels).mean(), stderr=0.0095)
    run = record("good", 400, (other == labels).mean(), [GPTQ(4)], stderr=0.0097)
    choice = choose([run], base, ACCURACY, accuracy=0.97, outcomes=lambda r: tables[r.id])
    assert choice.interval.method == "paired"
    assert choice.surely
    with_counts = {
        "dense": outcomes_of(dense == labels),
        "good": outcomes_of(other == labels),
    }
    same = choose([run], base, ACCURACY, accuracy=0.97, outcomes=lambda r: with_counts[r.id])
    assert choice.interval == same.interval
    view = tradeoff_view([base, run], ACCURACY, outcomes=lambda r: tables[r.id])
    assert [p.paired for p in view.points] == [False, True]


# -- bars and values that are out of the ordinary ------------------------------------------------

SCORE = Metric("score")


@pytest.mark.parametrize(
    ("metric", "reference", "best", "worst"),
    [(KL, 0.0, 0.01, 2.5), (SCORE, -3.0, -3.1, -9.0), (SCORE, 0.0, 0.2, -0.1)],
)
def test_limits_alone_choose_the_best_value_whatever_the_baselines(metric, reference, best, worst):
    name = metric.name
    dense = record("dense", 1000, reference, metric=name, stderr=0.0)
    fine = record("fine", 400, best, [GPTQ(4)], metric=name, stderr=0.1)
    poor = record("poor", 200, worst, [GPTQ(2)], metric=name, stderr=0.1)
    large = record("large", 900, best, [GPTQ(8)], metric=name, stderr=0.1)
    for runs in ([dense, poor, fine, large], [large, fine, poor, dense]):
        choice = choose(runs, dense, metric, size_bytes=500)
        assert choice.run is fine
        assert choice.quality is None
        assert choice.interval is None
        assert f"best {name} of the 2 runs within the limits" in choice.nearest
        assert choose(runs, dense, metric, size_bytes=950).run is fine  # of equals the smaller
        assert choose(runs, dense, metric, size_bytes=300).run is poor
    assert "the only run within" in choose(runs, dense, metric, size_bytes=300).nearest
    with pytest.raises(StudyError, match="relative=False"):
        choose(runs, dense, metric, accuracy=0.9)


def test_absolute_bars_need_no_baseline_and_speak_of_values():
    dense = record("dense", 1000, 0.0, metric="kl")
    near = record("near", 400, 0.04, [GPTQ(4)], metric="kl", stderr=0.001)
    far = record("far", 300, 0.3, [GPTQ(3)], metric="kl", stderr=0.2)
    choice = choose([near, far], dense, KL, accuracy=0.05, relative=False)
    assert choice.run is near
    assert choice.surely
    assert "kl 0.04, bar 0.05" in choice.nearest
    unsure = choose([near, far], dense, KL, accuracy=0.4, relative=False)
    assert unsure.run is far
    assert not unsure.surely
    assert "reaches beyond the bar" in unsure.nearest
    none = choose([near, far], None, KL, accuracy=0.01, relative=False)
    assert none.nearest_run is near
    assert none.nearest.endswith("it has kl 0.04, where 0.01 is asked.")
    ppl = record("ppl", 400, 18.73, [GPTQ(4)], metric="perplexity")
    base = record("dense", 1000, 18.5, metric="perplexity")
    missed = choose([ppl], base, PERPLEXITY, accuracy=5, relative=False).nearest
    assert "perplexity 18.73, where 5 is asked" in missed
    assert "%" not in missed.split("it has")[1]
    negative = record("s", 400, -2.0, [GPTQ(4)], metric="score")
    assert choose([negative], None, SCORE, accuracy=-3, relative=False).run is negative
    assert choose([negative], None, SCORE, accuracy=-1, relative=False).run is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_measured(value):
    broken = record("broken", 1, value, [RTN(2)])
    assert choose([broken, GOOD], DENSE, ACCURACY, accuracy=0.9).run is GOOD
    assert choose([broken, GOOD], DENSE, ACCURACY, size_bytes=500).run is GOOD
    alone = choose([DENSE, broken], DENSE, ACCURACY, accuracy=0.9)
    assert alone.nearest_run is None
    assert "not a finite number on: RTN 2-bit" in alone.nearest
    dense = record("dense", 1000, value)
    with pytest.raises(StudyError, match="is done, but its accuracy is") as caught:
        choose([GOOD], dense, ACCURACY, accuracy=0.9)
    assert "Run the baseline" not in str(caught.value)
    assert ("not a number" if math.isnan(value) else "infinite") in str(caught.value)
    timed = replace(GOOD, measurements=(*GOOD.measurements, Measurement("latency_ms", value, "ms")))
    with pytest.raises(StudyError, match="measured latency"):
        choose([timed], DENSE, ACCURACY, latency_ms=8)


def test_why_the_baseline_has_no_value():
    failed = replace(DENSE, state=RunState.FAILED, error="Out of memory.")
    with pytest.raises(StudyError, match=r"failed.*: Out of memory\. Give") as caught:
        choose([GOOD], failed, ACCURACY, accuracy=0.9)
    assert "Run the baseline" not in str(caught.value)
    with pytest.raises(StudyError, match="was not measured"):
        choose([GOOD], record("dense", 1000, None), ACCURACY, accuracy=0.9)
    with pytest.raises(StudyError, match="Run the baseline first"):
        choose([GOOD], replace(DENSE, state=RunState.QUEUED), ACCURACY, accuracy=0.9)
    assert choose([GOOD, SMALL], failed, ACCURACY, size_bytes=500).run is GOOD


@pytest.mark.parametrize("name", ["accuracy", "size_bytes", "latency_ms"])
@pytest.mark.parametrize("value", ["0.97", True, math.nan, [1], 0])
def test_bars_that_are_no_numbers(name, value):
    with pytest.raises(ConfigError, match=f"{name}=.* is not accepted; give a number above 0"):
        choose(RECORDS, DENSE, ACCURACY, **{name: value})


def test_numpy_numbers_are_bars_and_absolute_text_is_not():
    assert choose(RECORDS, DENSE, ACCURACY, accuracy=np.float32(0.97)).run is GOOD
    assert choose(RECORDS, DENSE, ACCURACY, size_bytes=np.int64(500)).run is GOOD
    with pytest.raises(ConfigError, match="give a number"):
        choose(RECORDS, DENSE, ACCURACY, accuracy="0.8", relative=False)
