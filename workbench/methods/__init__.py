"""One method per file, and the table that finds a step's method by the step's type."""

from __future__ import annotations

from workbench.methods.awq import AWQSolver
from workbench.methods.base import (
    GroupWeights,
    LayerMethod,
    ModelContext,
    ModelMethod,
    ModelResult,
)
from workbench.methods.cast import Caster
from workbench.methods.depth import DepthPruner
from workbench.methods.distill import Distiller
from workbench.methods.embeddings import EmbeddingQuantizer
from workbench.methods.finetune import FineTuner
from workbench.methods.gptq import GPTQSolver
from workbench.methods.lowrank import LowRankCorrector
from workbench.methods.magnitude import MagnitudePruner
from workbench.methods.mixed import MixedSolver
from workbench.methods.rtn import RoundToNearest
from workbench.methods.sparsegpt import SparseGPTSolver
from workbench.methods.wanda import WandaPruner
from workbench.methods.width import WidthPruner
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    Cast,
    DepthPruning,
    Distillation,
    FineTuning,
    LowRankCorrection,
    MagnitudePruning,
    Mixed,
    QuantizeEmbeddings,
    SparseGPT,
    Step,
    Wanda,
    WidthPruning,
)

LAYER_METHODS: dict[type[Step], LayerMethod] = {
    RTN: RoundToNearest(),
    GPTQ: GPTQSolver(),
    AWQ: AWQSolver(),
    MagnitudePruning: MagnitudePruner(),
    Wanda: WandaPruner(),
    SparseGPT: SparseGPTSolver(),
    LowRankCorrection: LowRankCorrector(),
}
LAYER_METHODS[Mixed] = MixedSolver(LAYER_METHODS)
MODEL_METHODS: dict[type[Step], ModelMethod] = {
    QuantizeEmbeddings: EmbeddingQuantizer(),
    DepthPruning: DepthPruner(),
    WidthPruning: WidthPruner(),
    FineTuning: FineTuner(),
    Distillation: Distiller(),
    Cast: Caster(),
}
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
