"""Prompts with the answers that a model should give: exact match, and the answers' perplexity."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from workbench.errors import ConfigError, DataError
from workbench.fields import shown
from workbench.models.load import LoadedModel
from workbench.stored_paths import within
from workbench.tasks.answering import answer_tokens, around_input, plain_tokens
from workbench.tasks.base import Batch, Example, Task, checked_name, checked_options, some_of
from workbench.tasks.data import Row, read_snapshot
from workbench.tasks.language_modeling import LanguageModeling, start_token
from workbench.tasks.metrics import ANSWER_PERPLEXITY, EXACT_MATCH, KL, TOKEN_ACCURACY
from workbench.tasks.parts import Tables
from workbench.tasks.splits import PARTS, deal, overlap
from workbench.tasks.tables import Reading

SHARES = {"calibration": 0.7, "evaluation": 0.2, "validation": 0.1}
LEAST_ROWS = 10


class PromptAnswers(LanguageModeling):
    """Answer the user's prompts. Only the answers count: what is given is never predicted.

    An answer matches exactly if every token of it, and the end of text behind it, is the model's
    likeliest next one: then greedy generation gives this very answer. An encoder-decoder's encoder
    reads the prompt, without the separator.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame, datasets.Dataset or a mapping of columns, optional
        As for :class:`~workbench.tasks.TextClassification`.
    prompt, answer : str
        Columns.
    document : str, optional
        Column that says which rows belong together: they stay in one part, and errors are
        clustered by it. Without it every row stands for itself.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source`` (70, 10 and 20 %) or,
        without a source, validation is split from calibration.
    separator : str
        Put between prompt and answer.
    sequence_length : int
        Tokens of prompt and answer together; a longer prompt loses its beginning.
    max_evaluation_examples : int or None
        Most rows that an evaluation uses, taken at random by ``seed``; None takes all.
    seed : int
        Of the split into parts.
    name : str, optional
        For tables and plots.
    encoding, delimiter, quote, header, sheet, on_bad_rows
        How files are read, see :class:`~workbench.tasks.tables.Reading`.

    Raises
    ------
    DataError
        If a file or column does not exist, prompts or answers are missing, or there are too few.

    Examples
    --------
    >>> rows = {"prompt": [f"{i} + 1 =" for i in range(50)], "answer": list(range(1, 51))}
    >>> [metric.name for metric in PromptAnswers(rows).metrics]
    ['exact_match', 'answer_perplexity', 'token_accuracy', 'kl']
    """

    kind: ClassVar[str] = "prompt_answers"
    answers_prompts: ClassVar[bool] = True

    def __init__(
        self,
        source: Any = None,
        *,
        prompt: str = "prompt",
        answer: str = "answer",
        document: str | None = None,
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        separator: str = "\n",
        sequence_length: int = 256,
        max_evaluation_examples: int | None = 1000,
        seed: int = 0,
        name: str | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        header: bool | None = None,
        sheet: str | None = None,
        on_bad_rows: str = "error",
    ) -> None:
        options = checked_options(
            type(self).__name__,
            {
                "sequence_length": sequence_length,
                "max_evaluation_examples": max_evaluation_examples,
                "seed": seed,
                "separator": separator,
            },
            least=4,
        )
        name = checked_name(type(self).__name__, name, encoding)
        if not isinstance(separator, str):
            raise ConfigError(f"separator={shown(separator)} is not accepted; give a text.")
        tables = Tables(
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            Reading(encoding, delimiter, quote, header, sheet, on_bad_rows),
        )
        pool, rows = tables.all_rows(text=prompt, label=answer, document=document)
        self._set_rows(
            _complete(rows, pool, options["seed"]),
            name or tables.name("prompts"),
            options,
        )
        self.reading = tables.described()
        texts = {part: [row.text for row in found] for part, found in self.rows.items()}
        self._warn(tables.findings() + overlap(texts))

    def _set_rows(
        self, rows: dict[str, tuple[Row, ...]], name: str, options: dict[str, Any]
    ) -> None:
        options = checked_options(type(self).__name__, options, least=4)
        Task.__init__(self, name, (EXACT_MATCH, ANSWER_PERPLEXITY, TOKEN_ACCURACY, KL), options)
        self.rows = rows

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        return f"PromptAnswers({self.name!r}: rows: {counts})"

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        """Return one example per row: what is given, the answer, and the end of text."""
        rows = list(enumerate(self.rows[part]))
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            generator = random.Random(self.options["seed"])
            rows = sorted(generator.sample(rows, most), key=lambda row: row[0])
        documents: dict[str, int] = {}
        examples = []
        for index, row in rows:
            key = row.document or f"row {index}"
            document = documents.setdefault(key, len(documents))
            tokens, n_given = self._tokens(model, row, length)
            examples.append(Example(index, document, tokens, n_given=n_given))
        return examples

    def _tokens(self, model: LoadedModel, row: Row, length: int) -> tuple[list[int], int]:
        if model.is_encoder_decoder:
            start, after = around_input(model)
            given, answer = plain_tokens(model, row.text), answer_tokens(model, row.label)
        else:
            start, after = start_token(model), []
            given = plain_tokens(model, row.text + self.options["separator"])
            end = model.tokenizer.eos_token_id
            answer = plain_tokens(model, row.label) + ([] if end is None else [int(end)])
        answer = answer[: length - len(start) - len(after) - 1]
        room = length - len(start) - len(after) - len(answer)
        given = [*start, *given[-room:], *after]
        return [*given, *answer], len(given)

    def text_lengths(self, model: LoadedModel) -> list[int]:
        """Return how many tokens prompts with answers would have if none were cut."""
        rows = some_of([row for part in PARTS for row in self.rows[part]])
        return [len(self._tokens(model, row, 2**31)[0]) for row in rows]

    def training_examples(self, model: LoadedModel) -> list[Example]:
        """Return the examples of the calibration part."""
        return self.examples(model, "calibration")

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return the calibration rows' tokens, prompt and answer, shuffled by ``seed``."""
        rows = list(self.rows["calibration"])
        random.Random(seed).shuffle(rows)
        length = min(sequence_length, model.max_length or 2**31)
        return [self._tokens(model, row, length)[0] for row in rows]

    def calibration_examples(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[Example]:
        """Return the calibration windows; for an encoder-decoder, what of them is given."""
        if not model.is_encoder_decoder:
            return super().calibration_examples(model, sequence_length=sequence_length, seed=seed)
        rows = list(self.rows["calibration"])
        random.Random(seed).shuffle(rows)
        length = min(sequence_length, model.max_length or 2**31)
        pairs = [self._tokens(model, row, length) for row in rows]
        return [Example(i, i, tokens, n_given=n) for i, (tokens, n) in enumerate(pairs)]

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        columns = super()._columns(batch, logits, dense)
        pairs = zip(columns["n_correct"], columns["n_predictions"], strict=True)
        return {**columns, "exact": [float(right == count) for right, count in pairs]}

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                yield {"part": part, **dataclasses.asdict(row)}

    def save(self, folder: Path) -> dict[str, Any]:
        """Write a snapshot of the rows and return what :meth:`load` needs."""
        return Task.save(self, folder)

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> PromptAnswers:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[Row]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            parts[row.pop("part")].append(Row(**row))
        task = cls.__new__(cls)
        rows = {part: tuple(found) for part, found in parts.items()}
        task._set_rows(rows, saved["name"], dict(saved["options"]))
        task._check_loaded(saved)
        return task


def _complete(
    given: Mapping[str, Sequence[Row]], pool: Sequence[Row], seed: int
) -> dict[str, tuple[Row, ...]]:
    """Return all three parts: those given, and the others split from the pool by document."""
    missing = {part: share for part, share in SHARES.items() if part not in given}
    if not pool and set(missing) == {"validation"}:
        pool = given["calibration"]
        given = {part: rows for part, rows in given.items() if part != "calibration"}
        missing = {part: SHARES[part] for part in ("calibration", "validation")}
    total = len(pool) + sum(map(len, given.values()))
    if total < LEAST_ROWS or (missing and len(pool) < len(missing)):
        raise DataError(
            f"{total} prompts with answers are too few; give at least {LEAST_ROWS}, and some"
            " hundred for useful results, in one table to split, or every part by name:"
            " calibration=, validation= and evaluation=."
        )
    parts = {part: tuple(rows) for part, rows in given.items()}
    if not missing:
        return {**parts, "calibration": (*parts["calibration"], *pool)}
    documents: dict[str, list[Row]] = {}
    for number, row in enumerate(pool):
        documents.setdefault(row.document or f"row {number}", []).append(row)
    grouped = list(documents.values())
    for part, chosen in deal([len(rows) for rows in grouped], missing, seed).items():
        if not chosen:
            raise DataError(
                f"{len(grouped)} documents are too few to split into {', '.join(missing)}; give"
                " more rows, or fewer rows per document."
            )
        parts[part] = tuple(row for i in chosen for row in grouped[i])
    return parts
