"""What "accuracy" means: one kind of task per file, their data, metrics and outcomes.

The kinds are loaded when they are first used, so that reading outcomes needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.tasks.base import Batch as Batch
    from workbench.tasks.base import Example as Example
    from workbench.tasks.base import Task as Task
    from workbench.tasks.checking import DataCheck as DataCheck
    from workbench.tasks.checking import data_check as data_check
    from workbench.tasks.extraction import Extraction as Extraction
    from workbench.tasks.harness import HarnessTask as HarnessTask
    from workbench.tasks.language_modeling import LanguageModeling as LanguageModeling
    from workbench.tasks.prompt_answers import PromptAnswers as PromptAnswers
    from workbench.tasks.registry import TASKS as TASKS
    from workbench.tasks.registry import load_task as load_task
    from workbench.tasks.registry import task_from_dict as task_from_dict
    from workbench.tasks.retrieval import Retrieval as Retrieval
    from workbench.tasks.sentence_similarity import SentenceSimilarity as SentenceSimilarity
    from workbench.tasks.summarization import Summarization as Summarization
    from workbench.tasks.text_classification import TextClassification as TextClassification

_HOMES = {
    "base": ("Batch", "Example", "Task"),
    "checking": ("DataCheck", "data_check"),
    "extraction": ("Extraction",),
    "harness": ("HarnessTask",),
    "language_modeling": ("LanguageModeling",),
    "prompt_answers": ("PromptAnswers",),
    "registry": ("TASKS", "load_task", "task_from_dict"),
    "retrieval": ("Retrieval",),
    "sentence_similarity": ("SentenceSimilarity",),
    "summarization": ("Summarization",),
    "text_classification": ("TextClassification",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
