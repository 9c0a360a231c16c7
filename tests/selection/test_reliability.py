"""Tests of reliability and temperature, on classifiers that are known to be (too) sure."""

from __future__ import annotations

import numpy as np
import pytest

from tests.classified import outcomes
from workbench.errors import ConfigError
from workbench.selection.trust import fit_temperature, reliability, tempered
from workbench.tasks.outcomes import Outcomes


def honest(n, sharpness, seed):
    """Return a classifier that says what it knows, then multiplied: too sure if above 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 5))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return outcomes(label, logits * sharpness)


def right(table):
    return np.asarray(table["label"]) == np.asarray(table["prediction"])


def test_the_temperature_of_a_model_that_is_twice_too_sure_is_two():
    assert fit_temperature(honest(4000, 2.0, 0)) == pytest.approx(2.0, rel=0.1)
    assert fit_temperature(honest(4000, 1.0, 1)) == pytest.approx(1.0, rel=0.1)


def test_it_mends_the_calibration_of_other_examples():
    temperature = fit_temperature(honest(2000, 2.0, 0))
    other = honest(4000, 2.0, 2)
    before = reliability(other["confidence"], right(other))
    after = reliability(tempered(other, temperature), right(other))
    assert after.error < 0.03 < 0.12 < before.error
    assert before.accuracy == after.accuracy


def test_a_known_calibration_error():
    found = reliability([0.95, 0.95, 0.55, 0.55], [True, False, True, True], bins=10)
    # bins (0.9, 1.0] and (0.5, 0.6]: |0.95 - 0.5| and |0.55 - 1|, half of the examples each
    assert found.error == pytest.approx(0.45)
    assert [one.n for one in found.bins if one.n] == [2, 2]


def test_the_ends_of_the_scale_belong_to_a_bin():
    found = reliability([0.0, 1.0], [False, True], bins=15)
    assert sum(one.n for one in found.bins) == 2
    assert found.error == pytest.approx(0.0)


def test_outcomes_without_probabilities_are_refused_with_words():
    with pytest.raises(ConfigError, match=r"study\.outcomes"):
        fit_temperature(Outcomes({"label": np.zeros(2)}))
