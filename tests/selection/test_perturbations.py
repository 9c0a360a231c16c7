"""Tests of perturbations: they change a text, a little, and the same way for the same seed."""

from __future__ import annotations

import random

import pytest

from workbench.selection.trust import PERTURBATIONS

TEXT = "My card was declined twice, why is that?"


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_changes_a_text_and_repeats(name):
    change = PERTURBATIONS[name]
    found = change(TEXT, random.Random(0))
    assert found != TEXT
    assert found == change(TEXT, random.Random(0))
    assert change("", random.Random(0)).strip() in ("", "Hello,", "Please help.")


def test_typos_are_few_and_keep_the_letters():
    found = PERTURBATIONS["typos"](TEXT, random.Random(1))
    assert sorted(found) == sorted(TEXT)
    assert 2 <= sum(a != b for a, b in zip(found, TEXT, strict=True)) <= 4
    assert PERTURBATIONS["typos"]("aaa", random.Random(0)) == "aaa"


def test_a_text_of_punctuation_alone_stays():
    assert PERTURBATIONS["no punctuation"]("?!", random.Random(0)) == "?!"
