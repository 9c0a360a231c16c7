"""The ONNX graph of a model: torch traces it, compressed layers are onnxruntime's own operators."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.errors import ExportError
from workbench.models.architectures import quiet
from workbench.models.loaded import ClassificationHead, LoadedModel, tensor_identity
from workbench.models.weight_access import find_site
from workbench.tensors.packing import onnx as packing
from workbench.tensors.weights import QuantizedWeight

ONE_FILE = 1_900_000_000
"""Bytes up to which weights are in the file of the graph: a protobuf has at most 2 GiB."""

_LAYERS = "workbench.layers"
"""Of the graph's metadata: layer and bits of the codes, by what the graph calls them."""

_BATCH, _LENGTH, _PAST = 2, 7, 5  # none is one or zero, which torch would take for fixed

_ACCURACY = 1
"""Products in float32: inputs rounded to 8 bits (4) would not be what was measured."""


def write_graph(model: LoadedModel, codes: Mapping[str, QuantizedWeight], path: Path) -> None:
    """Trace a model and write its graph.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    codes : mapping of str to QuantizedWeight
        The layers that are stored as codes.
    path : Path
        The file; of a large model ``path`` with ``_data`` after its name has the weights.

    Raises
    ------
    ExportError
        If torch cannot trace the model.
    """
    import onnx_ir
    from onnx_ir.passes import common

    traced = _traced(model, _with_operators(model, codes)).eval()
    examples = traced.examples()
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                traced,
                ([tensor for tensor, _ in examples],),
                dynamo=True,
                dynamic_shapes=([free for _, free in examples],),
                input_names=traced.inputs,
                output_names=traced.outputs,
                optimize=False,  # which renames weights; onnxruntime optimizes when it loads
                verbose=False,
            )
    except Exception as error:  # the tracer raises whatever the model's code makes it raise
        said = str(error).strip().splitlines()
        raise ExportError(
            f"torch cannot trace {type(model.hf_model).__name__} for ONNX"
            f" ({type(error).__name__}: {said[-1] if said else ''}). Export it in another format."
        ) from error
    graph = program.model
    common.ClearMetadataAndDocStringPass()(graph)
    common.RemoveUnusedNodesPass()(graph)
    _join_tied(graph.graph)
    _store_weights(graph, traced, model)
    layers = {}
    for name in graph.graph.initializers:
        module, _, part = name.rpartition(".")
        if part == "codes":
            layer: Any = traced.get_submodule(module)
            layers[module] = [layer.layer, layer.bits]
    graph.metadata_props[_LAYERS] = json.dumps(layers)
    external = None
    if sum(v.const_value.nbytes for v in graph.graph.initializers.values()) > ONE_FILE:
        external = f"{path.name}_data"
    onnx_ir.save(graph, path, external_data=external)


def gives_features(model: LoadedModel) -> bool:
    """Return whether a graph gives hidden states, as a model does that has no head at all."""
    hf_model: Any = model.hf_model
    scores = getattr(hf_model, "get_output_embeddings", lambda: None)() is not None
    return not (scores or classifies(model))


def classifies(model: LoadedModel) -> bool:
    """Return whether a model's answer is a class, by the workbench's head or its own."""
    kind = type(model.hf_model).__name__
    return model.head is not None or kind.endswith("ForSequenceClassification")


def read_codes(path: Path) -> dict[str, QuantizedWeight]:
    """Return the codes in a file that :func:`write_graph` wrote, by the names of the layers."""
    import onnx_ir

    graph: Any = onnx_ir.load(path)
    layers = json.loads(graph.metadata_props[_LAYERS])
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, value in graph.graph.initializers.items():
        module, _, part = name.rpartition(".")
        if module in layers:
            stored = value.const_value.numpy()
            tensors.setdefault(module, {})[part] = torch.from_numpy(stored.copy())
    found = ((layers[module], parts) for module, parts in tensors.items())
    return {name: packing.unpack(parts, bits) for (name, bits), parts in found}


def stored_bytes(path: Path) -> int:
    """Return the bytes of all weights in a file that :func:`write_graph` wrote."""
    import onnx_ir

    graph: Any = onnx_ir.load(path)
    return sum(int(value.const_value.nbytes) for value in graph.graph.initializers.values())


class _Coded(nn.Module):
    """A linear layer whose weight is codes."""

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: str, weight: QuantizedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        for name, tensor in packing.pack(weight).items():
            self.register_buffer(name, tensor.float() if name == "scales" else tensor)
        self.layer, self.bits, self.shape = layer, weight.scheme.bits, weight.shape
        self.bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        rows, columns = self.shape
        given = [inputs, self.codes, self.scales]
        if hasattr(self, "zeros"):
            given.append(cast(Tensor, self.zeros))
        attributes = {
            "K": columns,
            "N": rows,
            "bits": self.bits,
            "block_size": columns // int(self.codes.shape[1]),
            "accuracy_level": _ACCURACY,
        }
        shape = (*inputs.shape[:-1], rows)
        found = _operator("MatMulNBits", given, attributes, inputs.dtype, shape)
        return found if self.bias is None else found + self.bias


class _CodedEmbedding(nn.Module):
    """A table of embeddings whose rows are codes; shares its tensors with a tied output layer."""

    def __init__(self, table: _Coded) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        table = self.table
        rows, columns = table.shape
        given = [table.codes.reshape(rows, -1), ids, table.scales]
        if hasattr(table, "zeros"):
            given.append(cast(Tensor, table.zeros))
        attributes = {
            "bits": table.bits,
            "block_size": columns // int(table.codes.shape[1]),
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        shape = (*ids.shape, columns)
        return _operator("GatherBlockQuantized", given, attributes, table.scales.dtype, shape)


def _operator(
    name: str,
    inputs: list[Tensor],
    attributes: dict[str, Any],
    dtype: torch.dtype,
    shape: tuple[Any, ...],
) -> Tensor:
    found: Tensor = torch.onnx.ops.symbolic(
        f"com.microsoft::{name}", inputs, attributes, dtype=dtype, shape=shape, version=1
    )
    return found


def _with_operators(model: LoadedModel, codes: Mapping[str, QuantizedWeight]) -> nn.Module:
    """Return a copy in float32 that shares what it can, with operators in place of layers."""
    memo: dict[int, Any] = {}
    for tensor in (*model.hf_model.parameters(), *model.hf_model.buffers()):
        wide = (tensor.float() if tensor.is_floating_point() else tensor).cpu()
        if isinstance(tensor, nn.Parameter):
            wide = tensor if wide is tensor else nn.Parameter(wide, requires_grad=False)
        memo[id(tensor)] = wide
    copied: nn.Module = copy.deepcopy(model.hf_model, memo)
    for name, weight in codes.items():
        module: Any = find_site(model.hf_model, name).owner
        coded = _Coded(name, weight, getattr(copied.get_submodule(name), "bias", None))
        if not isinstance(module, nn.Embedding):
            _replace(copied, name, coded)
            continue
        _replace(copied, name, _CodedEmbedding(coded))
        for other, layer in model.hf_model.named_modules():
            if isinstance(layer, nn.Linear) and layer.weight is module.weight:  # tied
                coded.bias = getattr(copied.get_submodule(other), "bias", None)
                _replace(copied, other, coded)
    return copied


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class _Traced(nn.Module, ABC):
    """What is traced: all inputs come as one list, ``inputs`` are their names.

    Attributes
    ----------
    tokens : list of str
        Inputs of shape (batch, sequence): what the model's forward() calls them.
    inputs, outputs : list of str
        What the graph calls them: as Optimum and transformers.js do.
    """

    outputs: list[str]

    def __init__(self, hf_model: Any, tokens: list[str]) -> None:
        super().__init__()
        self.model, self.tokens, self.inputs = hf_model, tokens, list(tokens)

    @abstractmethod
    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the tensors that :attr:`outputs` names."""

    def named(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.tokens, tensors, strict=False))

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        """Return an example of every input, and the names of its free dimensions."""
        ids = torch.arange(4, 4 + _BATCH * _LENGTH).reshape(_BATCH, _LENGTH)
        found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return [
            (found.get(name, torch.zeros_like(ids)), {0: "batch", 1: "sequence"})
            for name in self.tokens
        ]


class _Decoder(_Traced):
    """Logits and the cache of keys and values, which is an input too."""

    def __init__(self, hf_model: Any, tokens: list[str], cached: list[tuple[int, ...]]) -> None:
        super().__init__(hf_model, tokens)
        self.cached = cached
        each = [f"{n // 2}.{('key', 'value')[n % 2]}" for n in range(len(cached))]
        self.inputs += [f"past_key_values.{name}" for name in each]
        self.outputs = ["logits", *(f"present.{name}" for name in each)]

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        past = tensors[len(self.tokens) :]
        cache: Any = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        found = self.model(**self.named(tensors), past_key_values=cache, use_cache=True)
        layers = found.past_key_values.layers
        return (found.logits, *(t for layer in layers for t in (layer.keys, layer.values)))

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        found = dict(zip(self.tokens, super().examples(), strict=True))
        mask = torch.ones(_BATCH, _PAST + _LENGTH, dtype=torch.int64)
        found["attention_mask"] = mask, {0: "batch", 1: "total_sequence"}
        if "position_ids" in found:
            positions = torch.arange(_PAST, _PAST + _LENGTH).repeat(_BATCH, 1)
            found["position_ids"] = positions, found["position_ids"][1]
        free = {0: "batch", 2: "past_sequence"}
        caches = [torch.zeros(_BATCH, heads, _PAST, width) for _, heads, _, width in self.cached]
        return [*found.values(), *((cache, free) for cache in caches)]


class _Scorer(_Traced):
    """Logits, by a head on the mean of the last hidden states or by the model's own."""

    def __init__(self, hf_model: Any, tokens: list[str], head: ClassificationHead | None) -> None:
        super().__init__(hf_model, tokens)
        self.outputs, self.own = ["logits"], head is None
        if head is not None:
            self.weight, self.bias = (
                nn.Parameter(t.detach().float().cpu(), requires_grad=False)
                for t in (head.weight, head.bias)
            )

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        inputs = self.named(tensors)
        if self.own:
            return (self.model(**inputs).logits,)
        hidden = self.model.base_model(**inputs).last_hidden_state
        return (functional.linear(_mean(hidden, inputs), self.weight, self.bias),)


class _Encoder(_Traced):
    """The last hidden states and their mean over the tokens that are not padding."""

    def __init__(self, hf_model: Any, tokens: list[str]) -> None:
        super().__init__(hf_model, tokens)
        self.outputs = ["last_hidden_state", "sentence_embedding"]

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        inputs = self.named(tensors)
        hidden = self.model(**inputs).last_hidden_state
        return hidden, _mean(hidden, inputs)


def _mean(hidden: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    weight = inputs["attention_mask"].to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _traced(model: LoadedModel, hf_model: Any) -> _Traced:
    """Return the module to trace for what a model answers."""
    called = hf_model.base_model if model.head is not None else hf_model
    accepted = inspect.signature(called.forward).parameters
    known = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    wanted = {"input_ids", "attention_mask", *getattr(model.tokenizer, "model_input_names", ())}
    generates = model.is_decoder and not classifies(model)
    if generates:
        wanted.add("position_ids")
    tokens = [name for name in known if name in wanted and name in accepted]
    if generates:
        return _Decoder(hf_model, tokens, _cache_shapes(model))
    hf_model.config.use_cache = False
    if gives_features(model):
        return _Encoder(hf_model, tokens)
    return _Scorer(hf_model, tokens, model.head)


@torch.no_grad()
def _cache_shapes(model: LoadedModel) -> list[tuple[int, ...]]:
    """Return the shape of every layer's keys and values, (batch, heads, tokens, width) each."""
    ids = torch.arange(4, 8, device=model.device)[None]
    hf_model: Any = model.hf_model
    with quiet():
        cache = hf_model(input_ids=ids, use_cache=True).past_key_values
    return [tuple(t.shape) for layer in cache.layers for t in (layer.keys, layer.values)]


def _join_tied(graph: Any) -> None:
    """Keep one initializer of tensors that share their memory."""
    kept: dict[tuple[int, int], Any] = {}
    for name, value in list(graph.initializers.items()):
        first = kept.setdefault(tensor_identity(value.const_value.raw), value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[name]


def _store_weights(graph: Any, traced: nn.Module, model: LoadedModel) -> None:
    """Keep weights as initializers in their stored dtype; what else was traced become constants."""
    import onnx_ir
    from onnx_ir.tensor_adapters import TorchTensor

    weights = dict(traced.named_parameters(remove_duplicate=False))
    for name, value in list(graph.graph.initializers.items()):
        tensor = value.const_value.raw
        if name.endswith((".codes", ".zeros")) and name not in weights:
            continue
        if name in weights or name.endswith(".scales"):
            dtype = torch.float16
            if name in weights:
                wide = tensor.ndim < 2 or name in ("weight", "bias")  # a head of ours
                dtype = torch.float32 if wide else model.stored_as(name.removeprefix("model."))
            if dtype == tensor.dtype:
                continue
            uses = list(value.uses())
            value.const_value = TorchTensor(tensor.to(dtype).contiguous(), name=name)
            value.dtype = value.const_value.dtype
            node = onnx_ir.node("Cast", [value], {"to": onnx_ir.DataType.FLOAT})
        else:
            uses = list(value.uses())
            node = onnx_ir.node("Constant", [], {"value": value.const_value})
            del graph.graph.initializers[name]
        node.outputs[0].dtype, node.outputs[0].shape = onnx_ir.DataType.FLOAT, value.shape
        if node.op_type == "Constant":
            node.outputs[0].dtype = value.dtype
        graph.graph.insert_before(graph.graph[0], node)
        for use in uses:
            use.node.replace_input_with(use.idx, node.outputs[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's remarks on its own code from people."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
