"""The kinds of task that can be made of the user's data, each with its form; one class per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.parts.controls import (
    SEVERAL,
    NumberField,
    check,
    dropdown,
    looks,
    text,
    text_area,
)
from workbench.app.parts.table_preview import (
    guess_fields,
    guess_label,
    guess_pair,
    guess_summary,
    guess_text,
)
from workbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


_ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16")
_DELIMITERS = (("comma", ","), ("semicolon", ";"), ("tab", "\t"), ("bar", "|"))


class Kind(ABC):
    """One kind of task.

    Attributes
    ----------
    name, title, about : str
    reads : {"", "table", "texts"}
        What data it is made of; ``""`` is none.
    widgets : list of ipywidgets.Widget
        Its own fields.
    """

    name = title = about = reads = ""

    def __init__(self) -> None:
        self.widgets: list[w.Widget] = []

    def reading(self) -> dict[str, Any]:
        """Return how its table is read, as far as that is given and not detected."""
        return {}

    def offer(self, frame: pd.DataFrame | None) -> None:
        """Offer the columns of a table, those that look right chosen; None takes them away."""
        return  # what is made of no table has no columns

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        return  # by default none must

    @abstractmethod
    def code(self, data: str) -> str:
        """Return the Python that makes the task."""

    @abstractmethod
    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task; the fields are read now, the data later."""


class Demo(Kind):
    """The bundled task."""

    name, title = "demo", "Demo"

    def code(self, data: str) -> str:
        """Return the Python that makes the task."""
        return 'task = wb.load_task("demo")'

    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task."""

        def make() -> Any:
            from workbench.tasks import load_task

            return load_task("demo")

        return make


class Texts(Kind):
    """Next tokens of the user's texts."""

    name, title, reads = "texts", "Texts", "texts"
    about = "How well the next token of your texts is predicted."

    def code(self, data: str) -> str:
        """Return the Python that makes the task."""
        return f"task = wb.LanguageModeling({data!r})"

    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task."""

        def make() -> Any:
            from workbench.tasks import LanguageModeling

            return LanguageModeling(data)

        return make


class OfTable(Kind):
    """A kind that is made of columns: keyword arguments of a class of ``workbench``."""

    reads = "table"
    makes = ""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments; those at their defaults are left out."""

    def code(self, data: str) -> str:
        """Return the Python that makes the task."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        return f"task = wb.{self.makes}({data!r}, {given})"

    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task."""
        arguments = self.arguments()

        def make() -> Any:
            from workbench import tasks

            return getattr(tasks, self.makes)(data, **arguments)

        return make


class LabelledTable(OfTable):
    """One label per text."""

    name, title, makes = "table", "Labelled table", "TextClassification"
    about = "One label per text, from a CSV, TSV, JSON lines or parquet file."

    def __init__(self) -> None:
        self.text = _column("text", "The column with the texts")
        self.label = _column("label", "The column with the labels")
        self.columns = _columns(
            "slices", "Further columns, such as a channel; Trust looks where compression hurt"
        )
        found = ("as detected", None)
        self.encoding = dropdown(
            "encoding", [found, *((name, name) for name in _ENCODINGS)],
            tooltip="How the file's bytes are characters",
        )  # fmt: skip
        self.delimiter = dropdown(
            "separator", [found, *_DELIMITERS], tooltip="What stands between two columns"
        )
        self.header = dropdown(
            "first row", [found, ("has names", True), ("is data", False)],
            tooltip="Whether the first row has the names of the columns",
        )  # fmt: skip
        self.skip = check(
            "skip rows that cannot be used",
            "Rows with an empty label or text, or a field too many; which ones is recorded",
        )
        self.readings = (self.encoding, self.delimiter, self.header)
        self.widgets = [*self.readings, self.text, self.label, self.columns, self.skip]

    def reading(self) -> dict[str, Any]:
        """Return how its table is read, as far as that is given and not detected."""
        names = ("encoding", "delimiter", "header")
        given = {name: getattr(self, name).value for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def offer(self, frame: pd.DataFrame | None) -> None:
        """Offer the columns of a table."""
        names = _names(frame)
        self.text.options = self.label.options = self.columns.options = names
        if frame is not None:
            self.text.value, self.label.value = guess_text(frame), guess_label(frame)

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if not self.text.value or not self.label.value:
            raise DataError(
                "No columns are chosen; choose which one has the text, which the label."
            )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments."""
        found: dict[str, Any] = {"text": self.text.value, "label": self.label.value}
        further = [n for n in self.columns.value if n not in (self.text.value, self.label.value)]
        found |= {"columns": further} if further else {}
        return found | self.reading() | ({"on_bad_rows": "skip"} if self.skip.value else {})


class Written(OfTable):
    """A kind whose answers are written by the model, after a prompt."""

    template, shots, max_new_tokens = "", 0, 0
    """The defaults of the task's class."""

    def __init__(self) -> None:
        self.text = _column("text", "The column with the texts")
        self.prompt = text_area(
            "prompt", self.template, tooltip="With {text} where the text stands"
        )
        self.solved = NumberField(
            "shots", self.shots, 0, 4096, whole=True,
            tooltip="Solved examples of the calibration part before each text",
        )  # fmt: skip
        self.tokens = NumberField(
            "new tokens", self.max_new_tokens, 1, 4096, whole=True,
            tooltip="The most that an answer may have",
        )  # fmt: skip

    def prompting(self) -> dict[str, Any]:
        """Return the keyword arguments of the prompt that differ from the defaults."""
        given = {
            "template": (self.prompt.value, self.template),
            "shots": (self.solved.checked(), self.shots),
            "max_new_tokens": (self.tokens.checked(), self.max_new_tokens),
        }
        return {name: value for name, (value, usual) in given.items() if value != usual}

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if "{text}" not in self.prompt.value:
            raise DataError(
                "The prompt has no {text}; write it where the text stands, such as"
                f" {self.template!r}."
            )


class ExtractionKind(Written):
    """Fields out of a text."""

    name, title, makes = "extraction", "Extraction", "Extraction"
    about = "Fields or spans that the model writes out of each text; exact match and F1."
    template, shots, max_new_tokens = "Text: {text}\nAnswer:", 3, 32

    def __init__(self) -> None:
        super().__init__()
        self.fields = _columns("fields", "The columns with what is to be written")
        self.widgets = [self.text, self.fields, self.prompt, self.solved, self.tokens]

    def offer(self, frame: pd.DataFrame | None) -> None:
        """Offer the columns of a table."""
        self.text.options = self.fields.options = _names(frame)
        if frame is not None:
            self.text.value, self.fields.value = guess_text(frame), guess_fields(frame)

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if not self.text.value or not self.fields.value:
            raise DataError(
                "No columns are chosen; choose which one has the text, and which are to be written."
            )
        if self.text.value in self.fields.value:
            raise DataError(
                f"The column {self.text.value!r} is the text, and a field too; choose other fields."
            )
        super().check()

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments."""
        fields = list(self.fields.value)
        one = fields[0] if len(fields) == 1 else fields
        return {"text": self.text.value, "fields": one, **self.prompting()}


class SummarizationKind(Written):
    """Short texts about long ones."""

    name, title, makes = "summarization", "Summaries", "Summarization"
    about = "Short texts that the model writes about your long ones; ROUGE and length."
    template, shots, max_new_tokens = "Text: {text}\nSummary:", 1, 96

    def __init__(self) -> None:
        super().__init__()
        self.summary = _column("summary", "The column with the summaries")
        self.widgets = [self.text, self.summary, self.prompt, self.solved, self.tokens]

    def offer(self, frame: pd.DataFrame | None) -> None:
        """Offer the columns of a table."""
        self.text.options = self.summary.options = _names(frame)
        if frame is not None:
            self.text.value, self.summary.value = guess_text(frame), guess_summary(frame)

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if not self.text.value or self.text.value == self.summary.value:
            raise DataError(
                "No columns are chosen; choose one that has the text, and another one that has the"
                " summary."
            )
        super().check()

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments."""
        return {"text": self.text.value, "summary": self.summary.value, **self.prompting()}


class HarnessKind(Kind):
    """A task of the lm-evaluation-harness, by its name or its file."""

    name, title = "lm_eval", "lm-eval"
    about = (
        "A task of EleutherAI's lm-evaluation-harness: its documents, prompts and metrics."
        " Needs the extra lm-eval."
    )

    def __init__(self) -> None:
        self.task = text(
            "which", placeholder="arc_easy, or tasks/mine.yaml",
            tooltip="The task's name in the harness, or the path of a task file",
        )  # fmt: skip
        self.solved = dropdown(
            "shots",
            [("the task's own number", -1), *((str(n), n) for n in (0, 1, 2, 3, 5, 10, 25))],
            tooltip="Solved examples before each document",
            most="320px",
        )
        self.calibration = text(
            "calibrate on", placeholder="corpus.txt; empty: the task's own training part",
            tooltip="A text file or a folder of them, for tasks without a training part",
        )  # fmt: skip
        self.widgets = [self.task, self.solved, self.calibration]

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if not self.task.value.strip():
            raise DataError(
                "No task was given; write its name in the harness, such as arc_easy, or the path of"
                " a task file."
            )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments; those at their defaults are left out."""
        found: dict[str, Any] = {}
        if self.solved.value >= 0:
            found["shots"] = self.solved.value
        if self.calibration.value.strip():
            found["calibration"] = self.calibration.value.strip()
        return found

    def code(self, data: str) -> str:
        """Return the Python that makes the task."""
        given = "".join(f", {name}={value!r}" for name, value in self.arguments().items())
        return f"task = wb.HarnessTask({self.task.value.strip()!r}{given})"

    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task."""
        which, arguments = self.task.value.strip(), self.arguments()

        def make() -> Any:
            from workbench.tasks import HarnessTask

            return HarnessTask(which, **arguments)

        return make


class SimilarPairs(OfTable):
    """Two texts and how alike they are."""

    name, title, makes = "similarity", "Similar pairs", "SentenceSimilarity"
    about = "How alike two texts are, by their vectors; rank correlation with your scores."

    def __init__(self) -> None:
        self.text = _column("text", "The column with the first texts")
        self.other = _column("other text", "The column with the second texts")
        self.score = _column("score", "The column of numbers, larger for what is more alike")
        self.skip = check(
            "skip rows that cannot be used", "Rows without a text or a number; which is recorded"
        )
        self.widgets = [self.text, self.other, self.score, self.skip]

    def offer(self, frame: pd.DataFrame | None) -> None:
        """Offer the columns of a table."""
        self.text.options = self.other.options = self.score.options = _names(frame)
        if frame is not None:
            self.text.value, self.other.value, self.score.value = guess_pair(frame)

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        chosen = [self.text.value, self.other.value, self.score.value]
        if not all(chosen) or len(set(chosen)) < len(chosen):
            raise DataError(
                "A pair needs three columns; choose one for each text, and one for the score."
            )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments."""
        found = {"text": self.text.value, "other": self.other.value, "score": self.score.value}
        return found | ({"on_bad_rows": "skip"} if self.skip.value else {})


class SearchKind(Kind):
    """A search in the form of BEIR."""

    name, title = "search", "Search"
    about = (
        "Which documents answer a query, by their vectors; nDCG@10. A folder in the form of BEIR:"
        " corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )

    def __init__(self) -> None:
        self.folder = text(
            "folder", placeholder="data/my-search",
            tooltip="The folder with corpus.jsonl, queries.jsonl and qrels",
        )  # fmt: skip
        self.widgets = [self.folder]

    def check(self) -> None:
        """Raise DataError if a field lacks that must be filled."""
        if not self.folder.value.strip():
            raise DataError("No folder was given; write the path of one in the form of BEIR.")

    def code(self, data: str) -> str:
        """Return the Python that makes the task."""
        return f"task = wb.Retrieval.from_folder({self.folder.value.strip()!r})"

    def maker(self, data: Path | None) -> Callable[[], Any]:
        """Return what makes the task."""
        folder = self.folder.value.strip()

        def make() -> Any:
            from workbench.tasks import Retrieval

            return Retrieval.from_folder(folder)

        return make


KINDS: tuple[type[Kind], ...] = (
    Demo, LabelledTable, Texts, ExtractionKind, SummarizationKind, SimilarPairs, SearchKind,
    HarnessKind,
)  # fmt: skip
"""In the order of their buttons. A further kind is a class here, and its name in this tuple."""


def _names(frame: pd.DataFrame | None) -> list[str]:
    return [] if frame is None else [str(name) for name in frame.columns]


def _column(name: str, tooltip: str) -> w.Dropdown:
    return dropdown(name, tooltip=tooltip)


def _columns(name: str, tooltip: str) -> w.SelectMultiple:
    return w.SelectMultiple(description=name, rows=4, **looks(tooltip=f"{tooltip}; {SEVERAL}"))
