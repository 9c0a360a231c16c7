"""Quantize with llm-compressor on request; runs inside the peer's own environment.

One JSON request per line on standard input, one JSON answer per line on standard output:

    {"model": folder, "tokens": file.npy, "out": file.safetensors, "method": "gptq" or "rtn",
     "bits": 4, "group_size": 128 or null, "symmetric": false, "options": {...}}

The answer holds the wall and CPU seconds that ``oneshot`` took (the model is loaded before the
clock starts), and ``out`` is the file of dequantized weights, float32, one tensor per quantized
module. The first line that is written describes the environment. The number of threads is that of
OMP_NUM_THREADS. Of this project only ``serving.py`` beside it is imported.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from compressed_tensors.quantization import fake_quantize
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import save_file
from serving import serve
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

GPTQ_DEFAULTS = {"actorder": "static", "dampening_frac": 0.01, "block_size": 128}
ONESHOT_DEFAULTS = {"pipeline": "sequential", "batch_size": 1}
ONESHOT_NAMES = {
    "pipeline",
    "batch_size",
    "propagate_error",
    "sequential_targets",
    "sequential_targets_per_subgraph",
    "sequential_prefetch",
}


def modifier(request: dict[str, Any]) -> GPTQModifier | QuantizationModifier:
    """Return the peer's recipe for one request; the observer is its default, minimum-maximum."""
    weights: dict[str, Any] = {
        "num_bits": request["bits"],
        "type": "int",
        "symmetric": request["symmetric"],
        "strategy": "channel" if request["group_size"] is None else "group",
    }
    if request["group_size"] is not None:
        weights["group_size"] = request["group_size"]
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    if request["method"] == "rtn":
        return QuantizationModifier(config_groups=groups, ignore=["lm_head"])
    options = {k: v for k, v in request.get("options", {}).items() if k not in ONESHOT_NAMES}
    return GPTQModifier(config_groups=groups, ignore=["lm_head"], **{**GPTQ_DEFAULTS, **options})


def unused_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer for the argument that ``oneshot`` insists on; the data are token ids."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")


@torch.no_grad()
def rounded(module: torch.nn.Module, method: str) -> torch.Tensor:
    """Return a module's dequantized weight, float32; RTN leaves the rounding until a save."""
    weight = module.weight.detach().float()
    if method == "rtn":
        scale, zero_point = module.weight_scale, module.weight_zero_point
        weight = fake_quantize(weight, scale, zero_point, module.quantization_scheme.weights)
    return weight.contiguous()


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize as requested, write the dequantized weights, and return the seconds taken."""
    tokens = np.load(request["tokens"])
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    expected = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    arguments: dict[str, Any] = {}
    if request["method"] == "gptq":
        arguments = {
            "dataset": Dataset.from_dict(
                {"input_ids": tokens.tolist(), "attention_mask": np.ones_like(tokens).tolist()}
            ),
            "num_calibration_samples": len(tokens),
            "max_seq_length": tokens.shape[1],
            "shuffle_calibration_samples": False,
            **ONESHOT_DEFAULTS,
            **{k: v for k, v in request.get("options", {}).items() if k in ONESHOT_NAMES},
        }
    recipe = modifier(request)
    tokenizer = unused_tokenizer()
    started, started_cpu = time.perf_counter(), time.process_time()
    oneshot(model=model, processor=tokenizer, recipe=recipe, **arguments)
    dense = {
        name: rounded(module, request["method"])
        for name, module in model.named_modules()
        if getattr(getattr(module, "quantization_scheme", None), "weights", None) is not None
    }
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    if set(dense) != expected:
        raise RuntimeError(f"left dense: {sorted(expected - set(dense))}")
    save_file(dense, request["out"])
    fallbacks = getattr(recipe, "_rtn_fallback_module_names", [])
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "modules": len(dense),
        "fallbacks": list(fallbacks),
    }


if __name__ == "__main__":
    serve(run, ("llmcompressor", "compressed-tensors", "torch", "transformers"))
