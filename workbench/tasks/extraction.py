"""Extraction: fields or spans that a model writes out of the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.records import Metric
from workbench.tasks.generation import Generation, Pair, one_line
from workbench.tasks.metrics import EXACT_MATCH, F1, KL
from workbench.tasks.parts import Tables
from workbench.tasks.rouge import token_f1
from workbench.tasks.tables import Reading


class Extraction(Generation):
    """Write fields of the user's texts; judged by exact match and by the F1 of their words.

    With one field the answer is its value; with several it is ``name: Ada | amount: 12``. A value
    that is missing in the table is an empty one. Case, punctuation and spaces do not count.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame, datasets.Dataset or a mapping of columns, optional
        As for :class:`TextClassification`.
    text : str
        Column of the texts.
    fields : str or sequence of str
        Columns of what is to be extracted.
    document : str, optional
        Column that says which rows belong together.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source``.
    template : str
        The prompt, with ``{text}`` in it.
    shots : int
        So many solved examples of the calibration part stand before each text.
    sequence_length : int
        Most tokens of prompt and answer.
    max_new_tokens : int
        Most tokens of an answer.
    max_evaluation_examples : int or None
        Most rows that an evaluation uses, taken at random by ``seed``.
    seed : int
        Of the split into parts and of the choice of shots.
    name : str, optional
    punctuation : bool
        Whether punctuation counts as words do, see :func:`~workbench.tasks.rouge.words_of`.
    encoding, delimiter, quote, header, sheet, on_bad_rows
        How files are read, see :class:`~workbench.tasks.tables.Reading`.

    Raises
    ------
    DataError
        If a file or column does not exist, or there are too few rows.
    ConfigError
        If an option has no meaning.
    """

    kind: ClassVar[str] = "extraction"

    def __init__(
        self,
        source: Any = None,
        *,
        text: str = "text",
        fields: str | Sequence[str] = "answer",
        document: str | None = None,
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        template: str = "Text: {text}\nAnswer:",
        shots: int = 3,
        sequence_length: int = 512,
        max_new_tokens: int = 32,
        max_evaluation_examples: int | None = 1000,
        seed: int = 0,
        name: str | None = None,
        punctuation: bool = False,
        encoding: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        header: bool | None = None,
        sheet: str | None = None,
        on_bad_rows: str = "error",
    ) -> None:
        names = [fields] if isinstance(fields, str) else list(fields)
        if not names:
            raise ConfigError("fields is empty; name at least one column to extract.")

        tables = Tables(
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            Reading(encoding, delimiter, quote, header, sheet, on_bad_rows),
        )
        self._build(
            tables,
            {"text": text, "label": text, "document": document, "more": names},
            lambda row: Pair(one_line(row.text), _target(row.more), row.document),
            name,
            {
                "sequence_length": sequence_length,
                "max_new_tokens": max_new_tokens,
                "max_evaluation_examples": max_evaluation_examples,
                "template": template,
                "shots": shots,
                "seed": seed,
                **({"punctuation": True} if punctuation else {}),
            },
        )

    def _metrics(self) -> tuple[Metric, ...]:
        return (EXACT_MATCH, F1, KL)

    def scores(self, answer: str, target: str) -> dict[str, float]:
        """Return exact match and the F1 of words, averaged over fields where there are several."""
        wanted = _fields(target) if " | " in target else {"": target}
        found = {"": answer} if "" in wanted else _fields(answer)
        pairs = [(value, found.get(name, "")) for name, value in wanted.items()]
        f1 = [token_f1(self.words(said), self.words(value)) for value, said in pairs]
        exact = all(self._same(said, value) for value, said in pairs)
        return {"exact_match": float(exact), "f1": sum(f1) / len(f1)}

    def _same(self, answer: str, target: str) -> bool:
        mine, theirs = self.words(answer), self.words(target)
        if not mine and not theirs and self.options.get("words", 1) >= 2:
            return answer.strip() == target.strip()  # of marks alone
        return mine == theirs


def _target(fields: Sequence[tuple[str, str]]) -> str:
    values = [(name, _clean(value)) for name, value in fields]
    if len(values) == 1:
        return values[0][1]
    return " | ".join(f"{name}: {value}" for name, value in values)


def _clean(value: str) -> str:
    return one_line(value).replace("|", "/")


def _fields(text: str) -> dict[str, str]:
    """Return the values of ``name: value | name: value``; there may be fewer than asked for."""
    pieces = (piece.partition(":") for piece in text.split("|"))
    return {name.strip(): value.strip() for name, _, value in pieces}
