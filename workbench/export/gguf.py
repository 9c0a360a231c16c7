"""GGUF files for llama.cpp, Ollama and what is built on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.export.base import (
    Format,
    no_codes_obstacle,
    scheme_label,
    split_blocks,
    with_codes,
)
from workbench.export.checkpoint import write_configuration
from workbench.export.gguf_tokenizer import Vocabulary, vocabulary_of
from workbench.models.load import write_extras
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.storage.artifacts import dense_tensors
from workbench.tensors.packing import gguf as packing
from workbench.tensors.weights import QuantizedWeight, SuperBlockWeight

FILE = "model.gguf"

_FILE_TYPES = {
    **{name: name for name in ("F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q6_K")},
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
}
"""llama.cpp's name of a file by the type of most of its weights."""


class GGUF(Format):
    """Codes go into blocks as they are; everything else is float16, norms float32."""

    name: ClassVar[str] = "gguf"
    title: ClassVar[str] = "GGUF"
    loaders: ClassVar[str] = "llama.cpp, Ollama, LM Studio"
    library: ClassVar[str] = "gguf"

    def obstacle(self, model: LoadedModel) -> str | None:
        config: Any = model.hf_model.config
        if config.model_type not in packing.ARCHITECTURES or not model.is_decoder:
            known = ", ".join(packing.ARCHITECTURES)
            kind = config.model_type
            given = type(model.hf_model).__name__ if kind in packing.ARCHITECTURES else repr(kind)
            return f"it is a {given}, and the workbench writes language models of {known}"
        reason = _configuration_obstacle(config)
        codes, dense = _split(model)
        if reason is None and dense:
            reason = no_codes_obstacle(codes, dense)
        if reason is not None:
            return reason
        for name, tensor in dense_tensors(with_codes(model, codes)).items():
            if tensor.is_floating_point() and float(tensor.abs().max()) > 65504:
                return f"{name} has values that float16 cannot hold"
        found = vocabulary_of(model.tokenizer, config.vocab_size)
        return found if isinstance(found, str) else None

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        return _split(model)[1]

    def dense_dtype(self, model: LoadedModel) -> torch.dtype:
        return torch.float16 if model.stored_dtype.itemsize > 2 else model.stored_dtype

    def predicted_bytes(self, model: LoadedModel) -> int:
        codes, _ = _split(model)
        total = sum(packing.packed_bytes(w.shape, w.scheme) for w in codes.values())
        for tensor in dense_tensors(with_codes(model, codes)).values():
            total += tensor.numel() * (4 if tensor.ndim == 1 else 2)
        return total

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        import gguf

        codes, _ = _split(model)
        model = with_codes(model, codes)
        config: Any = model.hf_model.config
        architecture = packing.ARCHITECTURES[config.model_type]
        writer = gguf.GGUFWriter(folder / FILE, architecture)
        _describe(writer, model)
        vocabulary = vocabulary_of(model.tokenizer, config.vocab_size)
        assert isinstance(vocabulary, Vocabulary)
        _add_vocabulary(writer, vocabulary, model.tokenizer)
        for done, (name, weight) in enumerate(codes.items(), 1):
            kind, blocks = packing.pack(weight)
            heads = packing.heads_of(f"{name}.weight", config)
            if heads is not None:
                blocks = np.ascontiguousarray(packing.rotated(blocks, heads))
            raw = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(_name(f"{name}.weight", config), blocks, raw_dtype=raw)
            monitor.report("export", done, len(codes), name)
        for name, tensor in dense_tensors(model).items():
            values = tensor.to(torch.float32 if tensor.ndim == 1 else torch.float16).cpu().numpy()
            heads = packing.heads_of(name, config)
            if heads is not None:
                values = np.ascontiguousarray(packing.rotated(values, heads))
            writer.add_tensor(_name(name, config), values)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        # What transformers and the workbench need to read the file again.
        write_configuration(model, folder)
        write_extras(model, folder)

    def tensor_bytes(self, folder: Path) -> int:
        import gguf

        beside = super().tensor_bytes(folder)  # a head of the workbench's
        return beside + sum(int(t.n_bytes) for t in gguf.GGUFReader(folder / FILE).tensors)

    def loading(self, model: LoadedModel) -> str:
        return (
            "# pip install llama-cpp-python; or without Python: llama-cli -m FOLDER/model.gguf\n"
            "from llama_cpp import Llama\n\n"
            f'model = Llama("FOLDER/{FILE}")'
        )


def _configuration_obstacle(config: Any) -> str | None:
    """Return what of a configuration the file could not say."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    if kind != "default":
        return f"its rotary positions are scaled ({kind!r}), which the workbench does not write"
    if config.hidden_act not in ("silu", "swish"):
        return f"its activation is {config.hidden_act!r}, and llama.cpp computes silu"
    if window is not None and window < config.max_position_embeddings:
        return f"it attends to a window of {window} tokens only, which the workbench does not write"
    if config.model_type != "qwen2" and getattr(config, "attention_bias", False):
        return "its attention has biases, which the workbench does not write"
    if getattr(config, "mlp_bias", False):
        return "its feed-forward layers have biases, which the workbench does not write"
    return None


def _describe(writer: Any, model: LoadedModel) -> None:
    import gguf

    config: Any = model.hf_model.config
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    weights: Counter[str] = Counter()
    for weight in _split(model)[0].values():
        weights[packing.block_type(weight.scheme) or ""] += weight.codes.numel()
    main = weights.most_common(1)[0][0] if weights else "F16"
    writer.add_name(model.source.name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{_FILE_TYPES[main]}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10000.0)))
    writer.add_vocab_size(config.vocab_size)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary, tokenizer: Any) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
    }
    for name, value in ids.items():
        if value is not None:
            getattr(writer, f"add_{name}_token_id")(value)
    text = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(text) and text[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(text) and text[-1] == tokenizer.eos_token_id)
    if getattr(tokenizer, "chat_template", None):
        writer.add_chat_template(tokenizer.chat_template)


def _name(name: str, config: Any) -> str:
    found = packing.tensor_name(name, config)
    assert found is not None, name
    return found


def _split(
    model: LoadedModel,
) -> tuple[dict[str, QuantizedWeight | SuperBlockWeight], dict[str, str]]:
    return split_blocks(model, _layer_reason)


def _layer_reason(name: str, weight: QuantizedWeight | SuperBlockWeight) -> str | None:
    if isinstance(weight, SuperBlockWeight):
        return None
    if packing.block_type(weight.scheme) is None:
        return (
            f"{name} is {scheme_label(weight.scheme)}; it takes groups of a multiple of 32, and"
            " 8 bits only if symmetric"
        )
    columns = weight.shape[1]
    return f"{name} has {columns} inputs, which is no multiple of 32" if columns % 32 else None
