"""The frozen configuration of every step of a recipe, one kind of step per file.

A configuration is data: the solver is found by its type (``workbench.methods``), the widget's
form and the terminal's options are generated from its fields' metadata.
"""

from __future__ import annotations

from workbench.recipes.additions import Cast, LowRankCorrection, QuantizeEmbeddings
from workbench.recipes.base import FieldInfo, Step, fields_of, option
from workbench.recipes.options import OWN_BACKEND
from workbench.recipes.pruning import MagnitudePruning, Pruning, SparseGPT, Wanda
from workbench.recipes.quantization import AWQ, GPTQ, RTN, Quantization
from workbench.recipes.structure import DepthPruning, WidthPruning
from workbench.recipes.table import STEPS, Mixed, step_from_dict
from workbench.recipes.training import Distillation, FineTuning, Training

__all__ = [
    "AWQ",
    "GPTQ",
    "OWN_BACKEND",
    "RTN",
    "STEPS",
    "Cast",
    "DepthPruning",
    "Distillation",
    "FieldInfo",
    "FineTuning",
    "LowRankCorrection",
    "MagnitudePruning",
    "Mixed",
    "Pruning",
    "Quantization",
    "QuantizeEmbeddings",
    "SparseGPT",
    "Step",
    "Training",
    "Wanda",
    "WidthPruning",
    "fields_of",
    "option",
    "step_from_dict",
]
