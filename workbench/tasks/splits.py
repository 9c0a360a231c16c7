"""Documents and parts: how a task's texts are cut, dealt out by seed, and checked for overlap."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from workbench.errors import DataError

PARTS = ("calibration", "validation", "evaluation")
"""The parts of every task: what compression sees, what choices use, what is reported."""

SHARES = {"calibration": 0.5, "evaluation": 0.35, "validation": 0.15}
"""Share of the rows that each part gets where parts are split, not given."""

LEAST_ROWS = 10

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


class Clustered(Protocol):
    """A row that belongs to a document; ``""`` for one that stands for itself."""

    @property
    def document(self) -> str:
        """Name of the cluster."""
        ...


R = TypeVar("R", bound=Clustered)


def document_codes(rows: Mapping[str, Sequence[Clustered]]) -> dict[str, list[int]]:
    """Return each row's cluster by part: its document's code, or a code of its own."""
    codes: dict[str, int] = {}
    found: dict[str, list[int]] = {part: [] for part in PARTS}
    for part in PARTS:
        for number, row in enumerate(rows[part]):
            key = f"document {row.document}" if row.document else f"{part} {number}"
            found[part].append(codes.setdefault(key, len(codes)))
    return found


def complete(
    given: Mapping[str, Sequence[R]],
    pool: Sequence[R],
    seed: int,
    shares: Mapping[str, float] = SHARES,
) -> dict[str, list[R]]:
    """Return all three parts: those given, and the others dealt out from the pool by document.

    Raises
    ------
    DataError
        If rows are missing or too few.
    """
    missing = {part: share for part, share in shares.items() if part not in given}
    parts = {part: list(rows) for part, rows in given.items()}
    if not pool and set(missing) == {"validation"}:
        pool, missing = parts.pop("calibration"), {"calibration": 0.8, "validation": 0.2}
    if missing and not pool:
        raise DataError(
            f"No rows are given for {', '.join(missing)}; give a table to split, or every part by"
            " name: calibration=, evaluation= and, if you like, validation=."
        )
    if len(pool) + sum(map(len, parts.values())) < LEAST_ROWS:
        raise DataError(
            f"{len(pool)} rows are too few to judge a model by; give at least {LEAST_ROWS}."
        )
    if not missing:
        return {**parts, "calibration": parts["calibration"] + list(pool)}
    groups: dict[str, list[R]] = {}
    for number, row in enumerate(pool):
        groups.setdefault(row.document or f"row {number}", []).append(row)
    together = list(groups.values())
    for part, chosen in deal([len(rows) for rows in together], missing, seed).items():
        parts[part] = [row for i in chosen for row in together[i]]
        if not parts[part]:
            raise DataError(f"{len(pool)} rows are too few to split: none is left for {part}.")
    return parts


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
