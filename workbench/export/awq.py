"""AutoAWQ's GEMM checkpoints: 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from workbench.export.base import (
    Format,
    alike_obstacle,
    dense_linears,
    split_alike,
    with_codes,
)
from workbench.export.checkpoint import checkpoint_bytes, transformers_code, write_checkpoint
from workbench.models.architectures import wraps_decoder
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tensors.packing import awq
from workbench.tensors.weights import QuantizedWeight
from workbench.version import __version__


class AWQCheckpoint(Format):
    """What AutoAWQ writes with ``version="GEMM"``; any method's 4-bit codes fit, not only AWQ's."""

    name: ClassVar[str] = "awq"
    title: ClassVar[str] = "AWQ (GEMM)"
    loaders: ClassVar[str] = "transformers with gptqmodel, vLLM, SGLang, AutoAWQ"

    def obstacle(self, model: LoadedModel) -> str | None:
        if not model.is_decoder:
            return f"its loaders take decoders only, and {type(model.hf_model).__name__} is none"
        if wraps_decoder(type(model.hf_model).__name__, model.hf_model.config):
            return "it reads images or sound too, by layers that its loaders expect as codes"
        return alike_obstacle(model, *_split(model))

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        return _split(model)[1]

    def predicted_bytes(self, model: LoadedModel) -> int:
        layers, _ = _split(model)
        packed = sum(awq.packed_bytes(w.shape, w.scheme) for w in layers.values())
        return checkpoint_bytes(with_codes(model, layers), packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        layers, _ = _split(model)
        model = with_codes(model, layers)
        packed = {}
        for done, (name, weight) in enumerate(layers.items(), 1):
            for part, tensor in awq.pack(weight).items():
                packed[f"{name}.{part}"] = tensor
            monitor.report("export", done, len(layers), name)
        scheme = next(iter(layers.values())).scheme
        about = {
            "quant_method": "awq",
            "version": "gemm",
            "bits": 4,
            "group_size": -1 if scheme.group_size is None else scheme.group_size,
            "zero_point": True,  # they are always stored, also those of symmetric models
            "modules_to_not_convert": dense_linears(model, layers) or None,
            "meta": {"quantizer": [f"compression-workbench:{__version__}"]},
        }
        write_checkpoint(model, folder, packed, {"quantization_config": about})

    def loading(self, model: LoadedModel) -> str:
        install = (
            '# pip install --no-build-isolation "gptqmodel>=7.0,<7.7" accelerate\n'
            "# (on fewer than four cores set GPTQMODEL_CPU_WORKERS to their number first)\n"
        )
        return install + transformers_code(model, "float16")


def _split(model: LoadedModel) -> tuple[dict[str, QuantizedWeight], dict[str, str]]:
    fit, dense = split_alike(model, (4,))
    return {n: w for n, w in fit.items() if isinstance(w, QuantizedWeight)}, dense
