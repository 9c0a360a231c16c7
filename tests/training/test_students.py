from __future__ import annotations

import pytest

from tests.tiny import tiny_tokenizer
from tests.training.classes import decoder
from workbench.errors import ConfigError
from workbench.models.load import load_model
from workbench.models.structure import block_names
from workbench.training.students import kept_blocks, student_of


@pytest.mark.parametrize(
    ("n", "m", "keep", "expected"),
    [
        (8, 4, "spread", [0, 2, 5, 7]),
        (12, 6, "spread", [0, 2, 4, 7, 9, 11]),
        (6, 6, "spread", [0, 1, 2, 3, 4, 5]),
        (6, 1, "spread", [0]),
        (6, 2, "first", [0, 1]),
        (6, 2, "last", [4, 5]),
    ],
)
def test_which_blocks_stay(n, m, keep, expected):
    assert kept_blocks(n, m, keep) == expected


def test_every_number_of_blocks_gives_so_many():
    for n in range(1, 40):
        for m in range(1, n + 1):
            assert len(set(kept_blocks(n, m, "spread"))) == m


def test_a_student_has_copies_of_the_blocks():
    model = decoder()
    student, kept = student_of(model, 1, "last")
    assert kept == [1]
    assert len(block_names(student)) == 1
    mine, other = (
        m.hf_model.state_dict()[f"model.layers.{i}.mlp.up_proj.weight"]
        for m, i in ((student, 0), (model, 1))
    )
    assert mine.equal(other)
    assert mine.data_ptr() != other.data_ptr()


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"blocks=3 is not accepted .* has 2 blocks"):
        student_of(decoder(), 3, "spread")


def test_a_first_block_that_is_unlike_the_others_stays():
    from tests.tiny import tiny_model

    model = load_model(tiny_model("ModernBert"), tiny_tokenizer())
    student, kept = student_of(model, 1, "last")
    assert kept == [0]
    assert len(block_names(student)) == 1
