"""Tests of the test: it holds with few discordant examples, and many runs share the error."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from workbench.selection.hypothesis_tests import examples_needed, reject_in_order, tilted_p_value


def test_agrees_with_students_t_where_that_is_good():
    values = np.random.default_rng(0).normal(0.1, 1.0, 2000)
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    found = stats.norm.isf([expected, tilted_p_value(values)])
    assert 0 < found[0] - found[1] < 0.12  # the added example costs a little
    assert tilted_p_value(-values) == pytest.approx(1 - expected, rel=0.01)


def test_holds_its_level_where_hardly_any_example_differs():
    # 300 examples, 3 % lost: the paired t test rejects 12 % of such runs at a level of 5 %
    lost = np.random.default_rng(1).binomial(300, 0.03 * 0.9, 4000)
    rejects = {}
    for count in np.unique(lost):
        values = np.r_[np.full(270 - count, 0.03), np.full(count, -0.97), np.zeros(30)]
        rejects[count] = (
            tilted_p_value(values, worst=-0.97) <= 0.05,
            stats.ttest_1samp(values, 0.0, alternative="greater").pvalue <= 0.05,
        )
    ours, students = np.mean([rejects[count] for count in lost], axis=0)
    assert ours <= 0.05 < students


def test_no_loss_at_all_is_no_proof_with_few_examples():
    assert tilted_p_value(np.full(30, 0.03), worst=-0.97) > 0.3
    assert tilted_p_value(np.full(1000, 0.03), worst=-0.97) < 0.001


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 1.0], [-1.0, -1.0]])
def test_nothing_is_proved_by_nothing(values):
    assert tilted_p_value(values) == 1.0


def test_one_bad_large_run_does_not_end_the_test():
    rejected, levels = reject_in_order([0.9, 0.001, 0.001, 0.02], 0.05)
    assert rejected.tolist() == [False, True, True, True]
    assert levels[3] == pytest.approx(0.05 * 3 / 4)


def test_when_all_pass_nothing_is_corrected_for_the_last():
    rejected, levels = reject_in_order([0.01, 0.02, 0.03, 0.049], 0.05)
    assert rejected.all()
    assert levels[-1] == pytest.approx(0.05)


def test_the_last_hands_its_share_back():
    assert reject_in_order([0.03, 0.001], 0.05)[0].tolist() == [True, True]


def by_graph(p_values, alpha):
    """Return what the graph of Bretz et al. says, every weight of it updated at every step."""
    count = len(p_values)
    levels = np.full(count, alpha / max(count, 1))
    last, graph = levels.copy(), np.eye(count, k=1)
    if count > 1:
        graph[-1, :-1] = 1.0 / (count - 1)
    is_open = np.ones(count, dtype=bool)
    while True:
        last[is_open] = levels[is_open]
        ready = np.flatnonzero(is_open & (p_values <= levels))
        if not len(ready):
            return ~is_open, last
        j = ready[0]
        is_open[j] = False
        levels = levels + levels[j] * graph[j]
        levels[j] = 0.0
        loops = graph[:, j] * graph[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            through = (graph + np.outer(graph[:, j], graph[j])) / (1 - loops)[:, None]
        graph = np.where((loops < 1)[:, None], through, 0.0)
        graph[j], graph[:, j] = 0.0, 0.0
        np.fill_diagonal(graph, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_the_chain_is_the_graph(seed):
    rng = np.random.default_rng(seed)
    for count in (*range(12), 40):
        for p_values in (
            rng.random(count) ** rng.integers(1, 8) * rng.choice([1.0, 0.05, 0.01]),
            rng.choice([0.0, 0.05 / max(count, 1), 0.05, 0.01, 0.5], count),
        ):
            expected, levels = by_graph(p_values, 0.05)
            rejected, found = reject_in_order(p_values, 0.05)
            assert rejected.tolist() == expected.tolist()
            assert found == pytest.approx(levels, rel=1e-9, abs=0)


def test_thousands_of_runs_take_no_time():
    start = time.perf_counter()
    for p_values in (np.zeros(20_000), np.linspace(0.05, 0, 20_000), np.full(20_000, 0.5)):
        reject_in_order(p_values, 0.05)
    assert time.perf_counter() - start < 5


def test_at_most_alpha_of_false_rejections_in_any_mixture():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(4000):
        true = rng.random(8) < 0.5  # hypotheses that must not be rejected
        p_values = np.where(true, rng.random(8), rng.random(8) * 1e-4)
        wrong += bool(reject_in_order(p_values, 0.05)[0][true].any())
    assert wrong / 4000 <= 0.055


def test_enough_examples_are_enough():
    rng = np.random.default_rng(3)
    few = rng.normal(0.1, 1.0, 100)
    needed = examples_needed(few, 100, alpha=0.05)
    truth = rng.normal(few.mean(), few.std(), (400, needed))
    told = np.mean([tilted_p_value(row) <= 0.05 for row in truth])
    assert 0.7 < told < 0.9
    assert examples_needed(np.r_[1.0, -1.0], 2, alpha=0.05) is None


def test_more_examples_are_asked_for_than_there_are():
    # no example differs and all are right: the normal law would ask for none
    alike = np.full(30, 0.03)
    needed = examples_needed(alike, 30, alpha=0.05, worst=-0.97)
    assert 30 < needed < 1000
    assert tilted_p_value(np.full(needed, 0.03), worst=-0.97) <= 0.05
    assert tilted_p_value(np.full(needed // 2, 0.03), worst=-0.97) > 0.05
    one_lost = np.r_[np.full(44, 0.03), -0.97]
    assert examples_needed(one_lost, 45, alpha=0.01, worst=-0.97) > 45
    assert examples_needed(-alike, 30, alpha=0.05) is None
