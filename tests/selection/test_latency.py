"""Percentiles of a cascade's latency: planted times, simulated queries, and what is not known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.classified import classifier
from workbench.errors import ConfigError
from workbench.selection.cascades import (
    SIGNALS,
    Answer,
    Paths,
    Router,
    Tier,
    cascade,
    facts,
    percentiles,
)

N = 600


def planted(seed, scale, n=100):
    """Return times of ``n`` texts with a long tail."""
    return tuple(np.random.default_rng(seed).lognormal(np.log(scale), 0.5, n))


def tier(name, skill, cost, seed, times=()):
    return Tier(
        name, cost, classifier(N, skill, seed=seed), classifier(N, skill, seed=seed + 50),
        None if not times else float(np.mean(times)), times,
    )  # fmt: skip


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.97, 0.02, 0.01), (0.0, 0.0, 1.0)])
def test_the_percentiles_are_those_of_simulated_queries(shares):
    times = [planted(0, 2.0, 2000), planted(1, 10.0, 2000), planted(2, 40.0, 2000)]
    found = Paths(times).mixed(shares)
    chance = np.random.default_rng(3)
    text = chance.integers(0, 2000, 200_000)
    last = chance.choice(3, len(text), p=shares)
    paid = np.zeros(len(text))
    for number, tier_times in enumerate(times):  # every tier up to the one that answers
        paid += np.where(number <= last, np.asarray(tier_times)[text], 0.0)
    simulated = np.percentile(paid, [50, 95, 99])
    assert [found.p50, found.p95, found.p99] == pytest.approx(simulated, rel=0.05)
    assert found.n == 2000


def test_a_rare_slow_path_shows_in_the_99th_percentile_and_not_in_the_median():
    times = [(1.0,) * 100, (100.0,) * 100]
    rare, often = Paths(times).mixed((0.98, 0.02)), Paths(times).mixed((0.4, 0.6))
    assert (rare.p50, rare.p95, rare.p99) == (1.0, 1.0, 101.0)
    assert (often.p50, often.p95) == (101.0, 101.0)


def test_the_time_of_a_text_is_the_sum_of_its_own_times():
    short_and_long = (1.0, 9.0) * 50
    together = Paths([short_and_long, short_and_long]).mixed((0.0, 1.0))
    assert (together.p50, together.p95) == (2.0, 18.0)


def test_too_few_times_say_nothing_about_the_tail():
    few, some = percentiles([1.0, 2.0, 3.0]), percentiles(np.arange(20.0))
    assert (few.p50, few.p95, few.p99) == (2.0, None, None)
    assert (some.p95, some.p99) == (18.0, None)
    assert percentiles([]).p50 is None
    assert str(percentiles([])) == "not measured"
    assert "p95" not in str(few)
    assert Paths([(1.0,) * 100, (1.0,) * 30]).mixed((0.5, 0.5)).n == 30


def test_a_cascade_takes_the_percentiles_up():
    small, large = planted(4, 2.0), planted(5, 20.0)
    found = cascade(
        [tier("small", 2.0, 1.0, 0, small), tier("large", 4.0, 10.0, 1, large)],
        SIGNALS["margin"],
    )
    at = found.evaluation
    assert at.percentiles == Paths([small, large]).mixed(at.shares)
    assert all(point.percentiles is not None for point in found.curve)
    tails = [point.percentiles.p99 for point in found.curve]
    assert tails[-1] > tails[0]
    rows = {row["what"]: row for row in facts(found)}
    assert rows["small alone"]["p95_ms"] == percentiles(small).p95
    assert rows["cascade"]["p95_ms"] == at.percentiles.p95
    assert rows["cascade"]["first_answers"] == at.shares[0]


def test_times_that_one_tier_lacks_are_not_invented():
    found = cascade(
        [tier("small", 2.0, 1.0, 0, planted(4, 2.0)), tier("large", 4.0, 10.0, 1)],
        SIGNALS["margin"],
    )
    assert found.evaluation.percentiles is None
    rows = {row["what"]: row for row in facts(found)}
    assert rows["cascade"]["p95_ms"] is None
    assert rows["small alone"]["p95_ms"] is not None
    assert rows["large alone"]["p95_ms"] is None


def test_a_router_measures_what_it_does():
    now = [0.0]

    class Planted(Router):
        def __init__(self):
            self.models = ("small", "large")

        def __call__(self, texts):
            tier = 1 if texts[0].startswith("hard") else 0
            now[0] += 0.030 if tier else 0.002
            return [Answer("a", tier, 1.0)]

        def _log_probabilities(self, model, texts):
            now[0] += 5.0  # a first pass is slow, and not counted

    texts = [f"hard {i}" if i % 10 == 0 else f"easy {i}" for i in range(200)]
    found = Planted().measure(texts, clock=lambda: now[0])
    assert found.shares == (0.9, 0.1)
    assert found.latency_ms == pytest.approx(0.9 * 2 + 0.1 * 30)
    assert found.percentiles.p50 == pytest.approx(2.0)
    assert found.percentiles.p95 == pytest.approx(30.0)
    assert "model 1 90%" in str(found)
    with pytest.raises(ConfigError, match="list of at least one"):
        Planted().measure([])
