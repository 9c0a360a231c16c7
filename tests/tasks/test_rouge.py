"""Tests of ROUGE and word F1 against values counted by hand."""

from __future__ import annotations

import pytest

from workbench.tasks.rouge import rouge_l, rouge_n, token_f1, words_of


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
    assert score("", "") == 0.0  # nothing is repeated of nothing, as in rouge_score


def test_one_word_has_no_pair_of_words():
    for answer in ("yes", "no", ""):
        assert rouge_n(answer, "yes", 2) == 0.0
    assert rouge_n("yes", "no", 2, alike=1.0) == 1.0  # what studies of version 1 recorded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, sat.", ["the", "cat", "sat"]),
        ("It's well-known (2020-11-27)", ["it", "s", "well", "known", "2020", "11", "27"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("தமிழ்", ["தமிழ்"]),
        ("مَدْرَسَة", ["مَدْرَسَة"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("😀 👍🏽👨\u200d👩\u200d👧", ["😀", "👍🏽", "👨\u200d👩\u200d👧"]),
        ("❤\ufe0f", ["❤"]),
        ("-12 \u221212 12 +3 -.5", ["-12", "-12", "12", "+3", "-.5"]),
        ("C++ C# C F#", ["c++", "c#", "c", "f#"]),
        ("$5 €5 5% 5", ["$", "5", "€", "5", "5", "%", "5"]),
        ("我喜欢", ["我", "喜", "欢"]),
        ("e\u0301te\u0301", ["été"]),
        ("a | b ~ c", ["a", "b", "c"]),
        ("?!…", []),
    ],
)
def test_words_of_every_script(text, words):
    assert words_of(text) == words


def test_punctuation_counts_where_it_is_asked_for():
    assert words_of("It's here.", punctuation=True) == ["it", "'", "s", "here", "."]
    assert words_of("C++, -12", punctuation=True) == ["c++", ",", "-12"]


ENGLISH = (
    "Police killed the gunman after a long night, officials said.",
    "The gunman was killed by police; nobody else was hurt.",
    "It's the company's 3rd profit warning since 2019, and its worst.",
    "Shares fell 12.5 points on Monday (the most since May).",
    'A well-known author -- he is 80 -- won the prize: "At last!"',
    "yes",
    "",
)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_plain_english_scores_what_googles_rouge_score_says(kind):
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=False)
    ours = rouge_l if kind == "rougeL" else lambda a, b: rouge_n(a, b, int(kind[-1]))
    for reference in ENGLISH:
        for answer in ENGLISH:
            expected = scorer.score(reference, answer)[kind].fmeasure
            assert ours(answer, reference) == pytest.approx(expected), (answer, reference)


def test_texts_of_any_script_score_what_rouge_score_says_of_the_same_words():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

    class Tokenizer:
        def tokenize(self, text):
            return words_of(text)

    texts = ["हिन्दी में लिखा", "हिन्दी में कहा", "-12 C++ 😀 $5", "12 C# 😃 €5", "我喜欢你", ""]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokenizer())
    for reference in texts:
        for answer in texts:
            found = scorer.score(reference, answer)
            assert rouge_n(answer, reference, 1) == pytest.approx(found["rouge1"].fmeasure)
            assert rouge_n(answer, reference, 2) == pytest.approx(found["rouge2"].fmeasure)
            assert rouge_l(answer, reference) == pytest.approx(found["rougeL"].fmeasure)


def test_word_f1_and_empty_answers():
    assert token_f1(["a", "b"], ["b", "c"]) == 0.5
    assert token_f1([], []) == 1.0
    assert token_f1([], ["a"]) == 0.0
