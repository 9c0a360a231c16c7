"""Every kind of task, and how one is found by name, by file or in a saved study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.models.load import LoadedModel
from workbench.tasks.base import Batch, Example, Task
from workbench.tasks.data import column_call, is_table
from workbench.tasks.extraction import Extraction
from workbench.tasks.harness import PREFIX, TASK_FILES, HarnessTask
from workbench.tasks.language_modeling import LanguageModeling
from workbench.tasks.paths import existing_path, table_suffix
from workbench.tasks.prompt_answers import PromptAnswers
from workbench.tasks.retrieval import Retrieval, is_retrieval_folder
from workbench.tasks.sentence_similarity import SentenceSimilarity
from workbench.tasks.summarization import Summarization
from workbench.tasks.text_classification import TextClassification

__all__ = [
    "TASKS",
    "Batch",
    "Example",
    "Extraction",
    "HarnessTask",
    "LanguageModeling",
    "PromptAnswers",
    "Retrieval",
    "SentenceSimilarity",
    "Summarization",
    "Task",
    "TextClassification",
    "load_task",
    "task_from_dict",
]

TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (
        LanguageModeling,
        TextClassification,
        PromptAnswers,
        Extraction,
        Summarization,
        HarnessTask,
        SentenceSimilarity,
        Retrieval,
    )
}
"""Every kind of task by the name that saved studies use."""


def load_task(ref: Any) -> Task:
    """Return a task by name or from a text file.

    Parameters
    ----------
    ref : str, Path or Task
        ``"demo"`` is language modelling on modules of Python's standard library that the bundled
        model never saw; it needs no download. ``"stdlib-topics"`` is classification: which of seven
        areas of that library a docstring belongs to. The path of a text file, or of a folder of
        them, is language modelling on it; a folder in the form of BEIR is retrieval.
        ``"lm-eval:NAME"``, or the path of a task file (.yaml), is a task of the
        lm-evaluation-harness. A task is returned as it is.

    Raises
    ------
    DataError
        If there is no such task, or it is a table, a model or another object.
    """
    if isinstance(ref, Task):
        return ref
    if not isinstance(ref, (str, Path)):
        raise DataError(_not_a_task(ref))
    if ref == "demo":
        from workbench.demo.tasks import DEMO_OPTIONS, demo_documents

        return LanguageModeling.from_documents(demo_documents(), name="demo", **DEMO_OPTIONS)
    if ref == "stdlib-topics":
        from workbench.demo.topics import topic_rows

        rows = topic_rows()
        return TextClassification(
            calibration=rows["calibration"],
            validation=rows["validation"],
            evaluation=rows["evaluation"],
            document="document",
            sequence_length=64,
            name="stdlib-topics",
        )
    if str(ref).startswith(PREFIX) or str(ref).lower().endswith(TASK_FILES):
        return HarnessTask(ref)
    if table_suffix(ref) is not None:
        raise DataError(
            f"{str(ref)!r} is a table: say which columns to use, as in"
            f' TextClassification({str(ref)!r}, text="question", label="intent").'
        )
    path = existing_path(ref)
    if path is None:
        raise DataError(
            f'There is no task {str(ref)[:80]!r}; give "demo", "stdlib-topics" or the path of a'
            " text file, or make a task with LanguageModeling(…) or TextClassification(…)."
        )
    if is_retrieval_folder(path):
        return Retrieval.from_folder(path)
    return LanguageModeling(ref)


def _not_a_task(given: Any) -> str:
    kind = type(given).__name__
    if isinstance(given, LoadedModel):
        return (
            f"A {kind} is a model, not a task; give the model first and the task second, as in"
            " Study(model, task)."
        )
    if is_table(given):
        return (
            f"A {kind} is a table: say which columns to use, as in TextClassification(data,"
            f' text="question", label="intent"), or LanguageModeling({column_call(given)}).'
        )
    what = "None" if given is None else f"A {kind}"
    return (
        f'{what} is not a task; give "demo" or the path of a text file, or make a task with'
        " LanguageModeling(…) or TextClassification(…)."
    )


def task_from_dict(saved: dict[str, Any], folder: Path) -> Task:
    """Return the task that ``task.save(folder)`` wrote.

    Raises
    ------
    DataError
        If the kind is unknown or the snapshot cannot be read.
    """
    kind = saved.get("kind")
    if kind not in TASKS:
        raise DataError(
            f"The saved task is of kind {kind!r}; this version knows {', '.join(TASKS)}. Upgrade"
            " compression-workbench to open it."
        )
    return TASKS[kind].load(saved, folder)
