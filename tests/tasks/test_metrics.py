"""Tests of a metric as data: one estimator of value, error, paired interval and contrast."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from tests.classified import classified_task
from workbench.errors import ConfigError, NotFiniteError
from workbench.records import Metric
from workbench.tasks.metric import describe_metric
from workbench.tasks.metrics import (
    ACCURACY,
    ANSWER_PERPLEXITY,
    BITS_PER_BYTE,
    EXACT_MATCH,
    KL,
    LENGTH_ERROR,
    MACRO_F1,
    PERPLEXITY,
    contrast,
    estimate,
    macro_f1,
    measurement,
    recorded_metrics,
    relative_interval,
    score_outcomes,
)
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.scoring import score
from workbench.tasks.uncertainty import estimate_ratio, estimate_statistic, interval, t_quantile


def table(n: int = 60, seed: int = 0, **columns) -> Outcomes:
    rng = np.random.default_rng(seed)
    count = np.random.default_rng(0).integers(1, 9, n)
    made = {
        "example": np.arange(n),
        "document": np.arange(n) // 3,
        "n_predictions": count,
        "n_bytes": 4 * count,
        "loss": rng.gamma(3.0, 1.0, n) * count,
        "kl": rng.gamma(1.0, 0.1, n) * count,
        "n_correct": rng.binomial(count, 0.7),
    }
    return Outcomes({**made, **columns})


# -- the definition --------------------------------------------------------------------------


def test_a_metric_of_a_standard_name_has_its_definition() -> None:
    assert Metric("accuracy") == ACCURACY
    assert (ACCURACY.numerator, ACCURACY.denominator) == ("n_correct", "n_predictions")
    assert (PERPLEXITY.numerator, PERPLEXITY.link) == ("loss", "exp")
    assert Metric("something").numerator == "something"
    assert Metric("accuracy", numerator="right").denominator == ""


def test_it_is_stored_as_json_and_comes_back() -> None:
    for metric in (ACCURACY, MACRO_F1, KL, Metric("own", statistic="own")):
        assert Metric(**json.loads(json.dumps(dataclasses.asdict(metric)))) == metric


def test_metrics_of_an_earlier_version_are_completed() -> None:
    def plain(name: str, higher: bool = True) -> dict:
        return {"name": name, "unit": "", "higher_is_better": higher}

    scores = [{"name": "acc", "source": "acc", "aggregation": "mean"}]
    described = {
        "metrics": [plain("accuracy"), plain("macro_f1"), plain("mine"), plain("acc")],
        "saved": {"options": {"metric": "mine", "scores": scores}},
    }
    found = {metric.name: metric for metric in recorded_metrics(described)}
    assert found["accuracy"] == ACCURACY
    assert found["macro_f1"].version == MACRO_F1.version == 2
    assert found["mine"].statistic == "own"
    assert (found["acc"].numerator, found["acc"].skips_missing) == ("acc", True)
    assert (found["acc"].low, found["acc"].high) == (0.0, 1.0)


def test_a_definition_of_a_later_kind_of_task_is_kept_as_it_was_stored() -> None:
    later = Metric("ndcg", numerator="gain", denominator="ideal", low=0.0, high=1.0)
    described = {"metrics": [dataclasses.asdict(later)], "saved": {"options": {}}}
    assert recorded_metrics(described) == (later,)


# -- value and error -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (ACCURACY, lambda t: t["n_correct"].sum() / t["n_predictions"].sum()),
        (PERPLEXITY, lambda t: math.exp(t["loss"].sum() / t["n_predictions"].sum())),
        (ANSWER_PERPLEXITY, lambda t: math.exp(t["loss"].sum() / t["n_predictions"].sum())),
        (BITS_PER_BYTE, lambda t: t["loss"].sum() / t["n_bytes"].sum() / math.log(2)),
        (KL, lambda t: t["kl"].sum() / t["n_predictions"].sum()),
    ],
)
def test_value_and_error_of_ratios(metric, value) -> None:
    outcomes = table()
    found = estimate(metric, outcomes)
    assert found.value == pytest.approx(value(outcomes))
    assert found.n_clusters == 20
    # the jackknife knows nothing of links and denominators
    again = estimate_statistic(lambda rows: value(outcomes.at(rows)), outcomes["document"])
    assert found.stderr == pytest.approx(again.stderr, rel=0.06)


def test_columns_of_earlier_versions_give_the_same_numbers() -> None:
    label, said = np.arange(60) % 3, np.arange(60) % 4
    outcomes = table(n_predictions=np.ones(60), label=label, prediction=said)
    del outcomes.columns["n_correct"]
    assert estimate(ACCURACY, outcomes).value == (label == said).mean()
    assert estimate(EXACT_MATCH, table(exact=label == said)).value == (label == said).mean()
    ratio = table(length_ratio=np.linspace(0.5, 2.0, 60))
    assert estimate(LENGTH_ERROR, ratio).value == np.abs(1 - np.linspace(0.5, 2.0, 60)).mean()


def test_what_is_missing_is_left_out_only_where_the_metric_says_so() -> None:
    values = np.where(np.arange(60) % 7 == 0, np.nan, 1.0)
    outcomes = table(score=values)
    assert math.isnan(estimate(Metric("score"), outcomes).value)
    some = Metric("score", numerator="score", skips_missing=True)
    assert estimate(some, outcomes).value == 1.0
    minus = Metric("score", numerator="-score", skips_missing=True, link="exp")
    assert estimate(minus, outcomes).value == pytest.approx(math.exp(-1))


def test_a_metric_that_cannot_be_computed_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match="n_correct"):
        estimate(Metric("mine", statistic="own"), table())
    assert score_outcomes(Metric("mine", statistic="own"), table()) is None


def test_the_version_is_measured_with_the_value() -> None:
    outcomes = table(label=np.arange(60) % 3, prediction=np.arange(60) % 3)
    found = measurement(MACRO_F1, estimate(MACRO_F1, outcomes), 60)
    assert (found.value, found.version) == (1.0, 2)


# -- macro-F1 --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_is_that_of_scikit_learn_over_the_classes_of_the_labels(seed) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    labels, predictions = 2 * rng.integers(0, 5, 30), rng.integers(0, 14, 30)
    expected = metrics.f1_score(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
    )
    assert macro_f1(labels, predictions, np.arange(30)).value == pytest.approx(expected)


def test_a_model_that_predicts_a_class_no_longer_is_not_better_for_it() -> None:
    labels = np.r_[np.zeros(50, int), np.ones(45, int), np.full(5, 2)]
    dense = labels.copy()
    dense[95:] = [2, 1, 1, 1, 1]
    lazy = np.where(labels == 2, 1, labels)  # never says 2: one more mistake
    three, two = (
        estimate(MACRO_F1, table(100, label=labels, prediction=said)).value
        for said in (dense, lazy)
    )
    assert two < three
    other = np.where(labels == 0, 7, labels)  # a class that is no label counts as a mistake
    assert macro_f1(labels, other, np.arange(100)).value == pytest.approx(2 / 3)


def test_macro_f1_of_nothing_is_no_number() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert math.isnan(macro_f1(nothing, nothing, nothing).value)


def test_intervals_of_macro_f1_cover_the_truth() -> None:
    rng = np.random.default_rng(7)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
        wrong = rng.random(n) < np.array([0.1, 0.2, 0.3, 0.4])[labels]
        return labels, np.where(wrong, rng.choice(4, n), labels)

    truth, covered = macro_f1(*draw(400_000), np.arange(400_000)).value, 0
    for _ in range(300):
        found = macro_f1(*draw(400), np.arange(400))
        low, high = interval(found.value, found.stderr, found.n_clusters)
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.98


# -- two models ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [ACCURACY, PERPLEXITY, BITS_PER_BYTE, KL, MACRO_F1])
def test_pairing_takes_out_what_is_hard_for_both(metric) -> None:
    labels = np.arange(60) % 3
    dense = table(label=labels, prediction=np.where(np.arange(60) % 5 == 0, 0, labels))
    changed = dict(dense.columns)
    for name in ("loss", "kl"):
        changed[name] = changed[name] * 1.01
    changed["n_correct"] = changed["n_correct"] - (np.arange(60) == 7)
    changed["prediction"] = np.where(np.arange(60) == 7, 0, changed["prediction"])
    one, other = score_outcomes(metric, Outcomes(changed)), score_outcomes(metric, dense)
    low, high = relative_interval(one, other)
    quality = one.estimate.value / other.estimate.value
    assert low <= (quality if metric.higher_is_better else 1 / quality) <= high
    alone = one.estimate.stderr / one.estimate.value * math.sqrt(2) * t_quantile(19)
    assert high - low < 0.6 * 2 * alone
    assert relative_interval(one, score_outcomes(metric, dense.at(np.arange(30)))) is None


def test_the_contrast_has_the_sign_of_the_distance_to_the_bar() -> None:
    dense, other = table(), table(seed=1)
    for metric in (ACCURACY, PERPLEXITY, BITS_PER_BYTE, KL):
        run, base = score_outcomes(metric, other), score_outcomes(metric, dense)
        quality = run.estimate.value / base.estimate.value
        quality = quality if metric.higher_is_better else 1 / quality
        for bar in (0.9 * quality, 1.1 * quality):
            found = contrast(run, base, bar)
            assert (found.advantages.sum() > 0) == (quality > bar)
            assert found.method == "paired"
        value = run.estimate.value
        for bar in (0.9 * value, 1.1 * value):
            passes = value > bar if metric.higher_is_better else value < bar
            assert (contrast(run, None, bar).advantages.sum() > 0) == passes


def test_what_one_example_counts_follows_from_the_range() -> None:
    run, base = score_outcomes(ACCURACY, table(seed=1)), score_outcomes(ACCURACY, table())
    assert (contrast(run, base, 0.97).worst, contrast(run, base, 0.97).best) == (-0.97, 1.0)
    absolute = contrast(run, None, 0.8)
    assert absolute.worst == pytest.approx(-0.8)
    assert absolute.best == pytest.approx(0.2)
    brier = Metric("b", higher_is_better=False, numerator="kl", low=0.0, high=2.0)
    found = contrast(*(score_outcomes(brier, table(seed=seed)) for seed in (1, 0)), 0.5)
    assert (found.worst, found.best) == (-2.0, 4.0)
    loss = contrast(*(score_outcomes(PERPLEXITY, table(seed=seed)) for seed in (1, 0)), 0.97)
    assert (loss.worst, loss.best) == (0.0, 0.0)


def test_a_statistic_of_the_whole_set_is_compared_by_its_influence() -> None:
    def squared(outcomes):
        right = outcomes["n_correct"] / outcomes["n_predictions"]
        return lambda rows: float(right[rows].mean() ** 2)

    own = Metric("squared", statistic="own")
    run, base = (score_outcomes(own, table(seed=seed), squared) for seed in (1, 0))
    ratio = run.estimate.value / base.estimate.value
    low, high = relative_interval(run, base)
    assert low < ratio < high
    assert contrast(run, base, ratio - 0.01).advantages.mean() > 0
    assert contrast(run, base, ratio + 0.01).advantages.mean() < 0


def test_a_users_metric_of_every_example_needs_no_callable() -> None:
    own = describe_metric(lambda outcomes: outcomes["loss"], True, ())
    values = np.linspace(0, 1, 60)
    found = estimate(own, table(**{"metric:each": values}), lambda _: pytest.fail("not needed"))
    assert found.value == pytest.approx(0.5)
    expected = estimate_ratio(values, np.ones(60), np.arange(60) // 3)
    assert found.stderr == pytest.approx(expected.stderr)


def test_a_users_metric_takes_no_column_of_its_name() -> None:
    def loss(labels, predictions):
        return float(np.mean(labels != predictions))

    task = classified_task(metric=loss, higher_is_better=False)
    labels, said = np.arange(60) % 3, np.arange(60) % 2
    outcomes = table(label=labels, prediction=said)
    assert task.estimate("loss", outcomes).value == (labels != said).mean()


# -- what is no number -----------------------------------------------------------------------


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_score(broken) -> None:
    logits = torch.zeros(4, 10)
    logits[2, 3] = broken
    with pytest.raises(NotFiniteError, match=r"model's logits are not finite for 1 of 4"):
        score(logits, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(NotFiniteError, match="dense model's logits"):
        score(torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64), logits)


def test_a_target_without_any_probability_is_no_score() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    assert float(score(logits, torch.tensor([0])).loss) == pytest.approx(math.log(2))
    with pytest.raises(NotFiniteError, match="loss is not finite"):
        score(logits, torch.tensor([1]))
    with pytest.raises(NotFiniteError, match="KL divergence"):
        score(logits, torch.tensor([0]), torch.zeros(1, 3))
