import dataclasses
import itertools
import math

import numpy as np
import pytest

from workbench.prediction.cost_table import CostTable, LayerGroup, ModelSizes
from workbench.prediction.predict import Observation, Predictor, raw_cost, size_bytes
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    Cast,
    DepthPruning,
    LowRankCorrection,
    MagnitudePruning,
    Mixed,
    QuantizeEmbeddings,
    SparseGPT,
)
from workbench.recipes.recipe import Recipe
from workbench.records import Metric

PERPLEXITY = Metric("perplexity", higher_is_better=False)
ACCURACY = Metric("accuracy")


def group(key, absorber="norm"):
    return LayerGroup(key, "block", (key,), ((64, 128),), absorber)


def table():
    """Two groups; the second costs four times the first, every bit less four times more."""
    columns = {
        method(bits, group_size=size): np.array([1.0, 4.0])
        * weight
        * 1e-3
        * 4.0 ** (4 - bits)
        * (size / 32) ** 0.5
        for method, weight in ((RTN, 3), (GPTQ, 1))
        for bits in (2, 3, 4, 8)
        for size in (32, 128)
    }
    columns |= {MagnitudePruning(r): np.array([r**3, r**3]) for r in (0.1, 0.3, 0.5)}
    columns[SparseGPT(0.5)] = np.array([0.01, 0.01])
    sizes = ModelSizes(itemsize=4, other_floats=10, other_bytes=3, tables=((100, 16),))
    return CostTable([group("a"), group("b", "")], sizes, columns, {QuantizeEmbeddings(8): 0.002})


def cost(*steps):
    return raw_cost(table(), Recipe(steps))


def test_a_tabulated_recipe_costs_the_sum_over_its_layers():
    assert cost(GPTQ(4, group_size=32)).nats == pytest.approx(5e-3)
    assert cost(GPTQ(4, group_size=32)).notes == ()
    assert cost().nats == 0


def test_between_bits_and_group_sizes_the_logarithm_is_linear_and_the_note_says_so():
    found = cost(GPTQ(6, group_size=64))
    assert found.nats == pytest.approx(5e-3 * 4.0**-2 * 2**0.5)
    assert found.notes == ("GPTQ 6-bit g64: interpolated",)
    assert cost(GPTQ(6, group_size=8)).notes == ("GPTQ 6-bit g8: extrapolated",)
    # One scale per channel is one group of all 128 inputs here.
    assert cost(RTN(3, group_size=None)).nats == pytest.approx(3 * 5e-3 * 4 * 2)


def test_between_ratios_the_cost_is_a_power_law():
    assert cost(MagnitudePruning(0.2)).nats == pytest.approx(2 * 0.2**3)
    assert cost(MagnitudePruning(0.0)).nats == 0


def test_fields_that_are_not_tabulated_are_named():
    found = cost(GPTQ(4, group_size=32, damping=0.1, symmetric=True))
    assert found.nats == pytest.approx(5e-3)
    assert found.notes == ("GPTQ 4-bit g32 sym: as if symmetric and damping were at the default",)


def test_chained_steps_add_up_and_say_so():
    found = cost(MagnitudePruning(0.3), GPTQ(4, group_size=32), QuantizeEmbeddings(8), Cast())
    assert found.nats == pytest.approx(2 * 0.3**3 + 5e-3 + 0.002)
    assert "costs of the steps are added" in found.notes
    both = cost(SparseGPT(0.5, bits=4, group_size=32, symmetric=True))
    assert both.nats == pytest.approx(0.02 + 5e-3)
    assert both.stands_in
    assert any("symmetric" in note for note in both.notes)


def test_mixed_takes_every_layer_from_its_own_step():
    mixed = Mixed([GPTQ(2, group_size=32), GPTQ(4, group_size=32)], {"a": 0, "b": 1})
    assert cost(mixed).nats == pytest.approx(1e-3 * 16 + 4e-3)
    only = Mixed([GPTQ(2, group_size=32)], {"a": 0})
    assert cost(only).nats == pytest.approx(16e-3)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((DepthPruning(1),), "changes the architecture"),
        ((GPTQ(4), LowRankCorrection(8)), "depends on the steps before"),
        ((QuantizeEmbeddings(3),), "outside of what has been tabulated"),
        ((AWQ(4),), "outside of what has been tabulated"),
    ],
)
def test_what_no_table_knows_has_a_reason(steps, reason):
    found = cost(*steps)
    assert found.nats is None
    assert reason in found.reason


def test_layers_without_a_gradient_have_no_prediction():
    broken = table()
    step = GPTQ(4, group_size=32)
    broken.columns[step] = np.array([math.nan, 1.0])
    assert "a has no predicted cost" in raw_cost(broken, Recipe((step,))).reason


def test_sizes_by_hand():
    groups = 2 * 64 * 128 * 4
    assert size_bytes(table(), Recipe()) == groups + 100 * 16 * 4 + 10 * 4 + 3
    codes = 64 * 128 // 2 + 64 * 4 * 2 + 64 * 4 // 2
    rest = 100 * 16 * 4 + 10 * 4 + 3
    assert size_bytes(table(), Recipe((GPTQ(4, group_size=32),))) == 2 * codes + rest
    # Only the second group keeps its input scales.
    assert size_bytes(table(), Recipe((AWQ(4, group_size=32),))) == 2 * codes + 2 * 128 + rest
    corrected = Recipe((GPTQ(4, group_size=32), LowRankCorrection(8)))
    assert size_bytes(table(), corrected) == 2 * (codes + 2 * 8 * (64 + 128)) + rest
    halved = Recipe((MagnitudePruning(0.5), Cast()))
    assert size_bytes(table(), halved) == groups // 2 + 100 * 16 * 2 + 10 * 2 + 3
    assert size_bytes(table(), Recipe((DepthPruning(1),))) is None


def test_a_correction_is_stored_only_where_something_was_compressed():
    half = Recipe((Mixed([GPTQ(4, group_size=32)], {"a": 0}), LowRankCorrection(8)))
    only = Recipe((Mixed([GPTQ(4, group_size=32)], {"a": 0}),))
    assert size_bytes(table(), half) - size_bytes(table(), only) == 2 * 8 * (64 + 128)


def test_names_that_are_no_group_are_refused():
    from workbench.errors import ConfigError

    wrong = Recipe((Mixed([GPTQ(4, group_size=32)], {"aa": 0}),))
    with pytest.raises(ConfigError, match="nearest is 'a'"):
        raw_cost(table(), wrong)
    with pytest.raises(ConfigError, match="nearest is 'a'"):
        size_bytes(table(), wrong)


def test_a_step_that_could_not_be_solved_says_why():
    broken = table()
    broken.reasons[AWQ(4)] = "no usable scale"
    assert "no usable scale" in raw_cost(broken, Recipe((AWQ(4),))).reason


def observed(factor, *steps, base=20.0):
    found = []
    for step in steps:
        kl = factor * raw_cost(table(), Recipe((step,))).nats
        found.append(Observation(Recipe((step,)), kl, kl / 20, base * math.exp(kl)))
    return found


def test_the_level_is_learned_and_the_interval_narrows():
    step = RTN(3, group_size=32)
    runs = observed(3.0, GPTQ(4, group_size=32), GPTQ(2, group_size=32), RTN(4, group_size=32))
    before = Predictor(table(), PERPLEXITY, 20.0).predict(Recipe((step,)))
    after = Predictor(table(), PERPLEXITY, 20.0, observations=runs).predict(Recipe((step,)))
    truth = 3 * 60e-3
    assert before.n_runs == 0
    assert after.n_runs == 3
    assert abs(math.log(after.kl / truth)) < abs(math.log(before.kl / truth))
    assert after.kl == pytest.approx(truth, rel=0.2)
    assert after.kl_interval[0] < truth < after.kl_interval[1]
    assert math.log(after.kl_interval[1] / after.kl_interval[0]) < math.log(
        before.kl_interval[1] / before.kl_interval[0]
    )
    assert after.interval[0] < 20 * math.exp(truth) < after.interval[1]


def test_predictions_rise_with_the_cost_whatever_was_measured():
    noisy = observed(3.0, GPTQ(4, group_size=32)) + observed(0.2, GPTQ(2, group_size=32))
    predictor = Predictor(table(), ACCURACY, 0.9, 0.01, noisy)
    ordered = [GPTQ(8), GPTQ(4), GPTQ(3), RTN(3), GPTQ(2), RTN(2)]
    found = [predictor.predict(Recipe((step,))) for step in ordered]
    assert all(a.kl < b.kl for a, b in itertools.pairwise(found))
    assert all(a.value > b.value for a, b in itertools.pairwise(found))


def test_contradicting_runs_widen_the_interval():
    steps = (GPTQ(8, group_size=32), GPTQ(4, group_size=32), GPTQ(3, group_size=32), RTN(3))
    flat = [Observation(Recipe((step,)), 0.05, 0.001, 21.0) for step in steps]
    predictor = Predictor(table(), PERPLEXITY, 20.0, observations=flat)
    found = [predictor.predict(Recipe((step,))) for step in steps]
    assert all(p.kl_interval[0] < 0.05 < p.kl_interval[1] for p in found)


def test_stand_ins_are_no_lesson():
    recipe = Recipe((GPTQ(4, group_size=32, sequential=True),))
    run = Observation(recipe, 0.1, 0.001, 22.0)
    predictor = Predictor(table(), PERPLEXITY, 20.0, observations=[run])
    assert predictor.predict(Recipe((GPTQ(3),))).n_runs == 0


def test_a_run_that_is_known_badly_counts_less():
    step = GPTQ(4, group_size=32)
    sharp, vague = (
        Predictor(
            table(), PERPLEXITY, 20.0, observations=[Observation(Recipe((step,)), 0.05, e, 21.0)]
        )
        for e in (0.0005, 0.02)
    )
    prior = Predictor(table(), PERPLEXITY, 20.0).predict(Recipe((step,))).kl
    assert prior < vague.predict(Recipe((step,))).kl < sharp.predict(Recipe((step,))).kl < 0.05


def test_values_stay_where_they_can_be():
    far = Recipe((RTN(2, group_size=128),))
    accuracy = Predictor(table(), ACCURACY, 0.9, 0.01).predict(far)
    assert 0 <= accuracy.interval[0] <= accuracy.value <= accuracy.interval[1] <= 1
    kl = Predictor(table(), Metric("kl", "nats", higher_is_better=False), 0.0).predict(far)
    assert (kl.value, kl.interval) == (kl.kl, kl.kl_interval)


def test_runs_within_their_own_error_teach_nothing():
    vague = [
        dataclasses.replace(run, kl_stderr=run.kl) for run in observed(9.0, GPTQ(4, group_size=32))
    ]
    assert (
        Predictor(table(), PERPLEXITY, 20.0, observations=vague).predict(Recipe((GPTQ(3),))).n_runs
        == 0
    )


def test_far_predictions_are_called_bad_only():
    found = Predictor(table(), PERPLEXITY, 20.0).predict(Recipe((RTN(2, group_size=128),)))
    assert found.kl > 0.3
    assert any("bad" in note for note in found.notes)
    assert "predicted perplexity" in str(found)


def test_the_table_comes_back_from_its_file(tmp_path):
    made = table()
    made.columns[GPTQ(4, group_size=64)] = np.array([math.nan, 0.25])
    made.save(tmp_path / "t.json")
    found = CostTable.load(tmp_path / "t.json")
    assert found.groups == made.groups
    assert found.sizes == made.sizes
    assert found.whole == made.whole
    assert set(found.columns) == set(made.columns)
    for step, nats in made.columns.items():
        np.testing.assert_allclose(found.columns[step], nats, rtol=1e-5)


def test_a_damaged_table_is_named(tmp_path):
    from workbench.errors import StudyError

    (tmp_path / "t.json").write_text("{", encoding="utf-8")
    with pytest.raises(StudyError, match="delete the file"):
        CostTable.load(tmp_path / "t.json")
