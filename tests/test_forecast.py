"""What a study predicts, as a user asks for it."""

from __future__ import annotations

import time

import pytest

from tests.toy import toy_study
from workbench import tabulate as module
from workbench.errors import ConfigError
from workbench.predict import size_bytes
from workbench.recipe import Recipe
from workbench.steps import (
    AWQ,
    GPTQ,
    RTN,
    DepthPruning,
    MagnitudePruning,
    Mixed,
)
from workbench.study import Study

GRID = (
    *(
        method(bits, group_size=size)
        for method in (GPTQ, RTN)
        for bits in (4, 3, 2)
        for size in (8, 16)
    ),
    MagnitudePruning(0.3),
    MagnitudePruning(0.5),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GRID", GRID)
        study = toy_study(tmp_path_factory.mktemp("forecast") / "study")
        study.tabulate()
        yield study


def test_a_prediction_takes_milliseconds_and_is_no_run(study: Study) -> None:
    study.predict(GPTQ(4, group_size=8))
    n_runs = len(study.runs)
    started = time.perf_counter()
    found = study.predict(GPTQ(3, group_size=8))
    taken = time.perf_counter() - started
    assert found.kl is not None
    assert found.size_bytes is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert len(study.runs) == n_runs
    assert taken < 1.0  # far above what it takes; the ceiling is asserted where it is quiet


def test_predictions_survive_closing_the_study(study: Study) -> None:
    again = Study.open(study.path)
    assert again.predict(GPTQ(3, group_size=8)).kl == pytest.approx(
        study.predict(GPTQ(3, group_size=8)).kl, rel=1e-4
    )


def test_a_step_that_no_table_knows_has_a_reason(study: Study) -> None:
    found = study.predict([DepthPruning(1), GPTQ(4)])
    assert (found.kl, found.value, found.size_bytes) == (None, None, None)
    assert "run it" in found.reason
    assert "no prediction" in str(found)


def test_the_frontier_falls_and_holds_mixed_recipes(study: Study) -> None:
    front = study.frontier()
    sizes, kls = [p.size_bytes for p in front], [p.kl for p in front]
    assert sizes == sorted(sizes)
    assert kls == sorted(kls, reverse=True)
    assert any(isinstance(p.recipe.steps[0], Mixed) for p in front)


def test_sensitivity_has_a_row_per_shared_input(study: Study) -> None:
    found = study.sensitivity([GPTQ(2, group_size=8), GPTQ(4, group_size=8)])
    assert list(found.table.columns) == ["GPTQ 2-bit g8", "GPTQ 4-bit g8"]
    assert (found.table["GPTQ 2-bit g8"] > found.table["GPTQ 4-bit g8"]).all()
    (heatmap,) = found.plot().data
    assert list(heatmap.y) == list(found.table.index)
    with pytest.raises(ConfigError, match="no costs by layer"):
        study.sensitivity([AWQ(4)])


def test_fit_is_no_worse_than_any_uniform_recipe_of_its_size(study: Study) -> None:
    recipe = study.fit(bits_per_weight=4.5, verify=3)
    fitted = study.run(recipe)
    assert fitted.record.facts["bits_per_weight"] <= 4.5 + 1e-9
    kl = fitted.record.measurement("kl").value
    for step in GRID[:6]:
        run = study.run(step)
        if run.size_bytes <= fitted.size_bytes:
            assert kl <= run.record.measurement("kl").value


def test_fit_within_bytes_counts_the_whole_model(study: Study) -> None:
    dense = study.baseline().size_bytes
    found = study.fit(size_bytes=0.7 * dense, verify=0)
    assert size_bytes(study._tables[study.models[0]], found) <= 0.7 * dense
    with pytest.raises(ConfigError, match="one of the two"):
        study.fit(size_bytes=1e6, bits_per_weight=3)
    with pytest.raises(ConfigError, match="one of the two"):
        study.fit()
    with pytest.raises(ConfigError, match="fewest bits"):
        study.fit(size_bytes=10)


def test_a_fitted_recipe_comes_back_from_json_and_code(study: Study) -> None:
    import workbench as wb

    recipe = study.fit(bits_per_weight=4.5, verify=0)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert eval(recipe.steps[0].code(), {"wb": wb}) == recipe.steps[0]


def test_measured_runs_sharpen_what_is_predicted(study: Study) -> None:
    fresh = study.predict(RTN(2, group_size=8), metric="kl")
    assert fresh.n_runs >= 3  # the runs of the tests above
    low, high = fresh.kl_interval
    measured = study.run(RTN(2, group_size=8)).record.measurement("kl").value
    assert low / 2 < measured < high * 2
