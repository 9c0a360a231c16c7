"""Small changes of a text that should not change its label."""

from __future__ import annotations

import random
from collections.abc import Callable

Perturbation = Callable[[str, random.Random], str]
"""Takes a text and a source of chance, returns the changed text."""

LETTERS_PER_TYPO = 20


def lower_case(text: str, chance: random.Random) -> str:
    """Write everything small."""
    return text.lower()


def upper_case(text: str, chance: random.Random) -> str:
    """Write everything large."""
    return text.upper()


def typos(text: str, chance: random.Random) -> str:
    """Swap two neighbouring letters about once in twenty, at least once where there are two."""
    places = [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    places = [i for i in places if text[i] != text[i + 1]]
    if not places:
        return text
    letters = list(text)
    for place in chance.sample(places, min(len(places), max(1, len(text) // LETTERS_PER_TYPO))):
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def no_punctuation(text: str, chance: random.Random) -> str:
    """Leave out what is neither letter, digit nor space."""
    kept = "".join(letter for letter in text if letter.isalnum() or letter.isspace())
    return kept if kept.strip() else text


def template(pattern: str) -> Perturbation:
    """Return a perturbation that puts a text into other wording, such as ``"Hello! {text}"``."""

    def wrap(text: str, chance: random.Random) -> str:
        return pattern.replace("{text}", text)

    return wrap


PERTURBATIONS: dict[str, Perturbation] = {
    "lower case": lower_case,
    "upper case": upper_case,
    "typos": typos,
    "no punctuation": no_punctuation,
    "greeting": template("Hello, {text}"),
    "please": template("{text} Please help."),
}
"""By name; the last two are templates of prompt wording, to which you add your own."""
