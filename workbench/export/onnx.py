"""ONNX for onnxruntime, Optimum and transformers.js: servers, Windows, phones and browsers."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.export.base import (
    Format,
    encoder_decoder_obstacle,
    no_codes_obstacle,
    scheme_label,
    split_codes,
    with_codes,
)
from workbench.export.checkpoint import write_configuration
from workbench.export.onnx_graph import (
    classifies,
    gives_features,
    read_codes,
    stored_bytes,
    write_graph,
)
from workbench.models.loaded import ClassificationHead, LoadedModel, tensor_identity
from workbench.progress import SILENT, Monitor
from workbench.tensors.packing import onnx as packing
from workbench.tensors.weights import QuantizedWeight

FILE = "onnx/model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

ARCHITECTURES = (
    "bert",
    "deberta-v2",
    "distilbert",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "modernbert",
    "opt",
    "phi3",
    "qwen2",
    "qwen3",
    "roberta",
)
"""Model types whose graph gives in onnxruntime what the model gives in torch."""


class ONNX(Format):
    """Codes as operators of onnxruntime; a classifier's pooling and head are in the graph."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"
    loaders: ClassVar[str] = "onnxruntime, Optimum, transformers.js in the browser, Windows ML"
    library: ClassVar[str] = "onnx"
    complete: ClassVar[bool] = False

    def obstacle(self, model: LoadedModel) -> str | None:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"it is written with {' and '.join(missing)}, not installed here; run: pip install"
                " 'compression-workbench[onnx]'"
            )
        config: Any = model.hf_model.config
        kind = str(getattr(config, "model_type", ""))
        if getattr(config, "alibi", False):
            return "its positions are biases of the attention (alibi), which torch cannot trace"
        if kind not in ARCHITECTURES:
            return (
                encoder_decoder_obstacle(model)
                or f"it is a {kind!r}, and the workbench writes {', '.join(ARCHITECTURES)}"
            )
        codes, dense = _split(model)
        return no_codes_obstacle(codes, dense) if dense else None

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        return _split(model)[1]

    def predicted_bytes(self, model: LoadedModel) -> int:
        codes, _ = _split(model)
        total = sum(packing.packed_bytes(w.shape, w.scheme) for w in codes.values())
        coded = {tensor_identity(model.site(name).stored) for name in codes}
        dense: dict[tuple[int, int], int] = {}
        for name, tensor in _used(model).named_parameters():
            if "pooler." in name and (model.head is not None or not classifies(model)):
                continue  # nothing that the graph gives depends on it
            item = 4 if tensor.ndim < 2 else model.stored_as(name).itemsize
            dense.setdefault(tensor_identity(tensor), item * tensor.numel())
        if model.head is not None:
            total += 4 * (model.head.weight.numel() + model.head.bias.numel())
        return total + sum(size for key, size in dense.items() if key not in coded)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        codes, _ = _split(model)
        model = with_codes(model, codes)
        write_configuration(model, folder, _fields(model))
        monitor.report("export", 0, 1, "trace")
        path = folder / FILE
        path.parent.mkdir()
        write_graph(model, codes, path)
        monitor.report("export", 1, 1, "written")

    def reload(self, model: LoadedModel, folder: Path) -> LoadedModel:
        return _in_onnxruntime(model, folder / FILE)

    def tensor_bytes(self, folder: Path) -> int:
        return stored_bytes(folder / FILE)

    def loading(self, model: LoadedModel) -> str:
        if model.is_decoder and not classifies(model):
            return (
                "# pip install optimum-onnx[onnxruntime]\n"
                "from optimum.onnxruntime import ORTModelForCausalLM\n"
                "from transformers import AutoTokenizer\n\n"
                'model = ORTModelForCausalLM.from_pretrained("FOLDER", subfolder="onnx")\n'
                'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
            )
        answer, note = "logits", ""
        if gives_features(model):
            answer = "sentence_embedding"
            note = "# The embedding is the mean of the last hidden states over a text's tokens.\n"
        return (
            "# pip install onnxruntime transformers\n"
            f"{note}"
            "import onnxruntime\n"
            "from transformers import AutoTokenizer\n\n"
            f'session = onnxruntime.InferenceSession("FOLDER/{FILE}")\n'
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
            'inputs = tokenizer(["a text"], return_tensors="np", padding=True)\n'
            "names = {value.name for value in session.get_inputs()}\n"
            "given = {name: array for name, array in inputs.items() if name in names}\n"
            f'(found,) = session.run(["{answer}"], given)'
        )


def _used(model: LoadedModel) -> nn.Module:
    """Return the part of a model that the graph is of."""
    hf_model: Any = model.hf_model
    return hf_model.base_model if model.head is not None else hf_model


def _fields(model: LoadedModel) -> dict[str, Any]:
    """Return what config.json says of a head that is in the graph, as transformers would."""
    if model.head is None:
        return {}
    labels = model.head.labels
    base = type(model.hf_model.base_model).__name__.removesuffix("Model")
    return {
        "architectures": [f"{base}ForSequenceClassification"],
        "id2label": {str(code): label for code, label in enumerate(labels)},
        "label2id": {label: code for code, label in enumerate(labels)},
    }


def _in_onnxruntime(model: LoadedModel, path: Path) -> LoadedModel:
    """Return a model of the same class whose outputs are computed by onnxruntime from a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    hf_model: Any = copy.copy(_used(model))
    hf_model.forward = _Forward(session, pooled=model.head is not None)
    head = model.head
    if head is not None:  # it is in the graph, behind the mean over the tokens
        n_labels = len(head.labels)
        nothing = torch.zeros(n_labels, device=model.device)
        unit = torch.eye(n_labels, device=model.device)
        head = ClassificationHead(unit, nothing, head.labels)
    return dataclasses.replace(model, hf_model=hf_model, head=head, weights=dict(read_codes(path)))


class _Forward:
    """What forward() of a transformers model is, computed by a session of onnxruntime.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    pooled : bool
        Whether the graph's logits are given as hidden states, of which each token has the same.
    """

    def __init__(self, session: Any, *, pooled: bool) -> None:
        self.session, self.pooled = session, pooled
        self.inputs = {value.name: value.shape for value in session.get_inputs()}
        self.output = session.get_outputs()[0].name

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Any:
        from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        tokens = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(input_ids),
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        }
        given = {name: t.cpu().numpy() for name, t in tokens.items() if name in self.inputs}
        for name, shape in self.inputs.items():
            if name not in given:  # keys and values of no tokens
                empty = torch.zeros(len(input_ids), shape[1], 0, shape[3])
                given[name] = empty.numpy()
        found = torch.from_numpy(self.session.run([self.output], given)[0]).to(input_ids.device)
        if self.pooled:
            found = found[:, None].expand(-1, input_ids.shape[1], -1)
        elif self.output == "logits":
            return CausalLMOutput(logits=found)
        return BaseModelOutput(last_hidden_state=found)


def _split(model: LoadedModel) -> tuple[dict[str, QuantizedWeight], dict[str, str]]:
    def reason(name: str, weight: QuantizedWeight) -> str | None:
        return _layer_reason(model, name, weight)

    return split_codes(model, reason, outside=True, transposed=True)


def _layer_reason(model: LoadedModel, name: str, weight: QuantizedWeight) -> str | None:
    scheme, (_, columns) = weight.scheme, weight.shape
    module = model.site(name).owner
    if type(module) not in (nn.Linear, Conv1D, nn.Embedding):
        return (
            f"{name} is a {type(module).__name__}, for which onnxruntime has no operator of codes"
        )
    bits = (4, 8) if isinstance(module, nn.Embedding) else packing.BITS
    if scheme.bits not in bits:
        accepted = ", ".join(map(str, bits))
        return f"{name} has {scheme.bits} bits, and it has {accepted} only"
    if packing.block_size(scheme, columns) is None:
        return (
            f"{name} has {columns} inputs as {scheme_label(scheme)}; it takes whole groups of a"
            " multiple of 16"
        )
    return None
