"""Summarization: short texts that a model writes about the user's long ones."""

from __future__ import annotations

from typing import Any, ClassVar

from workbench.records import Metric
from workbench.tasks.data import read_rows
from workbench.tasks.generation import Generation, Pair, one_line
from workbench.tasks.metrics import KL, LENGTH_ERROR, ROUGE_1, ROUGE_2, ROUGE_L
from workbench.tasks.rouge import rouge_l, rouge_n, words_of


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
    template, shots, sequence_length, max_new_tokens, max_evaluation_examples, seed, name, encoding
        As for :class:`Extraction`.

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
        encoding: str = "utf-8",
    ) -> None:
        def read(table: Any) -> list[Pair]:
            rows = read_rows(table, text=text, label=summary, document=document, encoding=encoding)
            return [Pair(one_line(r.text), one_line(r.label), r.document) for r in rows]

        self._build(
            read,
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            name,
            {
                "sequence_length": sequence_length,
                "max_new_tokens": max_new_tokens,
                "max_evaluation_examples": max_evaluation_examples,
                "template": template,
                "shots": shots,
                "seed": seed,
            },
        )

    def _metrics(self) -> tuple[Metric, ...]:
        return (ROUGE_L, ROUGE_1, ROUGE_2, LENGTH_ERROR, KL)

    def scores(self, answer: str, target: str) -> dict[str, float]:
        """Return ROUGE-L, -1 and -2, and the ratio of the lengths."""
        return {
            "rouge_l": rouge_l(answer, target),
            "rouge_1": rouge_n(answer, target, 1),
            "rouge_2": rouge_n(answer, target, 2),
            "length_ratio": len(words_of(answer)) / max(1, len(words_of(target))),
        }
