"""Clustered errors: known answers, coverage by simulation, and the paired comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from workbench.tasks.uncertainty import (
    clustered_ratio,
    estimate_ratio,
    estimate_statistic,
    interval,
    paired_difference,
    paired_ratio,
    t_quantile,
)


def test_a_mean_of_singletons_has_the_textbook_error() -> None:
    x = np.array([1.0, 4.0, 2.0, 7.0, 5.0])
    value, stderr = clustered_ratio(x, np.ones(5), np.arange(5))
    assert value == pytest.approx(x.mean())
    assert stderr == pytest.approx(x.std(ddof=1) / math.sqrt(5))


def test_a_ratio_of_two_clusters_by_hand() -> None:
    # r = 10/20; residuals per cluster: (3 - 0.5*4) + (1 - 0.5*6) = -1 and (6 - 0.5*10) = 1
    value, stderr = clustered_ratio([3, 1, 6], [4, 6, 10], [7, 7, 9])
    assert value == 0.5
    assert stderr == pytest.approx(math.sqrt(2 / 1 * (1 + 1) / 20**2))


def test_copies_within_a_cluster_add_no_information() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    once = clustered_ratio(x, np.ones(30), np.arange(30))
    thrice = clustered_ratio(np.repeat(x, 3), np.ones(90), np.repeat(np.arange(30), 3))
    assert thrice == pytest.approx(once)


@pytest.mark.parametrize("clusters", [[], [3], [3, 3, 3]])
def test_fewer_than_two_clusters_have_no_error(clusters: list[int]) -> None:
    count = len(clusters)
    assert clustered_ratio(np.ones(count), np.ones(count), clusters)[1] is None


def test_perplexity_is_the_exponential_with_the_delta_method() -> None:
    loss, n, documents = [20.0, 33.0, 28.0], [10, 12, 11], [0, 1, 2]
    mean, error = clustered_ratio(loss, n, documents)
    perplexity = estimate_ratio(loss, n, documents).exp()
    assert perplexity.value == pytest.approx(math.exp(mean))
    assert error is not None
    assert perplexity.stderr == pytest.approx(math.exp(mean) * error)


def test_a_broken_model_gives_infinity_without_an_error() -> None:
    assert estimate_ratio([1e6, 1e6], [1, 1], [0, 1]).exp().value == math.inf
    unknown = estimate_ratio([math.nan, 1.0], [1, 1], [0, 1]).exp()
    assert math.isnan(unknown.value)
    assert unknown.stderr is None
    assert clustered_ratio([math.inf, 1.0], [1, 1], [0, 1]) == (math.inf, None)


def test_the_jackknife_of_a_mean_is_its_textbook_error() -> None:
    x = np.random.default_rng(1).normal(size=40)
    estimate = estimate_statistic(lambda rows: float(x[rows].mean()), np.arange(40))
    assert estimate.value == pytest.approx(x.mean())
    assert estimate.stderr == pytest.approx(x.std(ddof=1) / math.sqrt(40))


def test_many_clusters_are_jackknifed_in_groups() -> None:
    x = np.random.default_rng(2).normal(size=2000)
    calls = []

    def mean(rows: np.ndarray) -> float:
        calls.append(len(rows))
        return float(x[rows].mean())

    estimate = estimate_statistic(mean, np.arange(2000), max_groups=50)
    assert len(calls) == 51
    assert estimate.stderr == pytest.approx(x.std() / math.sqrt(2000), rel=0.25)


def test_the_quantile_of_students_t() -> None:
    for degrees in (1, 2, 3, 4, 5, 7, 10, 30, 1000):
        assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)
    with pytest.raises(ValueError, match="at least one"):
        t_quantile(0)


def test_without_an_error_the_interval_is_everything() -> None:
    assert interval(1.0, None, 1) == (-math.inf, math.inf)


def test_equal_models_differ_by_nothing() -> None:
    rng = np.random.default_rng(3)
    estimate = estimate_ratio(rng.normal(size=20), np.ones(20), np.arange(20))
    difference = paired_difference(estimate, estimate)
    assert (difference.value, difference.stderr) == (0, 0)
    assert paired_ratio(estimate, estimate).value == 1


def test_pairing_is_sharper_than_two_separate_errors() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(size=200)
    documents = np.arange(200)
    a = estimate_ratio(hard + 0.1 * rng.normal(size=200) + 0.05, np.ones(200), documents)
    b = estimate_ratio(hard + 0.1 * rng.normal(size=200), np.ones(200), documents)
    difference = paired_difference(a, b)
    assert a.stderr is not None
    assert difference.stderr is not None
    assert difference.stderr < a.stderr / 3
    assert difference.low < difference.value < difference.high


def test_different_examples_are_not_paired() -> None:
    a = estimate_ratio([1, 2], [1, 1], [0, 1])
    b = estimate_ratio([1, 2, 3], [1, 1, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(a, b)


def _documents(
    rng: np.random.Generator, n_documents: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of windows: documents differ in length and in difficulty, shared by their windows."""
    lengths = rng.integers(1, 9, n_documents)
    documents = np.repeat(np.arange(n_documents), lengths)
    n = rng.integers(50, 256, len(documents)).astype(float)
    difficulty = rng.normal(3.0, 0.4, n_documents)
    loss = n * (difficulty[documents] + rng.normal(0, 0.2, len(documents)))
    return loss, n, documents


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    covered = ignoring_clusters = 0
    for _ in range(400):
        loss, n, documents = _documents(rng, 30)
        estimate = estimate_ratio(loss, n, documents)
        low, high = interval(estimate.value, estimate.stderr, estimate.n_clusters)
        covered += low <= 3.0 <= high
        naive = estimate_ratio(loss, n, np.arange(len(n)))
        low, high = interval(naive.value, naive.stderr, naive.n_clusters)
        ignoring_clusters += low <= 3.0 <= high
    assert 0.91 <= covered / 400 <= 0.98
    assert ignoring_clusters / 400 < 0.80  # why errors are clustered at all


def test_paired_intervals_cover_the_true_difference() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        loss, n, documents = _documents(rng, 30)
        worse = loss + n * (0.03 + rng.normal(0, 0.05, 30)[documents])
        difference = paired_difference(
            estimate_ratio(worse, n, documents), estimate_ratio(loss, n, documents)
        )
        covered += difference.low <= 0.03 <= difference.high
    assert 0.91 <= covered / 400 <= 0.98


def test_jackknife_intervals_of_a_statistic_of_all_examples_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(150):
        values = rng.normal(1.0, 1.0, 400)
        estimate = estimate_statistic(
            lambda rows, v=values: float(v[rows].mean() ** 2), np.arange(400), max_groups=50
        )
        low, high = interval(estimate.value, estimate.stderr, estimate.n_clusters)
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 150 <= 0.985
