"""A study as a user has it: run, sweep, reopen, several base models, choose, delete."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import CALIBRATION, toy_model, toy_study, toy_task
from workbench.errors import CancelledError, ConfigError, StudyError
from workbench.recipes import AWQ, GPTQ, RTN, MagnitudePruning
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study import Study

STEPS = [RTN(bits, group_size=8) for bits in (2, 3, 4)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return toy_study(tmp_path / "study")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with finished runs, for tests that only look."""
    study = toy_study(tmp_path_factory.mktemp("done") / "study")
    study.sweep([*STEPS, GPTQ(3, group_size=8), MagnitudePruning(0.5)])
    return study


def fail_on(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Let compressing to so many bits fail."""
    from workbench.compression import compress as module

    original = module.compress

    def compress(model: Any, recipe: Recipe, *rest: Any, **options: Any) -> Any:
        if any(getattr(step, "bits", None) == bits for step in recipe.steps):
            raise MemoryError("no room")
        return original(model, recipe, *rest, **options)

    monkeypatch.setattr(module, "compress", compress)


class TestRun:
    def test_the_baseline_comes_first_by_itself(self, study: Study) -> None:
        assert study.runs == ()
        assert study.baseline() is None
        run = study.run(RTN(4, group_size=8))
        baseline = study.baseline()
        assert baseline is not None
        assert study.runs == (baseline, run)
        assert baseline.label == "dense"
        assert baseline.recipe == Recipe()
        assert baseline.parent is None
        assert run.parent == baseline
        assert run.state is RunState.DONE
        assert run.size_bytes is not None
        assert baseline.size_bytes is not None
        assert run.size_bytes < baseline.size_bytes

    def test_the_same_recipe_is_not_computed_twice(self, study: Study) -> None:
        first = study.run(RTN(4, group_size=8))
        record = first.record
        stages: list[str] = []
        again = study.run(
            Recipe.of(RTN(4, group_size=8)), on_progress=lambda p: stages.append(p.stage)
        )
        assert again == first
        assert hash(again) == hash(first)
        assert again.record == record
        assert stages == []

    def test_progress_is_told(self, study: Study) -> None:
        stages: list[str] = []
        study.run(GPTQ(4, group_size=8), on_progress=lambda p: stages.append(p.stage))
        assert list(dict.fromkeys(stages)) == ["load", "evaluate", "calibrate", "gptq"]

    def test_a_failure_is_recorded_and_raised(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            fail_on(patch, 4)
            with pytest.raises(MemoryError, match="no room"):
                study.run(STEPS[2])
        run = study.runs[-1]
        assert (run.state, run.error) == (RunState.FAILED, "MemoryError: no room")
        assert "no room" in repr(run)
        assert study.run(STEPS[2]).state is RunState.DONE
        assert study.runs[-1] == run

    def test_cancelled_from_a_callback(self, study: Study) -> None:
        def stop(progress: Any) -> None:
            if progress.stage == "rtn":
                study.cancel()

        with pytest.raises(CancelledError):
            study.run(STEPS[0], on_progress=stop)
        assert study.runs[-1].state is RunState.CANCELLED

    def test_a_model_that_the_study_does_not_have(self, study: Study) -> None:
        with pytest.raises(StudyError, match="it has 'tiny'"):
            study.run(STEPS[0], model="large")
        assert study.runs == ()

    def test_what_is_no_recipe(self, study: Study) -> None:
        with pytest.raises(ConfigError, match="did you mean RTN"):
            study.run([RTN])  # type: ignore[list-item]


class TestSweep:
    def test_a_failure_does_not_stop_it(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail_on(monkeypatch, 3)
        with pytest.warns(UserWarning, match="1 of 3 runs failed.*no room"):
            runs = study.sweep(STEPS)
        assert [run.state.value for run in runs] == ["done", "failed", "done"]
        table = study.table()
        assert "no room" in table.loc[runs[1].id, "error"]
        assert len(table) == 4

    def test_again_it_does_only_the_rest(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = study.sweep(STEPS[:2])
        records = [run.record for run in first]
        from workbench.compression import compress as module

        calls: list[Recipe] = []
        original = module.compress

        def counting(model: Any, recipe: Recipe, *rest: Any, **options: Any) -> Any:
            calls.append(recipe)
            return original(model, recipe, *rest, **options)

        monkeypatch.setattr(module, "compress", counting)
        runs = study.sweep([*STEPS, STEPS[0]])
        assert calls == [Recipe.of(STEPS[2])]
        assert runs[:2] == first
        assert runs[3] == runs[0]
        assert [run.record for run in first] == records

    def test_one_step_is_not_a_list(self, study: Study) -> None:
        with pytest.raises(ConfigError, match="put it into a list"):
            study.sweep(STEPS[0])  # type: ignore[arg-type]


class TestReopen:
    def test_everything_comes_back(self, done: Study) -> None:
        again = Study.open(done.path)
        assert again.runs == done.runs
        assert [run.record for run in again.runs] == [run.record for run in done.runs]
        assert again.models == done.models
        assert again.metrics == done.task.metrics
        assert again.task.fingerprint == done.task.fingerprint
        run = done.runs[-1]
        theirs, mine = again.model(run.id), done.model(run)
        assert theirs.fingerprint == mine.fingerprint

    def test_the_folder_can_be_moved(self, tmp_path: Path) -> None:
        study = toy_study(tmp_path / "here")
        run = study.run(STEPS[0])
        before = study.model(run).fingerprint
        study.close()
        shutil.move(tmp_path / "here", tmp_path / "there")
        moved = Study.open(tmp_path / "there")
        assert moved.model(run.id).fingerprint == before
        assert moved.run(STEPS[0]).record.created == run_created(moved, run.id)
        assert moved.run(STEPS[1]).state is RunState.DONE

    def test_the_same_model_and_task_continue(self, tmp_path: Path, study: Study) -> None:
        run = study.run(STEPS[0])
        again = toy_study(tmp_path / "study")
        assert again.models == ("tiny",)
        assert again.run(STEPS[0]).record == run.record

    def test_another_task_is_refused(self, study: Study) -> None:
        with pytest.raises(StudyError, match="other data or options") as caught:
            Study(toy_model(), toy_task(seed=3, name="new"), study.path)
        assert "'toy'" in str(caught.value)
        assert "'new'" in str(caught.value)

    def test_another_model_is_refused(self, study: Study) -> None:
        with pytest.raises(StudyError, match=r"add_model"):
            Study(toy_model(seed=1, name="other"), toy_task(), study.path)
        assert study.models == ("tiny",)

    def test_calibration_options_are_kept(self, study: Study) -> None:
        from workbench.study.running.engine import calibration_options

        again = Study(toy_model(), toy_task(), study.path)
        assert calibration_options(again._workspace.store) == CALIBRATION

    def test_a_study_that_was_never_started(self, tmp_path: Path) -> None:
        from workbench.storage.store import Store

        Store.create(tmp_path)
        with pytest.raises(StudyError, match="never started"):
            Study.open(tmp_path)
        assert Study(toy_model(), toy_task(), tmp_path).models == ("tiny",)


def run_created(study: Study, run: str) -> str:
    record = study._workspace.store.record(run)
    assert record is not None
    return record.created


class TestModels:
    def test_two_base_models_with_a_baseline_each(self, study: Study) -> None:
        study.run(STEPS[0])
        name = study.add_model(toy_model(seed=1, name="large"))
        assert name == "large"
        run = study.run(STEPS[0], model="large")
        assert study.models == ("tiny", "large")
        assert [(r.record.model, r.label) for r in study.runs] == [
            ("tiny", "dense"),
            ("tiny", "RTN 2-bit g8"),
            ("large", "dense"),
            ("large", "RTN 2-bit g8"),
        ]
        assert run.parent == study.baseline("large")
        baselines = {study.baseline("tiny"), study.baseline("large")}
        assert len(baselines) == 2
        assert study.run(STEPS[0], model="tiny").record.created < run.record.created
        again = Study.open(study.path)
        assert again.run(STEPS[1], model="large").state is RunState.DONE
        assert again.run(STEPS[1]).record.model == "tiny"

    def test_the_same_model_is_not_added_twice(self, study: Study) -> None:
        assert study.add_model(toy_model()) == "tiny"
        assert study.models == ("tiny",)

    def test_equal_names_of_different_models(self, study: Study) -> None:
        assert study.add_model(toy_model(seed=1)) == "tiny-2"
        with pytest.raises(StudyError, match="give another name"):
            study.add_model(toy_model(seed=2), name="tiny")
        assert study.add_model(toy_model(seed=2), name="three") == "three"

    def test_a_compressed_model_is_no_base_model(self, done: Study) -> None:
        with pytest.raises(StudyError, match="original model"):
            done.add_model(done.model(done.runs[-1]))

    def test_what_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="not accepted as a model"):
            Study(42, toy_task(), tmp_path)  # type: ignore[arg-type]

    def test_the_model_of_a_run_is_the_users_own(self, done: Study) -> None:
        run = done.runs[1]
        first = run.model()
        before = first.fingerprint
        with torch.no_grad():
            next(first.hf_model.parameters()).zero_()
        assert run.model().fingerprint == before


class TestCompare:
    def test_the_table_has_every_run(self, done: Study) -> None:
        table = done.table()
        assert list(table.index) == [run.id for run in done.runs]
        assert table.loc[done.runs[0].id, "recipe"] == "dense"
        assert table["mean_loss"].notna().all()
        assert (table["size_ratio"] <= 1).all()
        shares = [n for n in table.columns if "share" in n]
        assert table[shares].iloc[1:].notna().all().all()
        assert table["pareto"].any()

    def test_the_plot_has_every_run(self, done: Study) -> None:
        figure = done.plot()
        names = {trace.name for trace in figure.data}
        assert {"RTN", "GPTQ", "Magnitude"} <= names

    def test_another_metric(self, done: Study) -> None:
        assert done.metric.name == "mean_loss"
        assert "kl" in done.table("kl").columns
        assert done.plot("accuracy").data
        with pytest.raises(ConfigError, match="it has mean_loss"):
            done.table("f1")

    def test_choosing(self, done: Study) -> None:
        choice = done.choose(accuracy=0.5)
        assert choice.run is not None
        sizes = [run.size_bytes for run in done.runs[1:]]
        assert choice.run.size_bytes == min(size for size in sizes if size)
        assert choice.run in done.runs
        assert choice.interval is not None
        assert str(choice) == choice.nearest
        none = done.choose(accuracy=1.9)
        assert none.run is None
        assert none.nearest_run in done.runs
        assert none.nearest.startswith("No run passes")
        with pytest.raises(ConfigError, match="Nothing to choose by"):
            done.choose()

    def test_outcomes_are_kept_per_example(self, done: Study) -> None:
        outcomes = [run.outcomes() for run in done.runs]
        assert all(len(o) == len(outcomes[0]) > 3 for o in outcomes)
        assert all("kl" in o for o in outcomes)

    def test_reprs_are_short(self, done: Study) -> None:
        assert "5 runs" not in repr(done)
        assert "6 runs" in repr(done)
        assert "tiny on toy" in repr(done)
        for run in done.runs:
            assert run.id in repr(run)
            assert len(repr(run)) < 160


class TestDelete:
    def test_a_run_is_gone(self, study: Study) -> None:
        run = study.run(STEPS[0])
        files = set(study.path.rglob("*"))
        other = study.run(STEPS[1])
        other.delete()
        assert study.runs[1:] == (run,)
        assert set(study.path.rglob("*")) == files
        assert "deleted" in repr(other)
        with pytest.raises(StudyError, match="deleted"):
            _ = other.record
        with pytest.raises(StudyError, match="no run of the study"):
            study.model(other)
        assert study.run(STEPS[1]) == other  # and can be computed again

    def test_by_id(self, study: Study) -> None:
        study.delete(study.run([]).id)
        assert study.runs == ()
        with pytest.raises(StudyError, match="no run of the study"):
            study.delete("nothing")

    def test_not_the_baseline_of_others(self, study: Study) -> None:
        run = study.run(STEPS[0])
        baseline = study.baseline()
        assert baseline is not None
        with pytest.raises(StudyError, match="Delete those first"):
            baseline.delete()
        run.delete()
        baseline.delete()


class TestFolder:
    def test_a_temporary_study_says_where_it_is_and_goes(self) -> None:
        with pytest.warns(UserWarning, match=r"deleted with the study.*path="):
            study = Study(toy_model(), toy_task())
        path = study.path
        assert path.is_dir()
        assert "temporary" in repr(study)
        study.run(STEPS[0])
        del study
        import gc

        gc.collect()
        assert not path.exists()

    def test_a_kept_study_stays(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with toy_study(tmp_path / "deep" / "study") as study:
                study.run([])
        assert len(Study.open(tmp_path / "deep" / "study").runs) == 1

    def test_names_are_safe_on_windows(self, tmp_path: Path) -> None:
        study = Study(toy_model(name="org/a model: new?"), toy_task(), tmp_path / "s")
        study.run(AWQ(4, group_size=8))
        for path in (tmp_path / "s").rglob("*"):
            assert not set(path.name) & set('<>:"\\|?*')
            assert len(str(path.relative_to(tmp_path))) < 120

    def test_it_says_what_is_wrong_before_it_loads_a_model(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(StudyError, match="is a file"):
            Study("no/such-model", "no task", file)


SWEEP = """
import sys
from workbench.study import Study
from workbench.recipes import RTN
study = Study.open(sys.argv[1])
runs = study.sweep([RTN(b, group_size=g) for b in (2, 3, 4) for g in (8, 16)])
print(*(run.id for run in runs))
"""


def test_two_processes_sweep_one_study(study: Study) -> None:
    import os

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SWEEP, str(study.path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()) == 6
    assert {run.state for run in study.runs} == {RunState.DONE}
    assert len(study.runs) == 7
    counts = {len(run.measurements) for run in study.runs}
    assert len(counts) == 1  # nobody wrote a second set of measurements


class TestShortWays:
    """What a notebook's user types first."""

    def test_a_run_says_its_numbers(self, done: Study) -> None:
        run = done.runs[1]
        assert list(run.metrics) == [metric.name for metric in done.metrics]
        assert run.metrics[done.metric.name] == run[done.metric.name]
        assert run.size_mb == pytest.approx(run.size_bytes / 1e6)
        with pytest.raises(ConfigError, match=r"no measured 'acuracy'; measured are"):
            run["acuracy"]

    def test_a_run_is_found_by_label_or_id(self, done: Study) -> None:
        run = done.runs[2]
        assert done[run.label] == done[run.id] == run
        with pytest.raises(StudyError, match=r"no run .*'RTN 3bit'. Near to it are 'RTN 3-bit g8'"):
            done["RTN 3bit"]

    def test_runs_of_two_models_share_a_label(self, study: Study) -> None:
        study.add_model(toy_model(seed=1), "other")
        study.run(STEPS[2])
        study.run(STEPS[2], model="other")
        with pytest.raises(StudyError, match="2 runs have the label"):
            study[STEPS[2].label]

    def test_the_metric_of_a_plot_may_be_named_y(self, done: Study) -> None:
        assert done.plot(y="kl").view.metric.name == "kl"
        with pytest.raises(ConfigError, match="names the metric twice"):
            done.plot("kl", y="perplexity")

    def test_a_path_alone_is_told_how_to_open_it(self, done: Study) -> None:
        with pytest.raises(ConfigError, match=r"Study\.open\('.*study'\)"):
            Study(path=done.path)

    def test_a_size_in_megabytes(self, done: Study) -> None:
        largest = max(run.size_mb or 0.0 for run in done.runs[1:])
        assert done.choose(size_mb=largest).run == done.choose(size_bytes=largest * 1e6).run
        with pytest.raises(ConfigError, match="one limit"):
            done.choose(size_mb=1.0, size_bytes=1e6)
        with pytest.raises(ConfigError, match="size"):
            done.choose(size_mb="small")  # type: ignore[arg-type]
