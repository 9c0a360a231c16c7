"""Tests of flips and confident mistakes, on a handful of examples."""

from __future__ import annotations

import numpy as np
import pytest

from tests.classified import outcomes
from workbench.errors import ConfigError
from workbench.selection.trust import confidently_wrong, find_flips
from workbench.tasks.outcomes import Outcomes


def table(label, prediction, confidence=None):
    n = len(label)
    return Outcomes(
        {
            "example": np.arange(n),
            "document": np.arange(n),
            "label": np.asarray(label),
            "prediction": np.asarray(prediction),
            "confidence": np.full(n, 0.95) if confidence is None else np.asarray(confidence),
        }
    )


def test_flips_are_sorted_by_what_changed():
    found = find_flips(table([0, 0, 0, 0, 0], [0, 0, 1, 1, 1]), table([0] * 5, [0, 1, 0, 2, 1]))
    assert (list(found.lost), list(found.gained), list(found.other)) == ([1], [2], [3])
    assert found.rate == pytest.approx(0.6)
    assert found.interval[0] < 0.6 < found.interval[1]


def test_confident_mistakes_come_surest_first():
    found = table([0, 0, 0, 0], [1, 1, 1, 0], [0.91, 0.99, 0.5, 0.99])
    rows, rate, _ = confidently_wrong(found)
    assert list(rows) == [1, 0]
    assert rate == pytest.approx(0.5)
    assert list(confidently_wrong(found, confidence=np.full(4, 0.2))[0]) == []


def test_other_examples_are_refused():
    with pytest.raises(ConfigError, match="not the same"):
        find_flips(table([0], [0]), table([0, 0], [0, 0]))
    with pytest.raises(ConfigError, match="TextClassification"):
        confidently_wrong(Outcomes({"loss": np.zeros(3)}))
    with pytest.raises(ConfigError, match="0 to 1"):
        confidently_wrong(outcomes([0], [[0.0, 1.0]]), 90)
