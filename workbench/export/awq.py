"""AutoAWQ's GEMM checkpoints: 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from workbench.export.base import Format, code_layers, kind_obstacle, scheme_obstacle
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
        return kind_obstacle(model) or scheme_obstacle(model, (4,))

    def predicted_bytes(self, model: LoadedModel) -> int:
        packed = sum(awq.packed_bytes(w.shape, w.scheme) for w in _layers(model).values())
        return checkpoint_bytes(model, packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        layers = _layers(model)
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
            "modules_to_not_convert": None,
            "meta": {"quantizer": [f"compression-workbench:{__version__}"]},
        }
        write_checkpoint(model, folder, packed, {"quantization_config": about})

    def loading(self, model: LoadedModel) -> str:
        install = (
            '# pip install --no-build-isolation "gptqmodel>=7.0,<7.7" accelerate\n'
            "# (on fewer than four cores set GPTQMODEL_CPU_WORKERS to their number first)\n"
        )
        return install + transformers_code(model, "float16")


def _layers(model: LoadedModel) -> dict[str, QuantizedWeight]:
    return {n: w for n, w in code_layers(model).items() if isinstance(w, QuantizedWeight)}
