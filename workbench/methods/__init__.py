"""One solver per file, and the table that finds it by the type of a step's configuration."""

from __future__ import annotations

from workbench.methods.awq import AWQSolver
from workbench.methods.base import GroupWeights, LayerMethod
from workbench.methods.gptq import GPTQSolver
from workbench.methods.magnitude import MagnitudePruner
from workbench.methods.rtn import RoundToNearest
from workbench.steps import AWQ, GPTQ, RTN, MagnitudePruning, Step

LAYER_METHODS: dict[type[Step], LayerMethod] = {
    RTN: RoundToNearest(),
    GPTQ: GPTQSolver(),
    AWQ: AWQSolver(),
    MagnitudePruning: MagnitudePruner(),
}

__all__ = ["LAYER_METHODS", "GroupWeights", "LayerMethod"]
