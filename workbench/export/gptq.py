"""GPTQ checkpoints, which AutoGPTQ defined."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

from workbench.export.base import (
    Format,
    alike_obstacle,
    dense_linears,
    scheme_of,
    split_alike,
    with_codes,
)
from workbench.export.checkpoint import checkpoint_bytes, transformers_code, write_checkpoint
from workbench.models.architectures import wraps_decoder
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tensors.packing import gptq
from workbench.tensors.weights import PermutedWeight, QuantizedWeight
from workbench.version import __version__


class GPTQCheckpoint(Format):
    """Version 1 for symmetric models and version 2 for others: what GPTQModel loads of either."""

    name: ClassVar[str] = "gptq"
    title: ClassVar[str] = "GPTQ"
    loaders: ClassVar[str] = "transformers with gptqmodel, vLLM, SGLang"

    def version(self, model: LoadedModel) -> int:
        """Return the version of the format that a model is written in."""
        symmetric = all(scheme_of(weight).symmetric for weight in _split(model)[0].values())
        return 1 if symmetric else 2

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
        packed = sum(gptq.packed_bytes(w.shape, scheme_of(w)) for w in layers.values())
        return checkpoint_bytes(with_codes(model, layers), packed)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        layers, version = _split(model)[0], self.version(model)
        model = with_codes(model, layers)
        packed = {}
        for done, (name, weight) in enumerate(layers.items(), 1):
            for part, tensor in gptq.pack(weight, version).items():
                packed[f"{name}.{part}"] = tensor
            monitor.report("export", done, len(layers), name)
        about = self._about(model, version)
        write_checkpoint(model, folder, packed, {"quantization_config": about})
        # What AutoGPTQ looks for before config.json.
        text = json.dumps(about, indent=2) + "\n"
        (folder / "quantize_config.json").write_text(text, encoding="utf-8")

    def _about(self, model: LoadedModel, version: int) -> dict[str, Any]:
        layers, _ = _split(model)
        schemes = [scheme_of(weight) for weight in layers.values()]
        return {
            "quant_method": "gptq",
            "bits": schemes[0].bits,
            "group_size": -1 if schemes[0].group_size is None else schemes[0].group_size,
            "sym": all(scheme.symmetric for scheme in schemes),
            "desc_act": any(not isinstance(w, QuantizedWeight) for w in layers.values()),
            "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
            "pack_dtype": "int32",
            "lm_head": False,
            "true_sequential": False,
            "meta": {"quantizer": [f"compression-workbench:{__version__}"]},
            **_dense(dense_linears(model, layers), list(layers)),
        }

    def loading(self, model: LoadedModel) -> str:
        install = (
            '# pip install --no-build-isolation "gptqmodel>=7.0,<7.7" optimum\n'
            "# (on fewer than four cores set GPTQMODEL_CPU_WORKERS to their number first)\n"
        )
        return install + transformers_code(model)


class GPTQVersion1(GPTQCheckpoint):
    """Version 1 also for asymmetric models, for AutoGPTQ and programs that know no version 2."""

    name: ClassVar[str] = "gptq_v1"
    title: ClassVar[str] = "GPTQ version 1"
    loaders: ClassVar[str] = "auto-gptq, vLLM; symmetric models also transformers with gptqmodel"

    def version(self, model: LoadedModel) -> int:
        return 1

    def obstacle(self, model: LoadedModel) -> str | None:
        reason = super().obstacle(model)
        if reason is not None:
            return reason
        for name, weight in _split(model)[0].items():
            inner = weight if isinstance(weight, QuantizedWeight) else weight.base
            if inner.zeros is not None and bool((inner.zeros == 0).any()):
                return f"{name} has zero points of 0, which version 1 cannot store"
        return None


class GPTQVersion2(GPTQCheckpoint):
    """Version 2 also for symmetric models."""

    name: ClassVar[str] = "gptq_v2"
    title: ClassVar[str] = "GPTQ version 2"
    loaders: ClassVar[str] = "transformers with gptqmodel, vLLM, SGLang"

    def version(self, model: LoadedModel) -> int:
        return 2


def _split(
    model: LoadedModel,
) -> tuple[dict[str, QuantizedWeight | PermutedWeight], dict[str, str]]:
    return split_alike(model, gptq.BITS, permuted=True)


def _dense(names: list[str], codes: list[str]) -> dict[str, Any]:
    """Return how loaders are told of dense layers: GPTQModel and vLLM by rules, optimum by a list.

    Nothing where there are none.
    """
    if not names:
        return {}
    return {
        "dynamic": {f"-:^{re.escape(name)}$": {} for name in names},
        "modules_in_block_to_quantize": [codes],
    }
