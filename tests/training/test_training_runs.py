"""Training within a study: shared beginnings, parents, teachers, crashes, evicted weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.toy import toy_model, toy_study
from tests.training.classes import class_task, decoder, encoder
from workbench.atomic_files import aside_of
from workbench.compression.compress import compress
from workbench.errors import CancelledError, ConfigError, StudyError
from workbench.recipes import (
    GPTQ,
    RTN,
    Cast,
    DepthPruning,
    Distillation,
    FineTuning,
    MagnitudePruning,
)
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study import Study

TUNED = FineTuning(epochs=1)
PRUNED = MagnitudePruning(0.6)
DISTILLED = Distillation(epochs=1)
RTN4 = RTN(4, group_size=8)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return toy_study(tmp_path / "study")


def artifact(run) -> str:
    return run.record.facts["artifact"]


def test_recipes_that_begin_alike_train_once(study: Study) -> None:
    stages: list[str] = []
    first = study.run([TUNED, RTN4], on_progress=lambda p: stages.append(p.stage))
    assert "train" in stages
    stages.clear()
    second = study.run([TUNED, GPTQ(3, group_size=8)], on_progress=lambda p: stages.append(p.stage))
    assert "train" not in stages
    assert first.parent == second.parent
    assert first.parent.recipe == Recipe.of(TUNED)
    assert first.parent.parent == study.baseline()
    assert len(study.runs) == 4, "the training is a run of its own"
    assert first.record.facts["training"] == first.parent.record.facts["training"]
    assert "loss_curve" in first.parent.record.facts
    assert "loss_curve" not in first.record.facts


def test_what_starts_from_a_stored_run_is_what_the_whole_recipe_gives(
    study: Study, tmp_path: Path
) -> None:
    recipe = Recipe.of([TUNED, PRUNED, DISTILLED, GPTQ(4, group_size=8)])
    run = study.run(recipe)
    engine = study._workspace.engine
    calibrator = next(iter(engine._base.calibrators.values()))
    whole = compress(engine._base.dense, recipe, calibrator)
    assert engine._save(whole.model) == (artifact(run), run.record.facts["weights_digest"])
    assert whole.facts["zero_share"] == run.record.facts["zero_share"] >= 0.6
    labels = [fact["step"] for fact in run.record.facts["training"]]
    assert labels == [TUNED.label, DISTILLED.label]
    chain = []
    while run is not None:
        chain.append(len(run.recipe.steps))
        run = run.parent
    assert chain == [4, 3, 1, 0]


def test_continue_from_a_node(study: Study) -> None:
    node = study.run(TUNED)
    child = node.then(RTN4)
    assert child.recipe == Recipe.of([TUNED, RTN4])
    assert child.parent == node
    assert node.then([]) == node
    scales = child.then(FineTuning("scales", epochs=0.2))
    assert scales.parent == child
    assert child.then(Recipe.of(Cast())).parent == child


def test_weights_that_were_evicted_are_trained_again(study: Study) -> None:
    run = study.run([TUNED, RTN4])
    before = study.model(run).fingerprint
    for path in (study.path / "artifacts").iterdir():
        path.unlink()
    assert study.model(run).fingerprint == before


def test_a_parent_that_was_deleted_is_made_again(study: Study) -> None:
    run = study.run([TUNED, RTN4])
    parent = run.parent.id
    run.parent.delete()
    assert run.parent == study.baseline()
    again = study.run([TUNED, RTN(3, group_size=8)])
    assert again.parent.id == parent


def test_a_student_of_fewer_blocks_comes_back_from_its_run(study: Study) -> None:
    run = study.run([TUNED, Distillation(blocks=1, epochs=1), RTN4])
    model = study.model(run)
    assert model.hf_model.config.num_hidden_layers == 1
    assert model.size_bytes == run.size_bytes < study.baseline().size_bytes


def test_any_model_of_a_study_is_the_student_of_any_other(study: Study) -> None:
    teacher = study.run(TUNED)
    study.add_model(toy_model(seed=5, name="other"))
    student = Distillation(teacher=teacher.id, epochs=2)
    run = study.run([student, RTN4], model="other")
    assert run.record.model == "other"
    before, after = (
        r.record.measurement("mean_loss").value for r in (study.baseline("other"), run)
    )
    assert after < before
    assert study.model(run).size_bytes == run.size_bytes
    with pytest.raises(StudyError, match="does not exist"):
        study.run(Distillation(teacher="0123456789ab"))


def test_a_teacher_with_another_tokenizer_is_refused(study: Study, tmp_path: Path) -> None:
    from tests.tiny import tiny_model, tiny_tokenizer
    from workbench.models.load import load_model

    teacher = study.run([])
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<unk>"
    hf_model = tiny_model(seed=3)
    hf_model.config._name_or_path = "foreign"
    study.add_model(load_model(hf_model, tokenizer))
    with pytest.raises(ConfigError, match="their tokenizers differ"):
        study.run(Distillation(teacher=teacher.id), model="foreign")


def test_structure_and_training_go_together(study: Study) -> None:
    run = study.run([DepthPruning(1, criterion="last"), DISTILLED, RTN4])
    assert run.record.facts["structure"][0]["dropped_blocks"] == [1]
    assert study.model(run).hf_model.config.num_hidden_layers == 1


def test_a_classifier_goes_from_rows_to_a_specialist_of_4_bits(tmp_path: Path) -> None:
    study = Study(encoder(), class_task(), tmp_path / "study")
    run = study.run([FineTuning(epochs=3, learning_rate=3e-3), RTN4])
    model = study.model(run)
    assert type(model.hf_model).__name__ == "BertForSequenceClassification"
    assert model.head is None, "the class has one itself"
    again = Study.open(study.path)
    reopened = again.model(again.run(run.recipe))
    assert reopened.fingerprint == model.fingerprint
    errors = study.layer_errors([run])
    assert all(row[0] for row in errors.errors), "layers are found under either name"
    loss = study.task.evaluate(reopened)["loss"].mean()
    assert loss < study.task.evaluate(study.model(study.baseline()))["loss"].mean()


def test_a_training_that_failed_is_said_on_every_run_that_needs_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError("cannot allocate 3 TB")

    monkeypatch.setattr("workbench.methods.finetune.train", fails)
    with pytest.warns(UserWarning, match="The only run failed"):
        (run,) = study.sweep([[TUNED, RTN4]])
    assert [r.state for r in study.runs[1:]] == [RunState.FAILED] * 2
    assert run.error == "MemoryError: cannot allocate 3 TB"


def test_a_cancelled_training_leaves_a_usable_study_and_goes_on(study: Study) -> None:
    recipe = [TUNED, RTN4]
    seen: list[int] = []

    def cancel(progress) -> None:
        if progress.stage == "train":
            seen.append(progress.done)
            if progress.done == 5:
                study.cancel()

    with pytest.raises(CancelledError):
        study.run(recipe, on_progress=cancel)
    assert [run.state for run in study.runs][1:] == [RunState.CANCELLED] * 2
    assert len(list((study.path / "checkpoints").iterdir())) == 1
    seen.clear()
    run = study.run(recipe, on_progress=lambda p: seen.append(p.done) if p.stage == "train" else 0)
    assert seen[0] == 6
    assert run.state is RunState.DONE
    assert not list((study.path / "checkpoints").iterdir())
    fresh = toy_study(study.path.with_name("fresh"))
    assert artifact(fresh.run(recipe)) == artifact(run)


def test_checkpoints_that_nobody_needs_are_removed(study: Study) -> None:
    study.run([])
    folder = study.path / "checkpoints"
    folder.mkdir()
    (folder / f"{study.baseline().id}.safetensors").write_text("done")
    aside = aside_of(folder / "0123456789ab.safetensors")
    gone = aside.name.replace(f"-{os.getpid()}-", "-4194305-")  # no process has this number
    (folder / gone).write_text("no such run")
    Study.open(study.path)
    assert not list(folder.iterdir())


def test_a_step_that_trains_needs_a_task() -> None:
    with pytest.raises(ConfigError, match="trains on a task's examples"):
        compress(toy_model(), Recipe.of(TUNED))


def test_nothing_is_written_into_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    toy_study(tmp_path / "study").run([GPTQ(4, group_size=8), FineTuning("lora", epochs=0.2)])
    assert not list(folder.iterdir())


CHILD = """
import sys, torch
torch.set_num_threads(1)
from tests.toy import toy_study
from tests.training.test_training_runs import KILLED
from workbench.training import loop
loop.CHECKPOINT_SECONDS = 0.05
study = toy_study(sys.argv[1])
study.run([])
print("ready", flush=True)
print(study.run(KILLED).record.facts["artifact"], flush=True)
"""
KILLED = Recipe.of([PRUNED, Distillation(epochs=4, patience=None)])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_a_random_step_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / name)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    digest = start("whole").communicate()[0]
    checkpoints = tmp_path / "killed" / "checkpoints"
    generator = random.Random()
    for _ in range(2):
        process = start("killed")
        while not list(checkpoints.glob("*.safetensors")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
    process = start("killed")
    assert process.communicate()[0] == digest
    run = Study.open(tmp_path / "killed").runs[-1]
    assert run.record.facts["training"][0]["resumed_at"] > 0
    assert not list(checkpoints.iterdir())


@pytest.mark.parametrize("make", [encoder, decoder], ids=["encoder", "decoder"])
def test_a_trained_classifier_is_one_that_transformers_loads(tmp_path: Path, make: Any) -> None:
    """The export is a plain classifier: no file of ours has a part of it."""
    from transformers import pipeline

    study = Study(make(), class_task(), tmp_path / "study")
    tuned = FineTuning(epochs=1, learning_rate=3e-3)
    student = Distillation(blocks=1, epochs=1, learning_rate=3e-3)
    run = study.run([tuned, student, GPTQ(4, group_size=8)])
    frozen = next(o for o in study.baseline().export_offers() if o.format == "hf")
    offer = next(o for o in run.export_offers() if o.format == "hf")
    assert "Fine-tune or distil first" in frozen.note
    assert not offer.note
    folder = run.export(tmp_path / "out", "hf").path
    (folder / "workbench.json").unlink()
    assert not list(folder.glob("workbench*"))
    texts = list(study.task.texts("evaluation"))[:10]
    loaded = pipeline("text-classification", model=str(folder))
    answers = loaded(texts, batch_size=4)
    assert [a["label"] for a in answers] == study.task.classify(study.model(run), texts)
    assert {a["label"] for a in answers} <= set(study.task.labels)


def test_a_low_rank_training_of_codes_trains_the_class_s_own_head(tmp_path: Path) -> None:
    study = Study(encoder(), class_task(), tmp_path / "study")
    codes = study.run(RTN4)
    run = codes.then(FineTuning("lora", epochs=1, learning_rate=3e-3))
    model = study.model(run)
    before = study.task.trained_form(study.model(codes))
    assert set(before.weights) == set(model.weights), "codes have moved with their layers"
    one, two = (m.hf_model.classifier.weight for m in (before, model))
    assert not one.equal(two)
    assert study.task.evaluate(model)["loss"].mean() < study.task.evaluate(before)["loss"].mean()
