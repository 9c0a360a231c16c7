"""Tests of slices: planted harm is found and ranked, and where there is none none is claimed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.selection.test_flip_rates import table
from workbench.errors import ConfigError
from workbench.selection.trust import length_groups, rank_slices


def planted(n, seed, *, share, harm):
    """Return two models of the same skill but for one region, and the columns of the data."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 20, n)
    region = np.where(rng.random(n) < share, "north", rng.choice(["south", "east", "west"], n))
    columns = {
        "label": label.astype(str),
        "region": region,
        "channel": rng.choice(["mail", "phone", "chat", "web"], n),
        "length": length_groups(rng.integers(5, 200, n)),
    }
    dense = np.where(rng.random(n) < 0.9, label, (label + 1) % 20)
    run = np.where(rng.random(n) < 0.005, (label + 2) % 20, dense)  # a little noise everywhere
    run = np.where((region == "north") & (rng.random(n) < harm), (label + 3) % 20, run)
    return table(label, dense), table(label, run), columns


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("share", "harm"), [(0.05, 0.25), (0.25, 0.06)])
def test_a_planted_regression_ranks_in_the_top_three_although_all_in_all_it_passes(
    seed, share, harm
):
    dense, run, columns = planted(4000, seed, share=share, harm=harm)
    found = rank_slices(dense, run, columns)
    assert ("region", "north") in [(one.column, one.value) for one in found[:3]]
    right = [np.mean(np.asarray(t["label"]) == np.asarray(t["prediction"])) for t in (dense, run)]
    assert right[1] / right[0] > 0.97


def test_where_there_is_no_harm_none_is_claimed():
    sure = 0
    for seed in range(40):
        dense, run, columns = planted(1000, seed, share=0.05, harm=0.0)
        run.columns["prediction"] = np.where(
            np.random.default_rng(seed).random(1000) < 0.5, run["prediction"], dense["prediction"]
        )
        swapped = rank_slices(run, dense, columns)
        sure += any(one.adjusted_p_value < 0.05 for one in swapped)
    assert sure <= 4


def test_numbers_of_a_slice():
    dense = table([0] * 20, [0] * 20)
    run = table([0] * 20, [0] * 15 + [1] * 5)
    found = rank_slices(dense, run, {"half": ["a"] * 10 + ["b"] * 10, "one": ["x"] * 20})
    assert [(s.value, s.n, s.change) for s in found] == [("b", 10, -0.5), ("a", 10, 0.0)]
    assert found[0].adjusted_p_value >= found[0].p_value


def test_columns_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="3 values for 2"):
        rank_slices(table([0, 0], [0, 0]), table([0, 0], [0, 0]), {"x": ["a"] * 3})


def test_lengths_are_cut_into_quarters_with_ties():
    groups = length_groups(list(range(100)))
    assert len(set(groups)) == 4
    assert len(set(length_groups([7] * 20))) == 1
    assert len(length_groups([])) == 0
