"""Checkpoints of compressed-tensors, vLLM's own format: packed words, or plain int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from workbench.export.base import (
    Format,
    encoder_decoder_obstacle,
    layer_obstacle,
    no_codes_obstacle,
    scheme_label,
    split_codes,
    with_codes,
)
from workbench.export.checkpoint import checkpoint_bytes, transformers_code, write_checkpoint
from workbench.models.expert_names import ExpertRows, expert_rows
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing import compressed_tensors
from workbench.tensors.weights import QuantizedWeight

_READ_WEIGHTS = ("falcon", "gpt_bigcode", "modernbert", "rwkv")
"""Model types whose classes read the weight of a layer, which is not there while it is codes."""


class PackQuantized(Format):
    """Codes in 32-bit words; every layer may have bits and groups of its own.

    Experts are written as the matrices that a checkpoint has of them, each with its own codes.
    """

    name: ClassVar[str] = "compressed-tensors"
    title: ClassVar[str] = "compressed-tensors (pack-quantized)"
    loaders: ClassVar[str] = "vLLM, transformers with compressed-tensors"
    layout: ClassVar[str] = "pack-quantized"
    holds_experts: ClassVar[bool] = True

    def obstacle(self, model: LoadedModel) -> str | None:
        reason = encoder_decoder_obstacle(model)
        if reason is not None:
            return reason
        layers, dense = self._split(model)
        schemes = {weight.scheme for weight in layers.values()}
        if len(schemes) > 1 and _asymmetric(layers):
            return (
                f"its layers have {len(schemes)} different number formats, and transformers loads"
                " that only where all are symmetric (symmetric=True)"
            )
        kind = str(getattr(model.hf_model.config, "model_type", ""))
        if len(schemes) > 1 and kind in _READ_WEIGHTS:
            return (
                f"its layers have {len(schemes)} different number formats, and transformers loads"
                f" only one of them where the model is a {kind!r}"
            )
        return no_codes_obstacle(layers, dense)

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        return self._split(model)[1]

    def predicted_bytes(self, model: LoadedModel) -> int:
        layers, _ = self._split(model)
        parts = _in_checkpoint(model, layers).values()
        packed = sum(self._bytes(model, weight) for weight in parts)
        return checkpoint_bytes(with_codes(model, layers), packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        layers, _ = self._split(model)
        model = with_codes(model, layers)
        matrices = _in_checkpoint(model, layers)
        packed = {}
        for done, (name, weight) in enumerate(matrices.items(), 1):
            for part, tensor in self._pack(model, weight).items():
                packed[f"{name}.{part}"] = tensor
            monitor.report("export", done, len(matrices), name)
        about = {"quantization_config": self._about(model, layers)}
        write_checkpoint(model, folder, packed, about)

    def _split(self, model: LoadedModel) -> tuple[dict[str, QuantizedWeight], dict[str, str]]:
        halves = _experts(model) if self.holds_experts else {}

        def reason_of(name: str, weight: QuantizedWeight) -> str | None:
            if name in halves and not weight.scheme.symmetric:
                return (
                    f"{name} is one expert of a stack, which transformers loads of symmetric codes"
                    " only (symmetric=True)"
                )
            parts = [weight.rows(place.start, place.stop) for _, place in halves.get(name, ())]
            reasons = (self._layer_reason(name, part) for part in parts or [weight])
            return next((reason for reason in reasons if reason is not None), None)

        layers, dense = split_codes(model, reason_of, experts=halves)
        if len({weight.scheme for weight in layers.values()}) > 1:  # then experts do not load
            return split_codes(model, reason_of)
        return layers, dense

    def _layer_reason(self, name: str, weight: QuantizedWeight) -> str | None:
        scheme, rows = weight.scheme, weight.shape[0]
        if not scheme.symmetric and rows * scheme.bits == 32:
            return f"{name} has {rows} rows, whose zero points are one word, which it does not read"
        return layer_obstacle(name, weight, (2, 4, 8))

    def _pack(self, model: LoadedModel, weight: QuantizedWeight) -> dict[str, Tensor]:
        return compressed_tensors.pack(weight, model.stored_dtype)

    def _bytes(self, model: LoadedModel, weight: QuantizedWeight) -> int:
        return compressed_tensors.packed_bytes(weight.shape, weight.scheme, model.stored_dtype)

    def _about(self, model: LoadedModel, layers: dict[str, QuantizedWeight]) -> dict[str, Any]:
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
        schemes = {weight.scheme for weight in self._split(model)[0].values()}
        if len(schemes) > 1:  # of these transformers dequantizes one alone
            return f"# pip install compressed-tensors\n{code}"
        # Codes stay codes otherwise: zero points are not unpacked, experts do not load, and classes
        # that read the weight of a layer do not run.
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
    holds_experts: ClassVar[bool] = False  # transformers takes their codes for weights

    def _layer_reason(self, name: str, weight: QuantizedWeight) -> str | None:
        reason = layer_obstacle(name, weight, (8,))
        if reason is None and not weight.scheme.symmetric:
            return f"{name} is {scheme_label(weight.scheme)}, and it takes symmetric codes only"
        return reason

    def _pack(self, model: LoadedModel, weight: QuantizedWeight) -> dict[str, Tensor]:
        return compressed_tensors.pack_int8(weight, model.stored_dtype)

    def _bytes(self, model: LoadedModel, weight: QuantizedWeight) -> int:
        return compressed_tensors.int8_bytes(weight.shape, weight.scheme, model.stored_dtype)


def _experts(model: LoadedModel) -> dict[str, list[tuple[str, ExpertRows]]]:
    """Return for every expert's matrix the checkpoint's names of its rows."""
    found: dict[str, list[tuple[str, ExpertRows]]] = {}
    for name, place in expert_rows(model.hf_model).items():
        found.setdefault(place.site, []).append((name, place))
    return found


def _in_checkpoint(
    model: LoadedModel, layers: dict[str, QuantizedWeight]
) -> dict[str, QuantizedWeight]:
    """Return the weights by their names in the checkpoint: experts' in parts, gate and up."""
    halves = _experts(model)
    found = {}
    for name, weight in layers.items():
        for part, place in halves.get(name, ()):
            found[part] = weight.rows(place.start, place.stop)
        if name not in halves:
            found[name] = weight
    return found


def _asymmetric(layers: dict[str, QuantizedWeight]) -> bool:
    return any(not weight.scheme.symmetric for weight in layers.values())


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
