"""A workbench for making language models smaller.

>>> import workbench as wb
>>> wb.GPTQ(4).label
'GPTQ 4-bit g128'

Everything below is loaded when it is first used, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.app import Workbench as Workbench
    from workbench.calibration.calibrate import CalibrationOptions as CalibrationOptions
    from workbench.errors import CancelledError as CancelledError
    from workbench.errors import ConfigError as ConfigError
    from workbench.errors import DataError as DataError
    from workbench.errors import ExportError as ExportError
    from workbench.errors import StudyError as StudyError
    from workbench.errors import WorkbenchError as WorkbenchError
    from workbench.export import Exported as Exported
    from workbench.export import ExportOffer as ExportOffer
    from workbench.export.convert import convert as convert
    from workbench.models.load import LoadedModel as LoadedModel
    from workbench.models.load import load_model as load_model
    from workbench.models.load import save_model as save_model
    from workbench.prediction.predict import Prediction as Prediction
    from workbench.progress import Progress as Progress
    from workbench.recipes import AWQ as AWQ
    from workbench.recipes import GPTQ as GPTQ
    from workbench.recipes import RTN as RTN
    from workbench.recipes import Cast as Cast
    from workbench.recipes import DepthPruning as DepthPruning
    from workbench.recipes import Distillation as Distillation
    from workbench.recipes import FineTuning as FineTuning
    from workbench.recipes import LowRankCorrection as LowRankCorrection
    from workbench.recipes import MagnitudePruning as MagnitudePruning
    from workbench.recipes import Mixed as Mixed
    from workbench.recipes import QuantizeEmbeddings as QuantizeEmbeddings
    from workbench.recipes import SparseGPT as SparseGPT
    from workbench.recipes import Wanda as Wanda
    from workbench.recipes import WidthPruning as WidthPruning
    from workbench.recipes.recipe import Recipe as Recipe
    from workbench.records import Measurement as Measurement
    from workbench.records import Metric as Metric
    from workbench.records import RunRecord as RunRecord
    from workbench.records import RunState as RunState
    from workbench.selection.cascades import Router as Router
    from workbench.selection.cost import CostModel as CostModel
    from workbench.selection.planning import Device as Device
    from workbench.selection.requirements import Requirements as Requirements
    from workbench.study import Choice as Choice
    from workbench.study import Decision as Decision
    from workbench.study import Run as Run
    from workbench.study import Study as Study
    from workbench.study.curating import studies as studies
    from workbench.tasks import DataCheck as DataCheck
    from workbench.tasks import Extraction as Extraction
    from workbench.tasks import HarnessTask as HarnessTask
    from workbench.tasks import LanguageModeling as LanguageModeling
    from workbench.tasks import PromptAnswers as PromptAnswers
    from workbench.tasks import Retrieval as Retrieval
    from workbench.tasks import SentenceSimilarity as SentenceSimilarity
    from workbench.tasks import Summarization as Summarization
    from workbench.tasks import Task as Task
    from workbench.tasks import TextClassification as TextClassification
    from workbench.tasks import data_check as data_check
    from workbench.tasks import load_task as load_task
    from workbench.training.gradual import gradual_pruning as gradual_pruning
    from workbench.views.plan import Plan as Plan
    from workbench.views.plan import plan as plan

_HOMES = {
    "calibration.calibrate": ("CalibrationOptions",),
    "selection.cost": ("CostModel",),
    "errors": (
        "CancelledError",
        "ConfigError",
        "DataError",
        "ExportError",
        "StudyError",
        "WorkbenchError",
    ),
    "export": ("ExportOffer", "Exported"),
    "export.convert": ("convert",),
    "models.load": ("LoadedModel", "load_model", "save_model"),
    "selection.planning": ("Device",),
    "prediction.predict": ("Prediction",),
    "progress": ("Progress",),
    "recipes.recipe": ("Recipe",),
    "records": ("Measurement", "Metric", "RunRecord", "RunState"),
    "selection.requirements": ("Requirements",),
    "selection.cascades": ("Router",),
    "recipes": (
        "AWQ",
        "GPTQ",
        "RTN",
        "Cast",
        "DepthPruning",
        "Distillation",
        "FineTuning",
        "LowRankCorrection",
        "MagnitudePruning",
        "Mixed",
        "QuantizeEmbeddings",
        "SparseGPT",
        "Wanda",
        "WidthPruning",
    ),
    "study": ("Choice", "Decision", "Run", "Study"),
    "study.curating": ("studies",),
    "tasks": (
        "DataCheck",
        "Extraction",
        "HarnessTask",
        "LanguageModeling",
        "PromptAnswers",
        "Retrieval",
        "SentenceSimilarity",
        "Summarization",
        "Task",
        "TextClassification",
        "data_check",
        "load_task",
    ),
    "training.gradual": ("gradual_pruning",),
    "views.plan": ("Plan", "plan"),
    "app": ("Workbench",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


if not TYPE_CHECKING:  # a type checker would believe in every name otherwise

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            import difflib

            close = [] if name.startswith("_") else difflib.get_close_matches(name, _HOME_OF, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)


def load_ipython_extension(shell: object) -> None:
    """Add ``%workbench`` to an IPython shell; ``%load_ext workbench`` calls this."""
    from workbench.app.magics import load_ipython_extension as load

    load(shell)
