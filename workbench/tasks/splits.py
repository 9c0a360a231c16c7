"""Documents and parts: how a task's texts are cut, dealt out by seed, and checked for overlap."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

PARTS = ("calibration", "validation", "evaluation")
"""The parts of every task: what compression sees, what choices use, what is reported."""

FEW_DOCUMENTS = 12
"""Below this many documents, long ones are cut into blocks so that errors can be clustered."""

BLOCK_CHARACTERS = 4000

_TITLE = re.compile(r"^ = [^=\n]+ = ?$", re.MULTILINE)  # an article of WikiText
_UNIT = re.compile(r"\n+|(?<=[.!?])\s+")


@dataclass(frozen=True)
class Document:
    """One text that counts as one observation: errors are clustered by it.

    Attributes
    ----------
    index : int
        Stable within the task.
    name : str
        Where it came from, for people.
    text : str
    """

    index: int
    name: str
    text: str


def split_articles(text: str) -> list[str]:
    """Return the articles of a text in WikiText's form, or the text alone; nothing is lost."""
    starts = [match.start() for match in _TITLE.finditer(text)]
    if len(starts) < 2:
        return [text]
    starts[0] = 0
    ends = [*starts[1:], len(text)]
    return [text[a:b] for a, b in zip(starts, ends, strict=True)]


def split_blocks(text: str, size: int = BLOCK_CHARACTERS) -> list[str]:
    """Cut a text into blocks of about ``size`` characters, at blank lines where there are any.

    A block ends at the first blank line after ``size`` characters, at the first line end after
    twice as many, and inside a line (at a space) only after that. Joined, the blocks are the text.
    """
    blocks, current = [], ""
    for piece in _pieces(text, 2 * size):
        current += piece
        if len(current) >= size and (not piece.strip() or len(current) >= 2 * size):
            blocks.append(current)
            current = ""
    if current:
        if blocks and len(current) < size // 2:
            blocks[-1] += current
        else:
            blocks.append(current)
    return blocks


def _pieces(text: str, longest: int) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        while len(line) > longest:
            cut = line.rfind(" ", longest // 2, longest) + 1 or longest
            yield line[:cut]
            line = line[cut:]
        yield line


def cut_documents(texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Cut texts into documents where there are too few of them to split or to cluster by.

    Parameters
    ----------
    texts : sequence of (name, text)
        Files or strings as they were given.

    Returns
    -------
    list of (name, text)
        The texts as they are if there are at least ``FEW_DOCUMENTS``; otherwise WikiText's
        articles become documents, and then, if still too few, blocks of about 4,000 characters
        (less for small texts).
    """
    if len(texts) >= FEW_DOCUMENTS:
        return list(texts)
    documents = _cut(texts, split_articles)
    if len(documents) >= FEW_DOCUMENTS:
        return documents
    total = sum(len(text) for _, text in documents)
    size = min(BLOCK_CHARACTERS, max(200, total // 24))
    return _cut(documents, lambda text: split_blocks(text, size))


def _cut(
    texts: Sequence[tuple[str, str]], split: Callable[[str], list[str]]
) -> list[tuple[str, str]]:
    documents = []
    for name, text in texts:
        pieces = [piece for piece in split(text) if piece.strip()]
        for number, piece in enumerate(pieces, 1):
            documents.append((f"{name} [{number}]" if len(pieces) > 1 else name, piece))
    return documents


def deal(sizes: Sequence[int], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Deal items out over parts at random, so that each part gets its share of the total size.

    Parameters
    ----------
    sizes : sequence of int
        Size of each item (characters of a document, rows of a cluster).
    shares : mapping of str to float
        Wanted share per part; they need not sum to one.
    seed : int
        Of the shuffle.

    Returns
    -------
    dict of str to list of int
        Positions per part, ascending. Every part gets at least one item if there are enough.
    """
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    parts: dict[str, list[int]] = {part: [] for part in shares}
    filled = dict.fromkeys(shares, 0.0)
    scale = sum(shares.values())
    for position in order:
        # the part that is farthest behind its share; an empty part comes first
        part = min(shares, key=lambda p: (bool(parts[p]), filled[p] * scale / shares[p]))
        parts[part].append(position)
        filled[part] += max(sizes[position], 1)
    return {part: sorted(positions) for part, positions in parts.items()}


def normalise(text: str) -> str:
    """Return a text in lower case with single spaces, for comparing."""
    return " ".join(text.lower().split())


def overlap(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Find texts of one part that occur in another, and say so in one sentence, or none.

    Texts are equal if they are so after case and whitespace are normalised. A long text also
    counts if at least half of its sentences and lines of 40 or more characters occur in the other
    part.
    """
    pairs = []
    whole = {part: {hash(normalise(text)) for text in texts} for part, texts in parts.items()}
    units = {part: {h for text in texts for h in _units(text)} for part, texts in parts.items()}
    names = [part for part in PARTS if part in parts]
    for position, seen in enumerate(names):
        for tested in names[position + 1 :]:
            texts = parts[tested]
            same = near = 0
            for text in texts:
                if hash(normalise(text)) in whole[seen]:
                    same += 1
                    continue
                own = _units(text)
                shared = sum(length for unit, length in own.items() if unit in units[seen])
                near += bool(own) and 2 * shared >= sum(own.values())
            if same or near:
                what = [f"{same} identical"] * bool(same) + [f"{near} mostly shared"] * bool(near)
                pairs.append(
                    f"{same + near} of {len(texts)} {tested} texts also occur in {seen}"
                    f" ({', '.join(what)})"
                )
    if not pairs:
        return []
    return [f"{', '.join(pairs)}; remove the copies, or results look better than they are."]


def _units(text: str) -> dict[int, int]:
    """Return the long sentences and lines of a long text: their hashes and lengths."""
    if len(text) < 200:
        return {}
    found = (normalise(piece) for piece in _UNIT.split(text))
    return {hash(unit): len(unit) for unit in found if len(unit) >= 40}
