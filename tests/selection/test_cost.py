"""Tests of costs: arithmetic on measured times and the user's prices."""

from __future__ import annotations

import pytest

from workbench.errors import ConfigError
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.selection.cost import CostModel


def run(**measured):
    found = tuple(Measurement(k, v, n=7, part="", how="packed") for k, v in measured.items())
    return RunRecord("a", "m", Recipe(), RunState.DONE, None, found, 100)


def test_a_decoder_pays_for_its_prompt_and_every_token():
    prices = CostModel(price_per_hour_usd=3.6, utilisation=0.5, new_tokens=11)
    cost = prices.of(run(first_token_ms=100.0, latency_ms=10.0))
    assert cost.seconds_per_query == pytest.approx(0.2)
    assert cost.per_1k_usd == pytest.approx(0.2 * 1000 / 3600 * 3.6 / 0.5)
    assert cost.per_month_usd is None
    assert cost.energy_per_1k_kwh is None


def test_a_classifier_is_taken_at_its_batches():
    prices = CostModel(price_per_hour_usd=3.6, utilisation=1.0, queries_per_month=1e6)
    cost = prices.of(run(latency_ms=100.0, latency_batch32_ms=320.0))
    assert cost.per_1k_usd == pytest.approx(0.01)
    assert cost.per_month_usd == pytest.approx(10.0)


def test_energy_is_added_where_it_was_measured():
    prices = CostModel(price_per_hour_usd=0.0, new_tokens=100, price_per_kwh_usd=0.36)
    cost = prices.of(run(first_token_ms=1.0, latency_ms=1.0, energy_joules=3.6))
    assert cost.energy_per_1k_kwh == pytest.approx(0.1)
    assert cost.per_1k_usd == pytest.approx(0.036)


def test_nothing_measured_costs_nothing_known():
    assert CostModel(price_per_hour_usd=1.0).of(run()) is None


@pytest.mark.parametrize("options", [{"utilisation": 0}, {"utilisation": 1.5}, {"new_tokens": 0.5}])
def test_prices_without_meaning_are_refused(options):
    with pytest.raises(ConfigError):
        CostModel(price_per_hour_usd=1.0, **options)
