from __future__ import annotations

import warnings

import pytest

from tests.toy import texts, toy_model, toy_task
from tests.training.classes import decoder
from workbench.errors import NotEnoughMemoryError
from workbench.recipes import FineTuning
from workbench.records import RunState
from workbench.study import Study
from workbench.tasks import LanguageModeling
from workbench.training import check_training_memory, trainable_of
from workbench.training.memory import training_bytes


def test_more_examples_at_once_need_more_until_a_batch_is_computed_in_parts():
    task, model = toy_task(), decoder()
    trainable = trainable_of(model, "full")
    examples = task.training_examples(model)
    needed = [training_bytes(trainable, task, examples, size) for size in (1, 8, 64, 512)]
    assert needed[0] < needed[1] < needed[2] == needed[3]
    fewer = trainable_of(model, "lora", rank=1)
    assert training_bytes(fewer, task, examples, 1) < needed[0]


def test_a_teacher_needs_more():
    task, model = toy_task(), decoder()
    trainable = trainable_of(model, "full")
    alone, taught = (check_training_memory(trainable, task, 4, taught=t) for t in (False, True))
    vocabulary = model.hf_model.config.vocab_size
    assert taught - alone == 4 * 4 * (4 * 32) * vocabulary, "four times float32 logits"


def test_texts_shorter_than_a_window_are_trained_on_as_they_are(tmp_path):
    parts = {"calibration": ["the fox"], "validation": texts(3), "evaluation": texts(6)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = LanguageModeling(**parts, sequence_length=32)
    study = Study(toy_model(), task, tmp_path / "study")
    assert study.run(FineTuning(epochs=1)).state is RunState.DONE


def test_a_batch_size_that_fits_is_proposed():
    task, model = toy_task(), decoder()
    trainable = trainable_of(model, "full")
    examples = task.training_examples(model)
    enough = training_bytes(trainable, task, examples, 4)
    assert check_training_memory(trainable, task, 4, available=enough) == enough
    with pytest.raises(NotEnoughMemoryError, match=r"Give batch_size=4, which fits"):
        check_training_memory(trainable, task, 32, available=enough)
    with pytest.raises(NotEnoughMemoryError, match="No batch size fits: give method='lora'"):
        check_training_memory(trainable, task, 32, available=1000)
