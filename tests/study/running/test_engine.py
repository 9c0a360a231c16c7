"""The engine: identity of runs, one calibration for all, and everything that can end a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import CALIBRATION, toy_model, toy_study, toy_task
from workbench.compression.compress import Compressed
from workbench.errors import CancelledError, StudyError
from workbench.progress import Monitor
from workbench.recipes import AWQ, GPTQ, RTN, Cast, MagnitudePruning
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.runtime.measure.evaluate import evaluate
from workbench.storage.store import Store
from workbench.study import Study
from workbench.study.running.engine import Engine, reload_model, run_id

RTN4 = Recipe.of(RTN(4, group_size=8))
GPTQ3 = Recipe.of(GPTQ(3, group_size=8))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return toy_study(tmp_path / "study")


@pytest.fixture
def store(study: Study) -> Store:
    return study._workspace.store


@pytest.fixture
def engine(study: Study) -> Engine:
    engine = study._workspace.engine
    engine.execute("tiny", Recipe())
    return engine


class TestRunId:
    def test_it_depends_on_the_recipe_alone_within_a_study(self, store: Store) -> None:
        recipes = [
            [],
            RTN(4),
            RTN(3),
            RTN(4, group_size=64),
            GPTQ(4),
            GPTQ(4, damping=0.1),
            [MagnitudePruning(0.5), RTN(4)],
        ]
        ids = [run_id(store, "tiny", Recipe.of(recipe)) for recipe in recipes]
        assert len(set(ids)) == len(ids)
        assert ids == [run_id(store, "tiny", Recipe.of(recipe)) for recipe in recipes]
        assert all(len(id) == 12 for id in ids)

    def test_calibration_counts_only_where_it_is_used(self, store: Store) -> None:
        before = [run_id(store, "tiny", recipe) for recipe in (RTN4, GPTQ3)]
        store.set_meta("calibration", {"seed": 7})
        after = [run_id(store, "tiny", recipe) for recipe in (RTN4, GPTQ3)]
        assert after[0] == before[0]
        assert after[1] != before[1]

    def test_model_task_and_dtypes_count(self, tmp_path: Path, store: Store) -> None:
        other_task = Study(toy_model(), toy_task(seed=5), tmp_path / "other")
        other_model = Study(toy_model(seed=5), toy_task(), tmp_path / "another")
        name = "half"
        description = store.models()["tiny"]
        store.add_model(name, description | {"stored_dtype": "float16"})
        ids = {
            run_id(store, "tiny", RTN4),
            run_id(store, name, RTN4),
            run_id(other_task._workspace.store, "tiny", RTN4),
            run_id(other_model._workspace.store, "tiny", RTN4),
        }
        assert len(ids) == 4

    def test_the_method_version_counts(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        from workbench.methods import LAYER_METHODS

        before = run_id(store, "tiny", RTN4)
        monkeypatch.setattr(type(LAYER_METHODS[RTN]), "version", 1000)
        assert run_id(store, "tiny", RTN4) != before

    def test_an_equal_study_elsewhere_has_equal_ids(self, tmp_path: Path, store: Store) -> None:
        again = toy_study(tmp_path / "elsewhere")
        assert run_id(again._workspace.store, "tiny", GPTQ3) == run_id(store, "tiny", GPTQ3)


def test_a_run_is_computed_once(engine: Engine) -> None:
    first = engine.execute("tiny", RTN4)
    assert (first.cached, first.error, first.record.state) == (False, None, RunState.DONE)
    again = engine.execute("tiny", RTN4)
    assert again.cached
    assert again.record == first.record


def test_what_a_run_records(engine: Engine) -> None:
    record = engine.execute("tiny", GPTQ3).record
    dense = engine.store.record(run_id(engine.store, "tiny", Recipe()))
    assert dense is not None
    assert dense.parent is None
    assert record.parent == dense.id
    assert record.size_bytes is not None
    assert dense.size_bytes is not None
    assert 0 < record.size_bytes < dense.size_bytes
    assert {m.metric for m in record.measurements} >= {"mean_loss", "perplexity", "kl"}
    assert record.facts["calibration"]["solve_tokens"] == CALIBRATION.solve_tokens
    assert record.facts["versions"]["torch"] == torch.__version__
    assert 0 < record.facts["compressed_share"] < 1
    assert {"compress", "evaluate"} <= set(record.seconds)
    kl = record.measurement("kl")
    assert kl is not None
    assert kl.value > 0
    baseline_kl = dense.measurement("kl")
    assert baseline_kl is not None
    assert baseline_kl.value == 0


def test_the_given_model_is_not_changed(study: Study, engine: Engine) -> None:
    given = study._workspace._loaded["tiny"]
    before = {name: value.clone() for name, value in given.hf_model.state_dict().items()}
    for step in (RTN(2, group_size=8), GPTQ(2, group_size=8), AWQ(2, group_size=8), Cast()):
        assert engine.execute("tiny", Recipe.of(step)).error is None
    engine.model(run_id(study._workspace.store, "tiny", Recipe.of(RTN(2, group_size=8))))
    after = given.hf_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not given.weights


def test_calibration_happens_once_and_only_when_needed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.calibration import calibrate as module

    calls = []
    original = module.calibrate

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "calibrate", counting)
    engine.execute("tiny", RTN4)
    assert calls == []
    for bits in (2, 3, 4):
        assert engine.execute("tiny", Recipe.of(GPTQ(bits, group_size=8))).error is None
    assert len(calls) == 1


def test_the_parent_is_the_run_of_the_longest_prefix(engine: Engine) -> None:
    long = Recipe.of([MagnitudePruning(0.5), RTN(4, group_size=8)])
    pruned = engine.execute("tiny", long.prefix(1)).record
    assert engine.execute("tiny", long).record.parent == pruned.id


@pytest.mark.parametrize("error", [MemoryError("3 TB"), RuntimeError("no"), ValueError()])
def test_a_failure_is_recorded_with_its_type_and_words(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Compressed:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("workbench.compression.compress.compress", fail)
        execution = engine.execute("tiny", RTN4)
    assert execution.error is error
    assert execution.record.state is RunState.FAILED
    expected = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    assert execution.record.error == expected
    assert engine.execute("tiny", RTN4).record.state is RunState.DONE


def test_cancelling_is_recorded(engine: Engine) -> None:
    stages: list[str] = []
    monitor = Monitor(lambda p: stages.append(p.stage), lambda: "evaluate" in stages)
    execution = engine.execute("tiny", GPTQ3, monitor=monitor)
    assert execution.record.state is RunState.CANCELLED
    assert isinstance(execution.error, CancelledError)
    assert stages[-1] == "evaluate"
    assert engine.execute("tiny", GPTQ3).record.state is RunState.DONE


def test_an_interrupt_from_the_keyboard_is_recorded_and_passed_on(engine: Engine) -> None:
    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.execute("tiny", RTN4, monitor=Monitor(interrupt))
    record = engine.store.record(run_id(engine.store, "tiny", RTN4))
    assert record is not None
    assert record.state is RunState.CANCELLED


def test_without_a_baseline_a_run_fails_with_the_reason(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = study._workspace.engine
    with monkeypatch.context() as patch:
        patch.setattr("workbench.tasks.LanguageModeling.bind", _no_memory)
        engine.execute("tiny", Recipe())
    execution = engine.execute("tiny", RTN4)
    assert execution.record.state is RunState.FAILED
    assert "cannot allocate" in (execution.record.error or "")


def _no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError("cannot allocate")


class TestModel:
    def test_it_has_the_weights_that_were_measured(self, study: Study, engine: Engine) -> None:
        record = engine.execute("tiny", GPTQ3).record
        model = engine.model(record.id)
        assert model.size_bytes == record.size_bytes
        assert set(model.weights)
        outcomes = evaluate(model, study.task).outcomes
        saved = study._workspace.store.outcomes(record.id)
        assert outcomes["loss"].tolist() == saved["loss"].tolist()

    def test_the_base_model_comes_back_as_a_copy(self, study: Study, engine: Engine) -> None:
        model = engine.model(run_id(study._workspace.store, "tiny", Recipe()))
        with torch.no_grad():
            next(model.hf_model.parameters()).zero_()
        assert engine.execute("tiny", RTN4).error is None

    def test_evicted_weights_are_computed_again(self, study: Study, engine: Engine) -> None:
        record = engine.execute("tiny", GPTQ3).record
        before = engine.model(record.id).fingerprint
        path = study._workspace.store.artifact(record.facts["artifact"])
        assert path is not None
        path.unlink()
        study._workspace.store.set_meta("calibration", {"seed": 9})  # the run keeps its own options
        assert engine.model(record.id).fingerprint == before
        assert path.exists()

    def test_other_weights_than_before_are_an_error(
        self, study: Study, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = engine.execute("tiny", RTN4).record
        path = study._workspace.store.artifact(record.facts["artifact"])
        assert path is not None
        path.unlink()
        from workbench.compression import compress as module

        original = module.compress

        def other(model: Any, recipe: Any, *rest: Any, **options: Any) -> Any:
            return original(model, Recipe.of(RTN(3, group_size=8)), *rest, **options)

        monkeypatch.setattr(module, "compress", other)
        with pytest.raises(StudyError, match="gave other ones"):
            engine.model(record.id)

    def test_an_unfinished_run_has_none(self, engine: Engine) -> None:
        with pytest.raises(StudyError, match="does not exist"):
            engine.model("0" * 12)


def test_a_run_of_another_process_is_waited_for(study: Study, engine: Engine) -> None:
    store = study._workspace.store
    run = run_id(store, "tiny", RTN4)
    elsewhere = store.claim(run, model="tiny", recipe=RTN4)
    assert elsewhere is not None
    results: list[Any] = []
    stages: list[str] = []
    monitor = Monitor(lambda p: stages.append(p.stage))
    thread = threading.Thread(
        target=lambda: results.append(engine.execute("tiny", RTN4, monitor=monitor))
    )
    thread.start()
    while "wait" not in stages:
        time.sleep(0.01)
    dense = store.outcomes(run_id(store, "tiny", Recipe()))
    elsewhere.finish(
        size_bytes=1, measurements=[], outcomes=dense, artifact=None, facts={}, seconds={}
    )
    thread.join(10)
    assert results[0].cached
    assert results[0].record.size_bytes == 1


def test_waiting_can_be_cancelled(study: Study, engine: Engine) -> None:
    run = run_id(study._workspace.store, "tiny", RTN4)
    assert study._workspace.store.claim(run, model="tiny", recipe=RTN4) is not None
    execution = engine.execute("tiny", RTN4, monitor=Monitor(is_cancelled=lambda: True))
    assert isinstance(execution.error, CancelledError)
    assert execution.record.state is RunState.RUNNING  # the other process goes on


class TestReload:
    def test_a_live_model_comes_back_the_same(self, study: Study) -> None:
        again = reload_model(study._workspace.store, "tiny")
        assert again.fingerprint == study._workspace._loaded["tiny"].fingerprint
        assert again.source == study._workspace._loaded["tiny"].source

    def test_a_folder_that_changed_is_refused(self, tmp_path: Path) -> None:
        from tests.tiny import tiny_folder, tiny_model
        from workbench.models.load import load_model

        folder = tiny_folder(tmp_path / "model")
        study = Study(load_model(folder), toy_task(), tmp_path / "study")
        name = study.models[0]
        assert reload_model(study._workspace.store, name).source.kind == "folder"
        tiny_model(seed=9).half().save_pretrained(folder)
        with pytest.raises(StudyError, match="have changed since"):
            reload_model(study._workspace.store, name)

    def test_a_tokenizer_from_elsewhere_is_kept(self, tmp_path: Path) -> None:
        from tests.tiny import tiny_folder, tiny_tokenizer
        from workbench.models.load import load_model

        folder = tiny_folder(tmp_path / "model", tokenizer=False)
        model = load_model(folder, tiny_tokenizer())
        study = Study(model, toy_task(), tmp_path / "study")
        assert (
            reload_model(study._workspace.store, study.models[0]).fingerprint == model.fingerprint
        )

    def test_a_model_that_was_changed_in_memory_is_refused(self, study: Study) -> None:
        engine = study._workspace.engine
        with torch.no_grad():
            next(study._workspace._loaded["tiny"].hf_model.parameters()).add_(1.0)
        execution = engine.execute("tiny", Recipe())
        assert execution.record.state is RunState.FAILED
        assert "load_model(model.hf_model" in (execution.record.error or "")


def test_a_head_is_trained_once_and_kept_with_the_study(tmp_path: Path, monkeypatch: Any) -> None:
    from tests.tiny import tiny_model, tiny_tokenizer
    from workbench.models.load import load_model
    from workbench.tasks import TextClassification, text_classification

    rows = {
        "text": [f"{word} number {i}" for i in range(30) for word in ("cold", "warm")],
        "label": ["c", "w"] * 30,
    }
    model = load_model(tiny_model("BertModel"), tiny_tokenizer(), device="cpu")
    study = Study(model, TextClassification(rows), tmp_path / "s", calibration=CALIBRATION)
    first = study.run([]).measurements
    before = study.run(RTN(4, group_size=8)).model()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the head was trained again")

    monkeypatch.setattr(text_classification, "train_head", refuse)
    reopened = Study.open(tmp_path / "s")
    baseline = reopened.baseline()
    assert baseline is not None
    assert reopened.run([]).measurements == first
    after = reopened.run(RTN(4, group_size=8)).model()
    assert before.head is not None
    assert after.head is not None
    assert torch.equal(after.head.weight, before.head.weight)


def test_no_flipped_byte_of_a_head_gives_other_numbers(tmp_path: Path) -> None:
    from tests.tiny import tiny_model, tiny_tokenizer
    from workbench.models.load import load_model
    from workbench.tasks import TextClassification

    texts = [f"{word} number {i}" for i in range(30) for word in ("cold", "warm")]
    task = TextClassification({"text": texts, "label": ["c", "w"] * 30})
    model = load_model(tiny_model("BertModel"), tiny_tokenizer(), device="cpu")
    with Study(model, task, tmp_path / "s", calibration=CALIBRATION) as study:
        expected = study.run(RTN(4, group_size=8)).model().head
    assert expected is not None
    (file,) = (path for path in (tmp_path / "s").rglob("*head*.safetensors"))
    whole = file.read_bytes()
    for place in (-1, -40, 60):  # of the bias, of the weight, of the header
        flipped = bytearray(whole)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        with Study.open(tmp_path / "s") as damaged:
            for act in (lambda: damaged.runs[0].model(), lambda: damaged.run(RTN(3))):
                with pytest.raises(StudyError, match="classifier is damaged"):
                    act()
    file.unlink()
    with Study.open(tmp_path / "s") as again:  # it is trained again, and is the same
        found = again.runs[0].model().head
    assert found is not None
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)
    assert found.labels == expected.labels
