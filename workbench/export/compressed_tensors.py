"""Checkpoints of compressed-tensors, vLLM's own format: packed words, or plain int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from workbench.export.base import (
    Format,
    bits_obstacle,
    code_layers,
    encoder_decoder_obstacle,
    kind_obstacle,
    layer_weights,
    scheme_label,
    unmasked,
)
from workbench.export.checkpoint import checkpoint_bytes, transformers_code, write_checkpoint
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing import compressed_tensors
from workbench.tensors.weights import QuantizedWeight


class PackQuantized(Format):
    """Codes in 32-bit words; every layer may have bits and groups of its own."""

    name: ClassVar[str] = "compressed-tensors"
    title: ClassVar[str] = "compressed-tensors (pack-quantized)"
    loaders: ClassVar[str] = "vLLM, transformers with compressed-tensors"
    layout: ClassVar[str] = "pack-quantized"

    def obstacle(self, model: LoadedModel) -> str | None:
        model = unmasked(model)
        reason = encoder_decoder_obstacle(model) or kind_obstacle(model, dense=True)
        reason = reason or bits_obstacle(model, (2, 4, 8))
        schemes = {weight.scheme for weight in _layers(model).values()}
        if reason is None and len(schemes) > 1 and _asymmetric(model):
            return (
                f"its layers have {len(schemes)} different number formats, and transformers loads"
                " that only where all are symmetric (symmetric=True)"
            )
        return reason

    def predicted_bytes(self, model: LoadedModel) -> int:
        model = unmasked(model)
        packed = sum(self._bytes(model, weight) for weight in _layers(model).values())
        return checkpoint_bytes(model, packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        model = unmasked(model)
        layers = _layers(model)
        packed = {}
        for done, (name, weight) in enumerate(layers.items(), 1):
            for part, tensor in self._pack(model, weight).items():
                packed[f"{name}.{part}"] = tensor
            monitor.report("export", done, len(layers), name)
        write_checkpoint(model, folder, packed, {"quantization_config": self._about(model)})

    def _pack(self, model: LoadedModel, weight: QuantizedWeight) -> dict[str, Tensor]:
        return compressed_tensors.pack(weight, model.stored_dtype)

    def _bytes(self, model: LoadedModel, weight: QuantizedWeight) -> int:
        return compressed_tensors.packed_bytes(weight.shape, weight.scheme, model.stored_dtype)

    def _about(self, model: LoadedModel) -> dict[str, Any]:
        layers = _layers(model)
        schemes = list(dict.fromkeys(weight.scheme for weight in layers.values()))
        groups = {}
        for index, scheme in enumerate(schemes):
            names = [name for name, weight in layers.items() if weight.scheme == scheme]
            targets = ["Linear"] if len(schemes) == 1 else names
            groups[f"group_{index}"] = {
                "targets": targets,
                "weights": _arguments(scheme),
                "input_activations": None,
                "output_activations": None,
                "format": self.layout,
            }
        linears = (n for n, m in model.hf_model.named_modules() if isinstance(m, nn.Linear))
        return {
            "quant_method": "compressed-tensors",
            "format": self.layout,
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": [name for name in linears if name not in layers],
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }

    def loading(self, model: LoadedModel) -> str:
        code = transformers_code(model)
        if _asymmetric(model):  # else transformers 5 expects zero points that are not packed
            code = code.replace("import Auto", "import CompressedTensorsConfig, Auto", 1).replace(
                'dtype="auto"',
                'dtype="auto", quantization_config=CompressedTensorsConfig(dequantize=True)',
            )
        return f"# pip install compressed-tensors\n{code}"


class IntQuantized(PackQuantized):
    """Symmetric 8-bit codes as plain int8 tensors."""

    name: ClassVar[str] = "int-quantized"
    title: ClassVar[str] = "compressed-tensors (int-quantized)"
    layout: ClassVar[str] = "int-quantized"

    def obstacle(self, model: LoadedModel) -> str | None:
        model = unmasked(model)
        reason = encoder_decoder_obstacle(model) or kind_obstacle(model, dense=True)
        reason = reason or bits_obstacle(model, (8,))
        if reason is not None:
            return reason
        for name, weight in _layers(model).items():
            if not weight.scheme.symmetric:
                return f"{name} is {scheme_label(weight.scheme)}, and it takes symmetric codes only"
        return None

    def _pack(self, model: LoadedModel, weight: QuantizedWeight) -> dict[str, Tensor]:
        return compressed_tensors.pack_int8(weight, model.stored_dtype)

    def _bytes(self, model: LoadedModel, weight: QuantizedWeight) -> int:
        return compressed_tensors.int8_bytes(weight.shape, weight.scheme, model.stored_dtype)


def _layers(model: LoadedModel) -> dict[str, QuantizedWeight]:
    """Return the weights to pack, in the order of the model's layers."""
    found = code_layers(model)
    return {
        name: weight
        for name in layer_weights(model)
        if isinstance(weight := found.get(name), QuantizedWeight)
    }


def _asymmetric(model: LoadedModel) -> bool:
    return any(not weight.scheme.symmetric for weight in _layers(model).values())


def _arguments(scheme: IntScheme) -> dict[str, Any]:
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "channel" if scheme.group_size is None else "group",
        "group_size": scheme.group_size,
        "dynamic": False,
        "actorder": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
