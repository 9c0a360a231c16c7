"""How much of a reference a text repeats: ROUGE (Lin 2004), and token F1 as SQuAD counts it."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; punctuation is left out, nothing is stemmed."""
    return _WORD.findall(text.lower())


def rouge_n(answer: str, reference: str, n: int) -> float:
    """Return the F1 of the n-grams that both have, counted with their number.

    >>> rouge_n("the cat sat", "the cat slept", 1)
    0.6666666666666666
    """
    mine, theirs = (_grams(words_of(text), n) for text in (answer, reference))
    return _f1(sum((mine & theirs).values()), sum(mine.values()), sum(theirs.values()))


def rouge_l(answer: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words.

    >>> rouge_l("police killed the gunman", "police kill the gunman")
    0.75
    """
    mine, theirs = words_of(answer), words_of(reference)
    lengths = [0] * (len(theirs) + 1)
    for word in mine:
        before = 0
        for place, other in enumerate(theirs, 1):
            before, lengths[place] = (
                lengths[place],
                before + 1 if word == other else max(lengths[place], lengths[place - 1]),
            )
    return _f1(lengths[-1], len(mine), len(theirs))


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(common: int, mine: int, theirs: int) -> float:
    if not mine and not theirs:
        return 1.0
    return 2 * common / (mine + theirs)
