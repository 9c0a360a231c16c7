"""Sentence similarity: whether the cosine of two texts' vectors ranks pairs as people do."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from workbench.errors import DataError
from workbench.fields import whole
from workbench.models.load import LoadedModel
from workbench.records import Metric
from workbench.stored_paths import within
from workbench.tasks.base import MOST_LENGTH, checked_name, checked_options, some_of
from workbench.tasks.data import Row, read_snapshot
from workbench.tasks.metrics import KL
from workbench.tasks.parts import Tables
from workbench.tasks.splits import PARTS, complete, document_codes, overlap
from workbench.tasks.tables import Reading
from workbench.tasks.vector_precision import PRECISIONS, stored_vectors
from workbench.tasks.vectors import Text, TextPair, VectorTask, unique_texts


@dataclasses.dataclass(frozen=True)
class ScoredPair:
    """Two texts and how alike people find them; ``document`` is the cluster they belong to."""

    text: str
    other: str
    score: float
    document: str = ""


class SentenceSimilarity(VectorTask):
    """Rank pairs of texts by the cosine of their vectors; judged by Spearman's correlation.

    Pearson's correlation is there, too, and Spearman's of vectors that are stored in int8 and in
    one bit per number. Compression sees the calibration part's texts, without their scores;
    ``FineTuning`` learns the scores.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame, datasets.Dataset or a mapping of columns, optional
        As for :class:`TextClassification`.
    text, other : str
        Columns of the two texts.
    score : str
        Column of numbers, larger for what is more alike; any scale.
    document : str, optional
        Column that says which rows belong together.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source``.
    sequence_length : int
        Longer texts are cut after so many tokens (capped at what the model takes).
    dimensions : int, optional
        So many first numbers of each vector count, for models that were trained so (matryoshka);
        None: all.
    max_evaluation_examples : int or None
        Most pairs that an evaluation uses, taken at random by ``seed``.
    seed : int
        Of the split into parts.
    name : str, optional
    encoding, delimiter, quote, header, sheet, on_bad_rows
        How files are read, see :class:`~workbench.tasks.tables.Reading`.

    Raises
    ------
    DataError
        If a file or column does not exist, a score is no number, or there are too few pairs.

    Examples
    --------
    >>> rows = {
    ...     "text": [f"text {i}" for i in range(40)],
    ...     "other": [f"text {i * i}" for i in range(40)],
    ...     "score": [i % 5 for i in range(40)],
    ... }
    >>> SentenceSimilarity(rows).primary.name
    'spearman'
    """

    kind: ClassVar[str] = "sentence_similarity"

    def __init__(
        self,
        source: Any = None,
        *,
        text: str = "text",
        other: str = "other",
        score: str = "score",
        document: str | None = None,
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        sequence_length: int = 256,
        dimensions: int | None = None,
        max_evaluation_examples: int | None = 4000,
        seed: int = 0,
        name: str | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        header: bool | None = None,
        sheet: str | None = None,
        on_bad_rows: str = "error",
    ) -> None:
        name = checked_name(type(self).__name__, name, encoding)
        options = checked_options(
            type(self).__name__,
            {
                "sequence_length": sequence_length,
                "dimensions": dimensions,
                "max_evaluation_examples": max_evaluation_examples,
                "seed": seed,
            },
        )
        tables = Tables(
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            Reading(encoding, delimiter, quote, header, sheet, on_bad_rows),
        )
        pool, parts = tables.all_rows(text=text, label=score, document=document, more=[other])
        skipped: list[str] | None = [] if on_bad_rows == "skip" else None
        pairs = {part: _pairs(rows, other, score, skipped) for part, rows in parts.items()}
        rows = complete(pairs, _pairs(pool, other, score, skipped), options["seed"])
        self._set(rows, name or tables.name("similarity"), options)
        self.reading = tables.described()
        left_out = [_wrong_words(skipped, "are left out")] if skipped else []
        self._warn(tables.findings() + left_out + self._findings())

    def _set(
        self, rows: Mapping[str, Sequence[ScoredPair]], name: str, options: dict[str, Any]
    ) -> None:
        options = checked_options(type(self).__name__, options)
        options["dimensions"] = whole(
            type(self).__name__,
            "dimensions",
            options["dimensions"],
            maximum=MOST_LENGTH,
            none_means="all of them",
        )
        names = ["spearman", "pearson", *(f"spearman{end}" for end in PRECISIONS if end)]
        super().__init__(name, (*map(Metric, names), KL), options)
        self.rows = {part: tuple(rows[part]) for part in PARTS}
        self._documents = document_codes(self.rows)
        self._texts, self._places = {}, {}
        for part in PARTS:
            texts = [Text(t) for pair in self.rows[part] for t in (pair.text, pair.other)]
            self._texts[part], self._places[part] = unique_texts(texts)

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        return f"SentenceSimilarity({self.name!r}: pairs: {counts})"

    def _findings(self) -> list[str]:
        found = overlap(
            {part: [f"{r.text} {r.other}" for r in rows] for part, rows in self.rows.items()}
        )
        rows = self.rows["evaluation"]
        if len(rows) < 30:
            found.append(
                f"the evaluation part has only {len(rows)} pairs, so the correlation is known only"
                " roughly; give more pairs."
            )
        if len({row.score for row in rows}) < 2:
            raise DataError(
                f"All pairs of the evaluation part have the score {rows[0].score:g}, so nothing can"
                " be ranked; give pairs of different scores."
            )
        return found

    def texts(self, part: str) -> Sequence[str]:
        """Return the pairs of a part in words."""
        return [f"{row.text} ↔ {row.other}" for row in self.rows[part]]

    def part_texts(self, part: str) -> Sequence[Text]:
        """Return every text of a part once."""
        return self._texts[part]

    def pairs(self, model: LoadedModel, part: str) -> list[TextPair]:
        """Return the part's pairs with their scores."""
        examples = self.examples(model, part)
        found = []
        for number, row in enumerate(self.rows[part]):
            one, other = self._pair(part, number)
            found.append(TextPair(examples[one], examples[other], row.score, frozenset()))
        return found

    def _row_texts(self, part: str, limit: int | None) -> tuple[list[int], set[int]]:
        rows = list(range(len(self.rows[part])))
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            rows = sorted(random.Random(self.options["seed"]).sample(rows, most))
        rows = rows if limit is None else some_of(rows, limit)
        return rows, {place for row in rows for place in self._pair(part, row)}

    def _pair(self, part: str, row: int) -> tuple[int, int]:
        pair, places = self.rows[part][row], self._places[part]
        return places[Text(pair.text)], places[Text(pair.other)]

    def _scored(
        self,
        part: str,
        rows: list[int],
        place: Mapping[int, int],
        vectors: NDArray[np.float32],
        kl: NDArray[np.float64],
    ) -> dict[str, Any]:
        pairs = np.array([[place[t] for t in self._pair(part, row)] for row in rows])
        scores = np.array([self.rows[part][row].score for row in rows])
        found: dict[str, Any] = {
            "document": np.array([self._documents[part][row] for row in rows], dtype=np.int64),
            "score": scores,
            "kl": kl[pairs].mean(1),
        }
        for end, precision in PRECISIONS.items():
            stored = stored_vectors(vectors, precision)
            cosines = stored[pairs[:, 0]] * stored[pairs[:, 1]]
            found[f"similarity{end}"] = cosines.sum(1, dtype=np.float64)
        ranks = [rankdata(values) for values in (scores, found["similarity"])]
        found["loss"] = np.abs(ranks[0] - ranks[1]) / len(rows)
        return found

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                yield {"part": part, **dataclasses.asdict(row)}

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> SentenceSimilarity:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[ScoredPair]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            parts[row.pop("part")].append(ScoredPair(**row))
        task = cls.__new__(cls)
        task._set(parts, saved["name"], dict(saved["options"]))
        task._check_loaded(saved)
        return task


def _pairs(
    rows: Sequence[Row], other: str, score: str, skipped: list[str] | None
) -> list[ScoredPair]:
    """Return rows as pairs of texts with a number.

    What is wrong with others is appended to ``skipped``, or raised where that is None.

    Raises
    ------
    DataError
        If a second text is missing or a score is no number.
    """
    found, wrong = [], []
    for number, row in enumerate(rows, 1):
        try:
            value = float(row.label)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            wrong.append(f"row {number} has {row.label!r} in the column {score!r}, no number")
        elif not row.more[0][1].strip():
            wrong.append(f"row {number} has nothing in the column {other!r}")
        else:
            found.append(ScoredPair(row.text, row.more[0][1], value, row.document))
    if wrong and skipped is None:
        raise DataError(
            f"{_wrong_words(wrong, 'cannot be used')} Fill them in or remove them; with"
            ' on_bad_rows="skip" they are left out.'
        )
    if skipped is not None:
        skipped += wrong
    return found


def _wrong_words(wrong: Sequence[str], what: str) -> str:
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"{len(wrong)} pairs {what}: {'; '.join(wrong[:3])}{more}."
