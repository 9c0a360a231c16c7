from __future__ import annotations

import pytest
import torch

from tests.toy import toy_task
from tests.training.classes import class_task, decoder, encoder
from workbench.errors import ConfigError
from workbench.tasks.base import make_batch
from workbench.training.losses import (
    Distilled,
    Labels,
    class_weights,
    divergence,
    hidden_distance,
)


def batch_of(task, model, n=5):
    return make_batch("calibration", task.training_examples(model)[:n], 0)


def test_divergence_is_the_kl_that_its_definition_says():
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    for temperature in (1.0, 3.0):
        p = (teacher / temperature).softmax(-1)
        q = (student / temperature).softmax(-1)
        forward = temperature**2 * (p * (p / q).log()).sum()
        reverse = temperature**2 * (q * (q / p).log()).sum()
        found = divergence(student, teacher, temperature, reverse=False)
        assert float(found) == pytest.approx(float(forward), rel=1e-4)
        found = divergence(student, teacher, temperature, reverse=True)
        assert float(found) == pytest.approx(float(reverse), rel=1e-4)


def test_another_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="one tokenizer"):
        divergence(torch.randn(2, 5), torch.randn(2, 6), 1.0, reverse=False)


def test_hidden_states_are_matched_from_the_last_block_and_padding_does_not_count():
    teacher = [torch.randn(2, 3, 8) for _ in range(4)]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    student = [teacher[1].clone(), teacher[3].clone()]
    student[0][0, 2] = -student[0][0, 2]
    assert float(hidden_distance(student, teacher, mask)) == pytest.approx(0, abs=1e-6)
    assert float(hidden_distance(student, teacher, None)) > 0.1
    with pytest.raises(ConfigError, match="equal width"):
        hidden_distance([torch.randn(2, 3, 4)], teacher, None)


@pytest.mark.parametrize("make", [decoder, encoder])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(make):
    task = class_task()
    model = task.bind(make())
    objective = Distilled(task, model, temperature=2.0, hidden_weight=1.0)
    assert float(objective.loss(model, batch_of(task, model))) == pytest.approx(0, abs=1e-4)


def test_the_loss_of_next_tokens_is_the_models_own():
    task, model = toy_task(), decoder()
    batch = batch_of(task, model)
    found = float(Labels(task).loss(model, batch)) / Labels(task).weight(batch)
    assert found == pytest.approx(
        float(model.hf_model(batch.input_ids, labels=batch.input_ids).loss), rel=1e-5
    )


def test_what_the_teacher_said_once_is_what_it_would_say_again():
    task = class_task()
    teacher, student = task.bind(decoder(1)), task.bind(decoder(2))
    batch = batch_of(task, student)
    objective = Distilled(task, teacher, temperature=2.0)
    anew = float(objective.loss(student, batch))
    objective.prepare(task.training_examples(student))
    assert float(objective.loss(student, batch)) == pytest.approx(anew, rel=1e-4)


def test_class_weights_only_where_labels_are_unbalanced():
    task = class_task()
    model = task.bind(decoder())
    examples = task.training_examples(model)
    assert class_weights(task, examples, "auto") is None
    first = [e for e in examples if e.label == 0]
    rare = [*first, *[e for e in examples if e.label][:2]]
    weights = class_weights(task, rare, "auto")
    assert weights is not None
    assert weights[0] < 1 < weights.max()
    mean = sum(float(weights[e.label]) for e in rare) / len(rare)
    assert mean == pytest.approx(1)
    assert class_weights(task, rare, "none") is None
    assert class_weights(toy_task(), toy_task().training_examples(decoder()), "balanced") is None
    batch = make_batch("calibration", rare, 0)
    assert Labels(task, weights).weight(batch) == pytest.approx(len(rare), rel=1e-5)
