"""Summarization: short texts that a model writes about the user's long ones."""

from __future__ import annotations

from typing import Any, ClassVar

from workbench.records import Metric
from workbench.tasks.generation import Generation, Pair, one_line
from workbench.tasks.metrics import KL, LENGTH_ERROR, ROUGE_1, ROUGE_2, ROUGE_L
from workbench.tasks.parts import Tables
from workbench.tasks.rouge import rouge_l, rouge_n
from workbench.tasks.tables import Reading


class Summarization(Generation):
    """Write a summary of the user's texts; judged by ROUGE, and by its length.

    ``rouge_l``, ``rouge_1`` and ``rouge_2`` are F1 of words in lower case, not stemmed;
    ``length_error`` is the mean of |1 − ratio|, of the answer's number of words to the reference's;
    the ratio of every example is in the outcomes (``length_ratio``).

    Parameters
    ----------
    source : str, Path, pandas.DataFrame, datasets.Dataset or a mapping of columns, optional
        As for :class:`TextClassification`.
    text, summary : str
        Columns.
    document : str, optional
        Column that says which rows belong together.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source``.
    template, shots, sequence_length, max_new_tokens, max_evaluation_examples, seed, name
        As for :class:`Extraction`.
    punctuation : bool
        Whether punctuation counts as words do, see :func:`~workbench.tasks.rouge.words_of`.
    encoding, delimiter, quote, header, sheet, on_bad_rows
        How files are read, see :class:`~workbench.tasks.tables.Reading`.

    Raises
    ------
    DataError
        If a file or column does not exist, a text or summary is empty, or there are too few rows.
    ConfigError
        If an option has no meaning.
    """

    kind: ClassVar[str] = "summarization"

    def __init__(
        self,
        source: Any = None,
        *,
        text: str = "text",
        summary: str = "summary",
        document: str | None = None,
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        template: str = "Text: {text}\nSummary:",
        shots: int = 1,
        sequence_length: int = 1024,
        max_new_tokens: int = 96,
        max_evaluation_examples: int | None = 500,
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
        tables = Tables(
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            Reading(encoding, delimiter, quote, header, sheet, on_bad_rows),
        )
        self._build(
            tables,
            {"text": text, "label": summary, "document": document},
            lambda row: Pair(one_line(row.text), one_line(row.label), row.document),
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
        return (ROUGE_L, ROUGE_1, ROUGE_2, LENGTH_ERROR, KL)

    def scores(self, answer: str, target: str) -> dict[str, float]:
        """Return ROUGE-L, -1 and -2, and the ratio of the lengths."""
        mine, theirs = self.words(answer), self.words(target)
        alike = 1.0 if self.options.get("words", 1) < 2 else 0.0  # older studies keep theirs
        return {
            "rouge_l": rouge_l(mine, theirs, alike),
            "rouge_1": rouge_n(mine, theirs, 1, alike),
            "rouge_2": rouge_n(mine, theirs, 2, alike),
            "length_ratio": len(mine) / max(1, len(theirs)),
        }
