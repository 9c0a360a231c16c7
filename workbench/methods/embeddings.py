"""Quantize what lies outside of the blocks: token embeddings and output head, by row."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from workbench.errors import CompressionError
from workbench.methods.base import ModelContext, ModelMethod, ModelResult
from workbench.models.finite import check_weight
from workbench.models.load import LoadedModel
from workbench.models.loaded import tensor_identity
from workbench.recipes import QuantizeEmbeddings, Step
from workbench.tensors.weights import rounded


class EmbeddingQuantizer(ModelMethod):
    """Round to nearest, one scale per token: the usual treatment of embeddings (as in GGUF).

    Position tables stay dense, as does a classification head: both are small.
    """

    step: ClassVar[type[Step]] = QuantizeEmbeddings

    def apply(self, model: LoadedModel, context: ModelContext, config: Step) -> ModelResult:
        assert isinstance(config, QuantizeEmbeddings)
        result = model.copy()
        tables = find_tables(result.hf_model)
        if not tables:
            raise CompressionError(
                f"{model.source.name} ({type(model.hf_model).__name__}) has no token embeddings"
                " with a weight of two dimensions; leave QuantizeEmbeddings out for this model."
            )
        facts: dict[str, Any] = {}
        for index, (name, table) in enumerate(tables.items()):
            assert isinstance(table.weight, Tensor)
            weight = table.weight.detach().float()
            check_weight(name, weight)
            packed = rounded(weight, config.stored_as(weight.shape[1]))
            result.set_weight(name, packed)
            facts[name] = {"bits": packed.scheme.bits, "shape": list(packed.shape)}
            context.monitor.report("embeddings", index + 1, len(tables), name)
        return ModelResult(result, {"embeddings": facts})


def find_tables(hf_model: nn.Module) -> dict[str, nn.Module]:
    """Return the token embeddings and the output head by name; once where they are tied."""
    names = {id(module): name for name, module in hf_model.named_modules()}
    tables: dict[str, nn.Module] = {}
    seen = set()
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(hf_model, getter, lambda: None)()
        if not isinstance(module, nn.Module) or id(module) not in names:
            continue
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            continue
        if tensor_identity(weight) not in seen:
            seen.add(tensor_identity(weight))
            tables[names[id(module)]] = module
    return tables
