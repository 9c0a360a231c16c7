import itertools

import numpy as np
import pytest

from workbench.errors import ConfigError
from workbench.prediction.allocation import Option, allocate, options_of, path
from workbench.prediction.cost_table import CostTable, LayerGroup, ModelSizes
from workbench.prediction.predict import group_bytes, raw_cost
from workbench.recipes import GPTQ, RTN, Mixed
from workbench.recipes.recipe import Recipe

STEPS = tuple(GPTQ(bits, group_size=32) for bits in (2, 3, 4, 8))


def table(n_groups=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(int(n), 64) for n in rng.integers(16, 80, n_groups)]
    groups = [LayerGroup(f"g{i}", "b", (f"g{i}",), (s,), "norm") for i, s in enumerate(shapes)]
    weight = rng.lognormal(-6, 1.5, n_groups)
    columns = {step: weight * 4.0 ** (4 - step.bits) for step in STEPS}
    columns[RTN(4, group_size=32)] = weight * 3  # never better than GPTQ at the same size
    return CostTable(groups, ModelSizes(4, 0, 0, ()), columns)


def exhaustive(costs, budget):
    best = np.inf
    sizes = {step: group_bytes(costs.groups, step) for step in STEPS}
    for choice in itertools.product(STEPS, repeat=len(costs.groups)):
        used = sum(sizes[s][g.key] for s, g in zip(choice, costs.groups, strict=True))
        if used <= budget:
            nats = sum(costs.columns[s][i] for i, s in enumerate(choice))
            best = min(best, nats)
    return best


def used_bytes(costs, mixed):
    return sum(group_bytes(costs.groups, mixed).values())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_the_knapsack_is_solved_to_the_optimum(seed, share):
    costs = table(seed=seed)
    options = options_of(costs)
    least = sum(group[0].n_bytes for group in options)
    most = sum(group[-1].n_bytes for group in options)
    budget = int(least + share * (most - least))
    mixed = allocate(costs, options, budget)
    assert used_bytes(costs, mixed) <= budget
    best = exhaustive(costs, budget)
    assert raw_cost(costs, Recipe((mixed,))).nats == pytest.approx(best, rel=1e-3)


def test_beaten_options_are_left_out():
    assert all(isinstance(option.step, GPTQ) for group in options_of(table()) for option in group)


def test_the_greedy_path_stays_within_every_budget_and_falls():
    costs = table()
    options = options_of(costs)
    least = sum(group[0].n_bytes for group in options)
    most = sum(group[-1].n_bytes for group in options)
    budgets = list(range(least, most, (most - least) // 9))
    found = path(costs, options, budgets)
    nats = [raw_cost(costs, Recipe((mixed,))).nats for mixed in found]
    assert all(used_bytes(costs, m) <= b for m, b in zip(found, budgets, strict=True))
    assert all(a >= b for a, b in itertools.pairwise(nats))
    for mixed, budget in zip(found, budgets, strict=True):
        exact = raw_cost(costs, Recipe((allocate(costs, options, budget),))).nats
        assert exact <= raw_cost(costs, Recipe((mixed,))).nats * (1 + 1e-4)


def test_a_budget_that_nothing_fits_says_what_would():
    costs = table()
    options = options_of(costs)
    least = sum(group[0].n_bytes for group in options)
    with pytest.raises(ConfigError, match=f"{least:,} bytes"):
        allocate(costs, options, least - 1)
    assert isinstance(allocate(costs, options, least), Mixed)


def test_layers_without_a_cost_are_refused():
    costs = table()
    options = [*options_of(costs)[:-1], []]
    with pytest.raises(ConfigError, match="no predicted cost"):
        allocate(costs, options, 10**9)


def test_an_option_is_what_it_stores():
    costs = table(1)
    (options,) = options_of(costs, [GPTQ(4, group_size=32)])
    (found,) = options
    n = costs.groups[0].shapes[0][0]
    assert found == Option(
        GPTQ(4, group_size=32),
        n * 32 + n * 2 * 2 + n,
        pytest.approx(float(costs.columns[GPTQ(4, group_size=32)][0])),
    )
