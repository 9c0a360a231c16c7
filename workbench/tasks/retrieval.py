"""Retrieval: whether a query's vector lies near the documents that answer it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError
from workbench.fields import whole, words
from workbench.models.load import LoadedModel
from workbench.records import Metric
from workbench.stored_paths import within
from workbench.tasks.base import MOST_LENGTH, Example, checked_name, checked_options, some_of
from workbench.tasks.data import Row, read_rows, read_snapshot
from workbench.tasks.metrics import KL
from workbench.tasks.ranking import ranking_scores
from workbench.tasks.splits import PARTS, complete, document_codes
from workbench.tasks.tables import Reading
from workbench.tasks.vector_precision import PRECISIONS, stored_vectors
from workbench.tasks.vectors import Text, TextPair, VectorTask, unique_texts

SHARES = {"calibration": 0.2, "evaluation": 0.6, "validation": 0.2}
"""Share of the queries that each part gets."""

CALIBRATION_DOCUMENTS = 2000
"""Documents that calibration reads beside its queries; nobody's relevance is in them."""

_CHUNK = 256
_CORPUS, _QUERIES, _RELEVANCE = "corpus.jsonl", "queries.jsonl", "qrels"


@dataclasses.dataclass(frozen=True)
class Query:
    """A query and its relevant documents: their names and grades, sorted by name."""

    id: str
    text: str
    relevant: tuple[tuple[str, float], ...]
    document: str = ""


class Retrieval(VectorTask):
    """Find the documents that answer a query by the cosine of their vectors.

    Judged by nDCG@10; the mean reciprocal rank and the recall among the first ten are there, too,
    and nDCG@10 of an index that is stored in int8 or in one bit per number. Every document is
    encoded once per evaluation. The queries are dealt out over the parts; all parts are ranked
    over all documents. Compression sees the calibration part's queries and some documents, never
    what is relevant; ``FineTuning`` learns which documents answer the calibration part's queries.

    Parameters
    ----------
    queries, documents : mapping of names to texts, or a table as for :class:`TextClassification`
        Tables have the columns ``id`` and ``text``, or those that are named.
    relevance : mapping or table
        By query the names of its relevant documents, or their grades by name:
        ``{"q1": ["d3"], "q2": {"d1": 2, "d7": 1}}``. A table has the columns ``query``,
        ``document`` and, where some are better answers than others, ``score``. Queries without a
        relevant document are left out, which is said.
    id, text : str
        Columns of the tables of queries and documents.
    sequence_length : int
        Longer texts are cut after so many tokens (capped at what the model takes).
    dimensions : int, optional
        So many first numbers of each vector count, for models that were trained so (matryoshka);
        None: all.
    max_documents : int or None
        Most documents to rank: every relevant one, and others taken at random by ``seed``. Fewer
        documents are easier to tell apart, so compare scores of equal ones only.
    max_evaluation_examples : int or None
        Most queries that an evaluation uses, taken at random by ``seed``.
    seed : int
        Of the split into parts.
    name : str, optional

    Raises
    ------
    DataError
        If a table cannot be read, a relevant document does not exist, or there are too few
        queries.

    Examples
    --------
    >>> task = Retrieval(
    ...     {f"q{i}": f"where is {i}?" for i in range(20)},
    ...     {f"d{i}": f"{i} is here" for i in range(30)},
    ...     {f"q{i}": [f"d{i}"] for i in range(20)},
    ... )
    >>> task.primary.name
    'ndcg_at_10'
    """

    kind: ClassVar[str] = "retrieval"

    def __init__(
        self,
        queries: Any,
        documents: Any,
        relevance: Any,
        *,
        id: str = "id",
        text: str = "text",
        sequence_length: int = 256,
        dimensions: int | None = None,
        max_documents: int | None = 20_000,
        max_evaluation_examples: int | None = 1000,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        name = checked_name(type(self).__name__, name, None)
        options = checked_options(
            type(self).__name__,
            {
                "sequence_length": sequence_length,
                "dimensions": dimensions,
                "max_documents": max_documents,
                "max_evaluation_examples": max_evaluation_examples,
                "seed": seed,
            },
        )
        for key, column in (("id", id), ("text", text)):
            words(type(self).__name__, key, column)
        asked = _named_texts(queries, "queries", id, text)
        corpus = _named_texts(documents, "documents", id, text)
        grades = _grades(relevance)
        findings = _check_names(asked, corpus, grades)
        found = [
            Query(key, asked[key], tuple(sorted(relevant.items())))
            for key, relevant in grades.items()
            if key in asked and relevant
        ]
        rows = complete({}, found, options["seed"], SHARES)
        self._set(rows, corpus, name or "retrieval", options)
        self._warn(findings + self._findings(len(corpus)))

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> Retrieval:
        """Read a folder in the form of BEIR.

        It has ``corpus.jsonl`` and ``queries.jsonl`` (``_id``, ``text`` and, of documents, a
        ``title``) and tables of relevance in ``qrels/``, of which the one called ``test`` is read,
        else all.

        Parameters
        ----------
        folder : str or Path
        **options
            Of :class:`Retrieval`.

        Raises
        ------
        DataError
            If a file is missing.
        """
        folder = Path(folder)
        tables = sorted((folder / _RELEVANCE).glob("*.tsv"))
        for missing in (folder / _CORPUS, folder / _QUERIES):
            if not missing.is_file() or not tables:
                raise DataError(
                    f"{str(folder)!r} is no folder of BEIR: it needs {_CORPUS}, {_QUERIES} and"
                    f" {_RELEVANCE}/*.tsv."
                )
        tables = [table for table in tables if table.stem == "test"] or tables
        reading = Reading(delimiter="\t", header=True)
        relevance: dict[str, dict[str, float]] = {}
        for table in tables:
            columns = {"query": "query-id", "document": "corpus-id", "score": "score"}
            for key, relevant in _table_grades(table, columns, reading).items():
                relevance.setdefault(key, {}).update(relevant)
        rows = _rows_with("title", folder / _CORPUS, text="text", label="_id")
        documents = {row.label: f"{title or ''} {row.text}".strip() for row, title in rows}
        queries = _named_texts(folder / _QUERIES, "queries", "_id", "text")
        return cls(queries, documents, relevance, **{"name": folder.name, **options})

    def _set(
        self,
        rows: Mapping[str, Sequence[Query]],
        documents: Mapping[str, str],
        name: str,
        options: dict[str, Any],
    ) -> None:
        owner = type(self).__name__
        options = checked_options(owner, options)
        for key, most in (("dimensions", MOST_LENGTH), ("max_documents", None)):
            options[key] = whole(owner, key, options[key], maximum=most, none_means="all of them")
        names = ["ndcg_at_10", "mrr_at_10", "recall_at_10"]
        names += [f"ndcg_at_10{end}" for end in PRECISIONS if end]
        super().__init__(name, (*map(Metric, names), KL), options)
        self.rows = {part: tuple(rows[part]) for part in PARTS}
        self._documents = document_codes(self.rows)
        self.documents = self._ranked(documents)
        corpus = [Text(text, "document") for text in self.documents.values()]
        seen = list(corpus)
        random.Random(options["seed"]).shuffle(seen)
        self._texts, self._places = {}, {}
        for part in PARTS:
            queries = [Text(query.text, "query") for query in self.rows[part]]
            among = seen[:CALIBRATION_DOCUMENTS] if part == "calibration" else corpus
            self._texts[part], self._places[part] = unique_texts([*queries, *among])

    def _ranked(self, documents: Mapping[str, str]) -> dict[str, str]:
        """Return the documents that are ranked, in their order."""
        most = self.options["max_documents"]
        if most is None or len(documents) <= most:
            return dict(documents)
        needed = {name for part in PARTS for q in self.rows[part] for name, _ in q.relevant}
        others = sorted(set(documents) - needed)
        random.Random(self.options["seed"]).shuffle(others)
        kept = needed | set(others[: max(most - len(needed), 0)])
        return {name: text for name, text in documents.items() if name in kept}

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        return f"Retrieval({self.name!r}: {len(self.documents)} documents, queries: {counts})"

    def _findings(self, n_documents: int) -> list[str]:
        found = []
        if len(self.documents) < n_documents:
            found.append(
                f"{len(self.documents):,} of {n_documents:,} documents are ranked, which is easier"
                " than all of them; max_documents=None takes all."
            )
        if len(self.rows["evaluation"]) < 30:
            found.append(
                f"the evaluation part has only {len(self.rows['evaluation'])} queries, so scores"
                " are known only roughly; give more queries."
            )
        return found

    def texts(self, part: str) -> Sequence[str]:
        """Return the queries of a part."""
        return [query.text for query in self.rows[part]]

    def part_texts(self, part: str) -> Sequence[Text]:
        """Return every query and document of a part once."""
        return self._texts[part]

    def pairs(self, model: LoadedModel, part: str) -> list[TextPair]:
        """Return the part's queries, each with every document that answers it."""
        examples = self.examples(model, part)
        number = {name: place for place, name in enumerate(self.documents)}
        named = sorted({name for query in self.rows[part] for name, _ in query.relevant})
        texts = [Text(self.documents[name], "document") for name in named]
        tokens = self._tokenize(model, texts, self.options["sequence_length"])
        documents = {
            name: Example(number[name], number[name], row)
            for name, row in zip(named, tokens, strict=True)
        }
        found = []
        for query in self.rows[part]:
            first = examples[self._places[part][Text(query.text, "query")]]
            relevant = frozenset(number[name] for name, _ in query.relevant)
            found += [TextPair(first, documents[n], None, relevant) for n, _ in query.relevant]
        return found

    def _row_texts(self, part: str, limit: int | None) -> tuple[list[int], set[int]]:
        rows = list(range(len(self.rows[part])))
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            rows = sorted(random.Random(self.options["seed"]).sample(rows, most))
        rows = rows if limit is None else some_of(rows, limit)
        places = self._places[part]
        wanted = [Text(self.rows[part][row].text, "query") for row in rows]
        wanted += [Text(text, "document") for text in self.documents.values()]
        return rows, {places[text] for text in wanted if text in places}

    def _scored(
        self,
        part: str,
        rows: list[int],
        place: Mapping[int, int],
        vectors: NDArray[np.float32],
        kl: NDArray[np.float64],
    ) -> dict[str, Any]:
        places = self._places[part]
        names = [name for name, text in self.documents.items() if Text(text, "document") in places]
        at = np.array([place[places[Text(self.documents[n], "document")]] for n in names])
        number = {name: i for i, name in enumerate(names)}
        asked = np.array([place[places[Text(self.rows[part][row].text, "query")]] for row in rows])
        found: dict[str, Any] = {
            "document": np.array([self._documents[part][row] for row in rows], dtype=np.int64),
            # a query is found among documents that moved, too
            "kl": (kl[asked] + kl[at].mean()) / 2,
        }
        for end, precision in PRECISIONS.items():
            index = stored_vectors(vectors[at], precision)
            scores: list[dict[str, float]] = []
            for start in range(0, len(rows), _CHUNK):
                similarities = vectors[asked[start : start + _CHUNK]] @ index.T
                for row, line in zip(rows[start : start + _CHUNK], similarities, strict=True):
                    relevant = self.rows[part][row].relevant
                    grades = np.zeros(len(names))
                    for name, grade in relevant:
                        if name in number:
                            grades[number[name]] = grade
                    scores.append(ranking_scores(line, grades, np.array([g for _, g in relevant])))
            for key in scores[0] if not end else ("ndcg_at_10",):
                found[f"{key}{end}"] = np.array([one[key] for one in scores])
        found["loss"] = 1 - found["ndcg_at_10"]
        return found

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                yield {"part": part, **dataclasses.asdict(row)}
        for name, text in self.documents.items():
            yield {"part": "documents", "id": name, "text": text}

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> Retrieval:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[Query]] = {part: [] for part in PARTS}
        documents: dict[str, str] = {}
        for row in read_snapshot(within(folder, saved["data"])):
            part = row.pop("part")
            if part == "documents":
                documents[row["id"]] = row["text"]
            else:
                relevant = tuple((str(n), float(g)) for n, g in row.pop("relevant"))
                parts[part].append(Query(relevant=relevant, **row))
        task = cls.__new__(cls)
        task._set(parts, documents, saved["name"], dict(saved["options"]))
        task._check_loaded(saved)
        return task


def is_retrieval_folder(path: Path) -> bool:
    """Return whether a folder is in the form of BEIR, see :meth:`Retrieval.from_folder`."""
    return (path / _CORPUS).is_file() and (path / _QUERIES).is_file()


def _named_texts(source: Any, what: str, id: str, text: str) -> dict[str, str]:
    """Return texts by name, of a mapping or a table.

    Raises
    ------
    DataError
        If there is none, one is empty, or two have one name.
    """
    if isinstance(source, Mapping) and all(isinstance(v, str) for v in source.values()):
        found = {str(name): text for name, text in source.items()}
        empty = [name for name, text in found.items() if not text.strip()]
        if empty or not found:
            said = f"the {what} {', '.join(map(repr, empty[:5]))} have no text" if empty else "none"
            raise DataError(f"{what}: {said}; give a text for each.")
        return found
    rows = read_rows(source, text=text, label=id, document=None)
    found = {row.label: row.text for row in rows}
    if len(found) < len(rows):
        raise DataError(
            f"{what}: {len(rows)} rows have only {len(found)} different names in the column"
            f" {id!r}; give every one a name of its own."
        )
    return found


def _grades(relevance: Any) -> dict[str, dict[str, float]]:
    """Return the grades above zero by query and document.

    Raises
    ------
    DataError
        If a grade is no number.
    """
    columns = {"query": "query", "document": "document", "score": "score"}
    keyed = isinstance(relevance, Mapping) and set(relevance) >= {"query", "document"}
    if not isinstance(relevance, Mapping) or keyed:
        return _table_grades(relevance, columns)
    found: dict[str, dict[str, float]] = {}
    for query, named in relevance.items():
        if isinstance(named, (str, int)):
            named = [named]
        graded = named if isinstance(named, Mapping) else dict.fromkeys(named, 1)
        found[str(query)] = {
            str(name): value
            for name, grade in graded.items()
            if (value := _grade(grade, f"{query} → {name}")) > 0
        }
    return found


def _table_grades(
    table: Any, columns: Mapping[str, str], reading: Reading | None = None
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    names = {"text": columns["query"], "label": columns["document"]}
    for row, said in _rows_with(columns["score"], table, **names, reading=reading):
        key = row.text.strip()
        grade = 1.0 if said is None else _grade(said, f"{key} → {row.label}")
        mine = found.setdefault(key, {})
        if grade > 0:
            mine[row.label] = grade
    return found


def _rows_with(column: str, table: Any, **columns: Any) -> list[tuple[Row, str | None]]:
    """Return the rows of a table with a column that it need not have."""
    try:
        rows = read_rows(table, **columns, document=None, more=[column])
    except DataError as error:
        if f"no column {column!r}" not in str(error):
            raise
        return [(row, None) for row in read_rows(table, **columns, document=None)]
    return [(row, row.more[0][1]) for row in rows]


def _grade(value: Any, where: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not np.isfinite(found):
        raise DataError(
            f"relevance: the grade of {where} is {value!r}; give a number, 0 for what is not"
            " relevant."
        )
    return found


def _check_names(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    grades: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """Return what is left out, as sentences.

    Raises
    ------
    DataError
        If a relevant document or a judged query does not exist.
    """
    named = {name for relevant in grades.values() for name in relevant}
    lost = sorted(named - set(documents))
    if lost:
        raise DataError(
            f"relevance names {len(lost)} of {len(named)} documents that are not among the"
            f" documents: {', '.join(map(repr, lost[:5]))}. Give their texts, or leave them out."
        )
    unknown = sorted(set(grades) - set(queries))
    if unknown and len(unknown) == len(grades):
        raise DataError(
            f"None of the {len(grades)} queries of relevance is among the queries; relevance has"
            f" {', '.join(map(repr, unknown[:3]))}, queries have"
            f" {', '.join(map(repr, list(queries)[:3]))}."
        )
    found = []
    if unknown:
        found.append(
            f"{len(unknown)} of {len(grades)} queries of relevance have no text and are left out:"
            f" {', '.join(map(repr, unknown[:5]))}."
        )
    without = [name for name in queries if not grades.get(name)]
    if without:
        found.append(
            f"{len(without)} of {len(queries)} queries have no relevant document and are left out."
        )
    return found
