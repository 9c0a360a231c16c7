"""The loop: it learns, it can be cancelled anywhere, and it goes on to the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tasks.test_generation import extraction
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import toy_task
from tests.training.classes import class_task, decoder, encoder
from workbench.compression.compress import compress
from workbench.errors import CancelledError, CompressionError
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.recipes import RTN, FineTuning
from workbench.recipes.recipe import Recipe
from workbench.tasks.base import batches_of
from workbench.training import (
    CheckpointFile,
    Distilled,
    Labels,
    Settings,
    settings_of,
    train,
    trainable_of,
)
from workbench.training import loop as loop_module
from workbench.training.losses import flat_logits
from workbench.training.settings import default_learning_rate

SETTINGS = Settings(epochs=3, learning_rate=3e-3, batch_size=8, patience=None, seed=1)


def trained(model, task, *, settings=SETTINGS, objective=None, **options):
    return train(trainable_of(model, "full"), task, objective or Labels(task), settings, **options)


def tensors(model):
    found = dict(model.hf_model.state_dict())
    if model.head is not None:
        found |= {"head": model.head.weight, "bias": model.head.bias}
    return found


def assert_equal(a, b):
    for name, tensor in tensors(a).items():
        assert torch.equal(tensor, tensors(b)[name]), name


@pytest.mark.parametrize("make", [decoder, encoder], ids=["decoder", "encoder"])
def test_a_classifier_learns_with_its_head(make):
    task = class_task()
    model = task.bind(make())
    result = trained(model, task)
    first, *_, last = result.facts["validation"]
    assert last[1] < 0.7 * first[1]
    before, after = (task.evaluate(m)["loss"].mean() for m in (model, result.model))
    assert after < 0.8 * before
    assert not torch.equal(result.model.head.weight, model.head.weight)
    assert result.curve[-1][0] == result.facts["steps"]


def test_a_language_model_learns_the_text():
    task = toy_task()
    result = trained(decoder(), task)
    assert result.facts["validation"][-1][1] < result.facts["validation"][0][1] - 0.3


def test_a_student_comes_closer_to_its_teacher():
    task = class_task()
    teacher = trained(task.bind(decoder()), task).model
    student = task.bind(decoder(3))
    objective = Distilled(task, teacher, temperature=2.0)
    batch = next(batches_of(student, task.training_examples(student)[:20], 10_000))
    before = float(objective.loss(student, batch))
    after = float(objective.loss(trained(student, task, objective=objective).model, batch))
    assert after < 0.5 * before


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    task = class_task()
    model = task.bind(encoder())  # it has dropout
    state = torch.random.get_rng_state()
    first, second = trained(model, task).model, trained(model, task).model
    assert torch.equal(torch.random.get_rng_state(), state), "the user's own random numbers"
    assert_equal(first, second)
    other = Settings(epochs=3, learning_rate=3e-3, batch_size=8, patience=None, seed=2)
    with pytest.raises(AssertionError):
        assert_equal(first, trained(model, task, settings=other).model)


@pytest.mark.parametrize(
    ("kind", "at"), [("Bert", 1), ("Bert", 11), ("Bert", 12), ("Bert", 30), ("T5", 5)]
)
def test_cancelled_at_any_step_it_goes_on_to_the_same_bytes(tmp_path: Path, kind: str, at: int):
    task, model = class_task(), encoder()
    if kind == "T5":
        task, model = extraction(shots=0), load_model(tiny_model("T5"), tiny_tokenizer())
    model = task.bind(model)
    whole = trained(model, task)
    checkpoint = CheckpointFile(tmp_path / "checkpoints" / "run.safetensors")
    seen = []

    def cancels() -> bool:
        return bool(seen) and seen[-1].stage == "train" and seen[-1].done >= at

    with pytest.raises(CancelledError):
        trained(model, task, checkpoint=checkpoint, monitor=Monitor(seen.append, cancels))
    again = trained(model, task, checkpoint=checkpoint)
    assert again.facts["resumed_at"] == at
    assert_equal(again.model, whole.model)
    assert again.curve == whole.curve
    assert again.facts["validation"] == whole.facts["validation"]
    assert [p.name for p in checkpoint.path.parent.iterdir()] == ["run.safetensors"]


def test_it_goes_on_from_what_was_written_on_the_way(tmp_path, monkeypatch):
    """What a kill leaves: the last checkpoint that was written by time."""
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(loop_module, "CHECKPOINT_SHARE", float("inf"))
    monkeypatch.setattr(loop_module, "CANCEL_BYTES", 0)  # as if killed, not cancelled
    task = toy_task()
    model = decoder()
    whole = trained(model, task)
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    seen = []
    monitor = Monitor(seen.append, lambda: seen[-1].stage == "train" and seen[-1].done == 20)
    with pytest.raises(CancelledError):
        trained(model, task, checkpoint=checkpoint, monitor=monitor)
    again = trained(model, task, checkpoint=checkpoint)
    assert again.facts["resumed_at"] == 19
    assert_equal(again.model, whole.model)


def test_what_was_trained_is_not_lost_when_the_validation_is_cancelled(tmp_path: Path):
    task = class_task()
    model = task.bind(decoder())
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    stages = []
    monitor = Monitor(
        lambda p: stages.append(p.stage), lambda: stages[-1:] == ["validate"] and "train" in stages
    )
    with pytest.raises(CancelledError):
        trained(model, task, checkpoint=checkpoint, monitor=monitor)
    assert trained(model, task, checkpoint=checkpoint).facts["resumed_at"] == stages.count("train")


def test_checkpoints_that_take_long_are_written_less_often(tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self) -> float:  # a step takes a second, and so does a checkpoint
            self.now += 1
            return self.now

    saved = []
    monkeypatch.setattr(loop_module, "time", Clock())
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(CheckpointFile, "save", lambda *_: saved.append(1))
    task = class_task()
    result = trained(task.bind(decoder()), task, checkpoint=CheckpointFile(tmp_path / "x"))
    assert result.facts["steps"] > 30
    assert len(saved) == 2


def test_what_is_too_large_to_keep_is_said_before_and_while_it_trains(tmp_path):
    said: list[str] = []
    monitor = Monitor(lambda p: said.append(p.detail) if p.stage == "train" else None)
    task = class_task()
    model = task.bind(decoder())
    small = CheckpointFile(tmp_path / "run.safetensors", most_bytes=1000)
    with pytest.warns(UserWarning, match=r"no checkpoint is kept: .* disk_budget_bytes is 0.0 GB"):
        result = trained(model, task, checkpoint=small, monitor=monitor)
    assert all(words.startswith("no checkpoint kept; loss ") for words in said)
    assert result.facts["checkpoint"].startswith("no checkpoint is kept: it would take")
    assert "checkpoint_bytes" not in result.facts
    kept = trained(model, task, checkpoint=CheckpointFile(tmp_path / "run.safetensors"))
    assert "checkpoint" not in kept.facts  # a warning here would fail, too


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0)
    task = class_task()
    model = task.bind(decoder())
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    trained(model, task, checkpoint=checkpoint, about="one")
    assert "resumed_at" in trained(model, task, checkpoint=checkpoint, about="one").facts
    assert "resumed_at" not in trained(model, task, checkpoint=checkpoint, about="other").facts


def test_a_cancel_is_heard_in_the_middle_of_a_batch():
    task = toy_task()
    model = decoder()
    settings = Settings(epochs=1, learning_rate=1e-3, batch_size=256, patience=None, seed=0)
    reports, checks = [], []

    def cancels() -> bool:
        checks.append(len(reports))
        return len(checks) - len(reports) >= 3  # asked three times beside the reports

    with pytest.raises(CancelledError):
        trained(model, task, settings=settings, monitor=Monitor(reports.append, cancels))
    assert {report.stage for report in reports} == {"validate"}, "within the first step"


def test_it_stops_when_the_validation_part_gets_no_better_and_keeps_the_best():
    task = class_task(60)
    model = task.bind(decoder())
    wild = Settings(epochs=40, learning_rate=0.5, batch_size=8, patience=2, seed=0)
    result = trained(model, task, settings=wild)
    assert result.facts["stopped_early"]
    assert result.facts["steps"] < result.facts["planned_steps"]
    scores = {at: [error, loss] for at, loss, error in result.facts["validation"]}
    assert scores[result.facts["best_step"]] == min(scores.values())


def test_the_validation_part_is_judged_by_the_weights_of_the_labels():
    task = class_task()
    model = task.bind(decoder())
    none = Settings(epochs=0.1, learning_rate=1e-9, batch_size=8, patience=None, seed=0)
    logits = torch.cat([flat_logits(task, model, b) for b in task.batches(model, "validation")])
    targets = torch.cat([task.targets(b) for b in task.batches(model, "validation")])
    for label in range(3):
        weights = torch.zeros(3)
        weights[label] = 1.0
        facts = trained(model, task, settings=none, objective=Labels(task, weights)).facts
        own = targets == label
        error = float((logits.argmax(-1) != targets)[own].float().mean())
        loss = float(torch.nn.functional.cross_entropy(logits[own], targets[own]))
        assert facts["validation"][0] == pytest.approx([0, loss, error], abs=1e-5)


def test_the_head_is_not_trained_at_the_rate_of_the_scales():
    task = class_task()
    model = compress(task.bind(encoder()), Recipe.of(RTN(4, group_size=8))).model
    settings = settings_of(FineTuning("scales", epochs=1), model.n_parameters, classifies=True)
    trainable = trainable_of(model, "scales")
    name, multipliers = next(
        (n, p) for n, p in trainable.parameters.items() if n.endswith("multipliers")
    )
    result = train(trainable, task, Labels(task), settings)
    steps = result.facts["steps"]
    moved = float((result.model.head.weight - model.head.weight).abs().max())
    assert 0 < moved < 2 * steps * default_learning_rate(10**6, "full", classifies=True)
    assert float((multipliers.detach() - 1).abs().max()) > 4 * moved, name


def test_a_loss_that_is_not_finite_ends_it_with_advice():
    task = toy_task()
    model = decoder()
    with torch.no_grad():
        next(model.hf_model.parameters()).fill_(float("nan"))
    with pytest.raises(CompressionError, match=r"loss is nan at step 1 of \d+.*learning_rate"):
        trained(model, task)


def test_parts_of_a_batch_give_the_whole_batch_gradients(monkeypatch):
    task = class_task()
    model = task.bind(decoder())
    whole = trained(model, task).model
    monkeypatch.setattr(type(task), "batch_tokens", lambda *_: 64)
    parts = trained(model, task).model
    for name, tensor in tensors(whole).items():
        assert torch.allclose(tensor, tensors(parts)[name], atol=2e-3), name
