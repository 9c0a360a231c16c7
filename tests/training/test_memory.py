from __future__ import annotations

import pytest

from tests.toy import toy_task
from tests.training.classes import decoder
from workbench.errors import NotEnoughMemoryError
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
