"""Tests of cascades on made-up classifiers: known answers, ends of the curve, and who wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.classified import classifier, outcomes
from workbench.errors import ConfigError
from workbench.selection.cascades import SIGNALS, Tier, cascade, signal_named
from workbench.tasks.outcomes import Outcomes

N = 1500
HARD = np.random.default_rng(9).random(N) < 0.3


def tier(name, skill, cost, seed, *, hard=None, latency=None):
    return Tier(
        name,
        cost,
        classifier(N, skill, seed=seed, hard=hard),
        classifier(N, skill, seed=seed + 100, hard=hard),
        latency,
    )


SMALL = tier("small", 4.0, 1.0, 0, hard=HARD, latency=2.0)
LARGE = tier("large", 4.0, 10.0, 1, latency=20.0)


def accuracy(table):
    return float(np.mean(np.asarray(table["label"]) == np.asarray(table["prediction"])))


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_cascade_keeps_the_accuracy_at_a_fraction_of_the_cost(signal):
    found = cascade([SMALL, LARGE], signal_named(signal), accuracy=0.99)
    assert found.met
    at = found.evaluation
    assert at.accuracy > 0.96 * accuracy(LARGE.evaluation)
    assert at.cost == pytest.approx(1.0 + (1 - at.shares[0]) * 10.0)
    assert at.latency_ms == pytest.approx(2.0 + (1 - at.shares[0]) * 20.0)
    assert at.cost < 8
    assert sum(at.shares) == pytest.approx(1.0)
    assert found.share_interval[0] < at.shares[0] < found.share_interval[1]
    assert found.winner == "cascade"
    assert found.single == "small"


def test_the_ends_of_the_curve_are_the_models_themselves():
    found = cascade([SMALL, LARGE], SIGNALS["confidence"])
    first = found.curve[0]
    assert (first.accuracy, first.cost) == (accuracy(SMALL.evaluation), 1.0)
    assert found.curve[-1].accuracy >= accuracy(LARGE.evaluation)
    costs = [point.cost for point in found.curve]
    assert costs == sorted(costs)


def test_thresholds_are_chosen_without_the_evaluation_part():
    broken = replace(LARGE, evaluation=classifier(N, 0.0, seed=7))
    one = cascade([SMALL, LARGE], SIGNALS["margin"])
    other = cascade([SMALL, broken], SIGNALS["margin"])
    assert one.validation == other.validation
    assert one.evaluation.accuracy > other.evaluation.accuracy
    assert other.winner == "single"


def test_a_better_single_model_of_the_same_cost_wins():
    rival = classifier(N, 9.0, seed=50)
    found = cascade([SMALL, LARGE], SIGNALS["confidence"], singles=[("rival", 1.5, rival)])
    assert (found.single, found.winner) == ("rival", "single")
    dear = cascade([SMALL, LARGE], SIGNALS["confidence"], singles=[("rival", 99.0, rival)])
    assert dear.single == "small"


def test_more_than_two_tiers():
    middle = tier("middle", 3.0, 3.0, 2, latency=6.0)
    found = cascade([SMALL, middle, LARGE], SIGNALS["confidence"])
    assert len(found.validation.thresholds) == 2
    assert len(found.evaluation.shares) == 3
    assert found.evaluation.cost < 14
    assert found.evaluation.accuracy > 0.95 * accuracy(LARGE.evaluation)


def test_what_cannot_be_reached_is_said():
    found = cascade([SMALL, LARGE], SIGNALS["confidence"], accuracy=1.5)
    assert not found.met
    assert found.validation.accuracy >= accuracy(LARGE.validation)


def test_equal_models_and_ties_are_no_trouble():
    flat = outcomes(np.zeros(50, dtype=int), np.zeros((50, 3)))
    same = Tier("a", 1.0, flat, flat)
    found = cascade([same, replace(same, name="b", cost=2.0)], SIGNALS["confidence"])
    assert found.evaluation.cost == 1.0
    assert found.winner == "neither surely"


def test_no_interval_of_a_share_goes_beyond_one():
    logs = np.zeros((20, 3))
    logs[:, 0] = 5.0
    logs[0] = [0.0, 1.0, 0.0]  # one of twenty is wrong, and unsure
    table = outcomes(np.zeros(20, dtype=int), logs)
    one = Tier("a", 1.0, table, table)
    found = cascade([one, replace(one, name="b", cost=2.0)], lambda logs: logs.max(axis=1) - 0.5)
    assert found.accuracy_interval[0] < 0.95
    assert found.accuracy_interval[1] == 1.0
    assert 0 <= found.share_interval[0] <= found.share_interval[1] <= 1


def test_refusals():
    with pytest.raises(ConfigError, match="two models"):
        cascade([SMALL], SIGNALS["margin"])
    with pytest.raises(ConfigError, match="'margin'"):
        signal_named("size")
    few = classifier(10, 1.0, seed=1)
    with pytest.raises(ConfigError, match="other examples"):
        cascade([SMALL, replace(LARGE, evaluation=few)], SIGNALS["margin"])
    bare = Outcomes({k: v for k, v in few.columns.items() if k != "log_probabilities"})
    with pytest.raises(ConfigError, match="256 classes"):
        cascade([Tier("a", 1, bare, bare), Tier("b", 2, few, few)], SIGNALS["margin"])
    with pytest.raises(ConfigError, match="one number each"):
        cascade([SMALL, LARGE], lambda logs: logs)
