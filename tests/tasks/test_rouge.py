"""Tests of ROUGE and word F1 against values counted by hand."""

from __future__ import annotations

import pytest

from workbench.tasks.rouge import rouge_l, rouge_n


def test_examples_of_the_paper():
    # Lin (2004), section 3.1: S2 shares "police the gunman", S3 only "the gunman" in order
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge_n("the gunman kill police", reference, 1) == pytest.approx(3 / 4)
    assert rouge_n("the gunman kill police", reference, 2) == pytest.approx(1 / 3)


def test_repeated_words_count_as_often_as_both_have_them():
    assert rouge_n("the the the", "the cat", 1) == pytest.approx(2 / 5)
    assert rouge_l("the the the", "the cat") == pytest.approx(2 / 5)


@pytest.mark.parametrize("score", [rouge_l, lambda a, b: rouge_n(a, b, 2)])
def test_ends_of_the_scale(score):
    assert score("A cat, sat.", "a cat SAT") == 1.0
    assert score("dog", "a cat sat") == 0.0
    assert score("", "a cat sat") == 0.0
    assert score("", "") == 1.0
