from __future__ import annotations

import pytest

from workbench.recipes import Distillation, FineTuning
from workbench.training import Settings, settings_of
from workbench.training.settings import default_learning_rate


def test_the_rate_falls_with_the_models_size_and_what_is_given_counts():
    rates = [default_learning_rate(n, "full") for n in (10**5, 10**6, 10**8, 7 * 10**9)]
    assert rates[0] == rates[1] > rates[2] > rates[3] > 5e-6
    bert = default_learning_rate(110_000_000, "full", classifies=True)
    assert 2e-5 <= bert <= 5e-5
    assert default_learning_rate(10**8, "lora") > rates[2]
    assert settings_of(FineTuning(learning_rate=0.5), 10**8).learning_rate == 0.5
    assert settings_of(Distillation("scales"), 10**8).weight_decay == 0


@pytest.mark.parametrize("total", [1, 2, 17, 1000])
def test_the_rate_rises_to_its_highest_and_falls_to_nearly_nothing(total):
    settings = Settings(epochs=1, learning_rate=1, batch_size=1, patience=None, seed=0)
    factors = [settings.factor(step, total) for step in range(total)]
    assert max(factors) == pytest.approx(1)
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert total < 17 or factors[-1] < 0.1
