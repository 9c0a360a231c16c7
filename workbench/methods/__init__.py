"""One method per file, and the table that finds a step's method by the step's type.

A method names its step itself, so the table is made of all the files of this folder.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from workbench.methods.base import (
    GroupWeights,
    LayerMethod,
    ModelContext,
    ModelMethod,
    ModelResult,
)
from workbench.methods.mixed import MixedSolver
from workbench.recipes import Mixed, Step

LAYER_METHODS: dict[type[Step], LayerMethod] = {}
MODEL_METHODS: dict[type[Step], ModelMethod] = {}

for _file in pkgutil.iter_modules(__path__):
    for _found in vars(import_module(f"{__name__}.{_file.name}")).values():
        if isinstance(_found, type) and "step" in vars(_found):
            if issubclass(_found, LayerMethod):
                LAYER_METHODS[_found.step] = _found()
            elif issubclass(_found, ModelMethod):
                MODEL_METHODS[_found.step] = _found()

LAYER_METHODS[Mixed] = MixedSolver(LAYER_METHODS)
METHODS: dict[type[Step], LayerMethod | ModelMethod] = {**LAYER_METHODS, **MODEL_METHODS}

__all__ = [
    "LAYER_METHODS",
    "METHODS",
    "MODEL_METHODS",
    "GroupWeights",
    "LayerMethod",
    "ModelContext",
    "ModelMethod",
    "ModelResult",
]
