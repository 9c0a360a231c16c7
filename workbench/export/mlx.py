"""Checkpoints of Apple's MLX, for mlx-lm and LM Studio on a Mac."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from workbench.export.base import (
    Format,
    no_codes_obstacle,
    scheme_label,
    split_codes,
    with_codes,
)
from workbench.export.checkpoint import checkpoint_bytes, write_checkpoint
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tensors.packing import mlx
from workbench.tensors.weights import QuantizedWeight

ARCHITECTURES = (
    "cohere",
    "cohere2",
    "ernie4_5",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm4",
    "granite",
    "helium",
    "hunyuan_v1_dense",
    "llama",
    "ministral3",
    "mistral",
    "nemotron",
    "olmo2",
    "olmo3",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
)
"""Model types that mlx-lm computes as transformers does, from modules of the same names."""


class MLX(Format):
    """Codes as they are, every layer with its own bits; embeddings and head may have codes too."""

    name: ClassVar[str] = "mlx"
    title: ClassVar[str] = "MLX"
    loaders: ClassVar[str] = "mlx-lm and LM Studio on a Mac"
    library: ClassVar[str] = "mlx"

    def obstacle(self, model: LoadedModel) -> str | None:
        kind = str(getattr(model.hf_model.config, "model_type", ""))
        if kind not in ARCHITECTURES or not model.is_decoder:
            given = type(model.hf_model).__name__ if kind in ARCHITECTURES else repr(kind)
            known = ", ".join(ARCHITECTURES)
            return f"it is a {given}, and the workbench writes language models of {known}"
        return no_codes_obstacle(*_split(model))

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        return _split(model)[1]

    def predicted_bytes(self, model: LoadedModel) -> int:
        codes, _ = _split(model)
        dtype = model.stored_dtype
        packed = sum(mlx.packed_bytes(w.shape, w.scheme, dtype) for w in codes.values())
        return checkpoint_bytes(with_codes(model, codes), packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        codes, _ = _split(model)
        model = with_codes(model, codes)
        packed: dict[str, torch.Tensor] = {}
        for done, (name, weight) in enumerate(codes.items(), 1):
            for part, tensor in mlx.pack(weight, model.stored_dtype).items():
                packed[f"{name}.{part}"] = tensor
            monitor.report("export", done, len(codes), name)
        about = {"quantization": _about(codes), **_rotary_fields(model.hf_model.config)}
        write_checkpoint(model, folder, packed, about)

    def loading(self, model: LoadedModel) -> str:
        return (
            "# pip install mlx-lm\n"
            "from mlx_lm import generate, load\n\n"
            'model, tokenizer = load("FOLDER")\n'
            'print(generate(model, tokenizer, "Once"))'
        )


def _rotary_fields(config: Any) -> dict[str, Any]:
    """Return the fields of rotary positions that mlx-lm reads, from transformers' own."""
    rope = dict(getattr(config, "rope_parameters", None) or {})
    if "full_attention" in rope:  # Gemma 3: one base for each kind of attention
        local = rope["sliding_attention"]["rope_theta"]
        return {**_rotary_of(rope["full_attention"]), "rope_local_base_freq": local}
    return _rotary_of(rope)


def _rotary_of(rope: dict[str, Any]) -> dict[str, Any]:
    names = ("rope_theta", "partial_rotary_factor")
    scaled = rope.get("rope_type", "default") != "default"
    scaling = {n: v for n, v in rope.items() if n != "rope_theta"} if scaled else None
    return {**{name: rope[name] for name in names if name in rope}, "rope_scaling": scaling}


def _about(codes: dict[str, QuantizedWeight]) -> dict[str, Any]:
    """Return ``quantization`` of config.json: the commonest numbers, then every layer's own."""
    each: dict[str, dict[str, Any]] = {
        name: {"group_size": mlx.group_size(w.scheme, w.shape[1]), "bits": w.scheme.bits}
        for name, w in codes.items()
    }
    numbers = [tuple(about.values()) for about in each.values()]
    group_size, bits = max(dict.fromkeys(numbers), key=numbers.count)
    main = {"group_size": group_size, "bits": bits}
    return {**main, **{name: about for name, about in each.items() if about != main}}


def _split(model: LoadedModel) -> tuple[dict[str, QuantizedWeight], dict[str, str]]:
    return split_codes(model, _layer_reason, outside=True)


def _layer_reason(name: str, weight: QuantizedWeight) -> str | None:
    scheme, (_, columns) = weight.scheme, weight.shape
    if scheme.bits not in mlx.BITS:
        accepted = ", ".join(map(str, mlx.BITS))
        return f"{name} has {scheme.bits} bits, and it has {accepted} only"
    if mlx.group_size(scheme, columns) is None or columns * scheme.bits % 32:
        return (
            f"{name} has {columns} inputs as {scheme_label(scheme)}; it takes whole groups of a"
            " multiple of 32"
        )
    return None
