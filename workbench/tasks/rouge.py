"""How much of a reference a text repeats: ROUGE (Lin 2004), and token F1 as SQuAD counts it."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Words = Callable[[str], list[str]]
"""Returns the words of a text."""

WORDS = 2
"""Version of what a word is; stored with a task, so that older studies keep theirs."""

_RUN = re.compile(r"\w+")
_INVISIBLE = dict.fromkeys((0xFE0E, 0xFE0F, 0x200B, 0xFEFF, 0x00AD))
_ALIKE = str.maketrans({"−": "-"})

_PATTERN = r"""
    (?:(?<![\p{L}\p{N}\p{M}_)\]])[-+][.,]?(?=\p{Nd}))?  # the sign of a number
    (?:
        (?:[\p{L}\p{N}_--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]
           [\p{M}\u200c\u200d]*)+
        (?:(?<=\p{L})[+\#]{1,2}(?![\p{L}\p{N}+\#]))?     # C++ and C#
      | [\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*
    )
  | (?<=\p{Nd}\s?)[%‰]
  | (?=[\p{So}\p{Sc}\p{Sm}])(?![|~])\X                         # emoji, currencies, < and >
"""
_PUNCTUATION = r" | [^\s\p{C}]"


def words_of(text: str, *, punctuation: bool = False) -> list[str]:
    """Return the words of a text in lower case; nothing is stemmed.

    A word is a run of letters, digits and underscores with their marks, which are the vowels of
    Hindi, Tamil and vocalised Arabic. In scripts without spaces (Chinese, Japanese, Thai) each
    character is one. A sign before a number belongs to it (``-12``), and so do ``+`` and ``#``
    behind a letter (``C++``, ``C#``). Every emoji, currency and mathematical symbol, and ``%``
    behind a number, is a word of its own. Texts are compared in composed form (NFC).

    On plain English these are the words of Google's rouge_score without stemming.

    Parameters
    ----------
    text : str
    punctuation : bool
        Whether every other mark is a word, too, not left out.

    >>> words_of("The cat, sat. It's -12 in C++!")
    ['the', 'cat', 'sat', 'it', 's', '-12', 'in', 'c++']
    """
    plain = unicodedata.normalize("NFC", text.lower()).translate(_INVISIBLE).translate(_ALIKE)
    found: list[str] = _compiled(punctuation).findall(plain)
    return found


@functools.cache
def _compiled(punctuation: bool) -> Any:
    import regex

    pattern = _PATTERN + (_PUNCTUATION if punctuation else "")
    return regex.compile(pattern, regex.VERSION1 | regex.VERBOSE)


def runs_of(text: str) -> list[str]:
    r"""Return the runs of ``\w`` of a text in lower case, which version 1 took for words."""
    return _RUN.findall(text.lower())


def words_of_options(options: dict[str, Any]) -> Words:
    """Return what a word is under a task's options; those of older studies name no version."""
    if options.get("words", 1) < 2:
        return runs_of
    return functools.partial(words_of, punctuation=bool(options.get("punctuation", False)))


def rouge_n(
    answer: str | Sequence[str], reference: str | Sequence[str], n: int, alike: float = 0.0
) -> float:
    """Return the F1 of the n-grams that both have, counted with their number.

    Parameters
    ----------
    answer, reference : str or sequence of str
        Texts, or their words.
    n : int
    alike : float
        What two texts without any n-gram score. Without one there is nothing that the answer could
        repeat: zero, as in Google's rouge_score.

    >>> rouge_n("the cat sat", "the cat slept", 1)
    0.6666666666666666
    """
    mine, theirs = (_grams(_words(text), n) for text in (answer, reference))
    return _f1(sum((mine & theirs).values()), sum(mine.values()), sum(theirs.values()), alike)


def rouge_l(
    answer: str | Sequence[str], reference: str | Sequence[str], alike: float = 0.0
) -> float:
    """Return the F1 of the longest common subsequence of words, see :func:`rouge_n`.

    >>> rouge_l("police killed the gunman", "police kill the gunman")
    0.75
    """
    mine, theirs = _words(answer), _words(reference)
    lengths = [0] * (len(theirs) + 1)
    for word in mine:
        before = 0
        for place, other in enumerate(theirs, 1):
            before, lengths[place] = (
                lengths[place],
                before + 1 if word == other else max(lengths[place], lengths[place - 1]),
            )
    return _f1(lengths[-1], len(mine), len(theirs), alike)


def token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 of words as SQuAD counts it (Rajpurkar et al. 2016, 6.1), articles kept.

    Two empty answers are the same answer.
    """
    common = sum((Counter(answer) & Counter(reference)).values())
    return _f1(common, len(answer), len(reference), 1.0)


def _words(text: str | Sequence[str]) -> Sequence[str]:
    return words_of(text) if isinstance(text, str) else text


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(common: int, mine: int, theirs: int, alike: float) -> float:
    if not mine and not theirs:
        return alike
    return 2 * common / (mine + theirs)
