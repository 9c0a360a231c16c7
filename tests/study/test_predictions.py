"""What a study predicts, as a user asks for it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.toy import toy_study
from workbench.errors import ConfigError, StudyError
from workbench.prediction import tabulate as module
from workbench.prediction.predict import size_bytes
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    DepthPruning,
    MagnitudePruning,
    Mixed,
)
from workbench.recipes.recipe import Recipe
from workbench.study import Study
from workbench.study.predictions import cost_table

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


def test_whoever_waits_for_the_table_sees_it_being_made(study: Study, monkeypatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        "workbench.study.predictions.tabulate",
        lambda _, *, on_progress, **__: asked.append(on_progress),
    )
    study.predict(GPTQ(3, group_size=8), on_progress=print)
    study.frontier(n_mixed=0, on_progress=print)
    study.sensitivity([GPTQ(3, group_size=8)], on_progress=print)
    study.fit(bits_per_weight=4, verify=0, on_progress=print)
    assert asked == [print] * 4
    monkeypatch.setattr("workbench.study.predictions.on_terminal", lambda: repr)
    study.predict(GPTQ(3, group_size=8))
    assert asked[-1] is repr


def test_predictions_survive_closing_the_study(study: Study) -> None:
    again = Study.open(study.path)
    assert again.predict(GPTQ(3, group_size=8)).kl == pytest.approx(
        study.predict(GPTQ(3, group_size=8)).kl, rel=1e-4
    )


def test_a_complete_table_needs_no_model(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    again = Study.open(study.path)
    monkeypatch.setattr("workbench.study.running.engine.Engine.tabulate", refuse)
    monkeypatch.setattr("workbench.study.running.engine.Engine.execute", refuse)
    assert again.predict(RTN(3, group_size=8)).kl is not None


def test_the_plot_shows_the_predicted_front_and_makes_no_table(
    study: Study, tmp_path: Path
) -> None:
    predicted = study.plot().view.predicted
    assert {p.recipe for p in predicted} <= {p.recipe for p in study.frontier()}
    assert predicted
    assert study.plot(predicted=False).view.predicted == ()
    with pytest.raises(ConfigError, match="only measured"):
        study.plot(x="latency", predicted=True)
    fresh = toy_study(tmp_path / "fresh")
    fresh.run([])
    assert fresh.plot().view.predicted == ()
    with pytest.raises(StudyError, match=r"study\.tabulate\(\)"):
        fresh.plot(predicted=True)
    assert not (fresh.path / "predictions").exists()


def test_a_measured_run_takes_the_place_of_its_prediction(study: Study) -> None:
    chosen = study.plot().view.predicted[0]
    run = study.run(chosen.recipe)
    view = study.plot().view
    assert chosen.recipe not in [p.recipe for p in view.predicted]
    assert run.id in [p.run_id for p in view.points]


def test_a_table_that_appears_or_grows_meanwhile_is_seen(study: Study, tmp_path: Path) -> None:
    copied = Study.open(shutil.copytree(study.path, tmp_path / "copy"))
    (path,) = (copied.path / "predictions").glob("*.json")
    whole = path.read_text()
    path.unlink()
    assert copied.plot().view.predicted == ()
    table = json.loads(whole)
    table["columns"] = table["columns"][:2]
    path.write_text(json.dumps(table))
    few = copied.plot().view.predicted  # of an interrupted table, what there is
    assert any(isinstance(p.recipe.steps[0], GPTQ) for p in few)
    path.write_text(whole)
    assert {p.recipe for p in few} != {p.recipe for p in copied.plot().view.predicted}
    path.write_text("damaged")
    assert copied.plot().view.predicted == ()


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
    assert size_bytes(cost_table(study._workspace, study.models[0]), found) <= 0.7 * dense
    with pytest.raises(ConfigError, match="one of the two"):
        study.fit(size_bytes=1e6, bits_per_weight=3)
    with pytest.raises(ConfigError, match="one of the two"):
        study.fit()
    with pytest.raises(ConfigError, match="give at least") as caught:
        study.fit(size_bytes=10)
    least = int(str(caught.value).split("at least ")[1].split(", or")[0].replace(",", ""))
    assert study.fit(size_bytes=least, verify=0)
    with pytest.raises(ConfigError, match="fewest bits"):
        study.fit(size_bytes=least - 1)
    with pytest.raises(ConfigError, match=r"give at least \d") as caught:
        study.fit(bits_per_weight=1)
    bits = float(str(caught.value).rstrip(".").rsplit(" ", 1)[1])
    assert study.fit(bits_per_weight=bits, verify=0)


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
