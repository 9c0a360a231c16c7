"""Quantize with GPTQModel on request; runs inside the peer's own environment.

Requests and answers are those of ``llmcompressor_worker.py``, for ``"method": "gptq"`` alone. The
seconds are those of ``quantize``, which packs the weights as it goes; the model is loaded before
the clock starts, and is saved and loaded again, for its weights, after it stopped. Of this project
only ``serving.py`` beside it is imported here.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", os.environ["OMP_NUM_THREADS"])

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from safetensors.torch import save_file
from serving import serve

CONFIG_NAMES = {"true_sequential", "desc_act", "act_group_aware", "damp_percent", "offload_to_disk"}
CONFIG_DEFAULTS = {"offload_to_disk": False}
QUANTIZE_DEFAULTS = {"batch_size": 1}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize as requested, write the dequantized weights, and return the seconds taken."""
    tokens = np.load(request["tokens"])
    options = CONFIG_DEFAULTS | request.get("options", {})
    if request["group_size"] is None:  # its default order needs groups
        options |= {"act_group_aware": False, "desc_act": True}
    config = QuantizeConfig(
        bits=request["bits"],
        group_size=-1 if request["group_size"] is None else request["group_size"],
        sym=request["symmetric"],
        device="cpu",
        **{k: v for k, v in options.items() if k in CONFIG_NAMES},
    )
    # A device argument here would end in "cpu is not supported" further on.
    model = GPTQModel.load(request["model"], config, dtype=torch.float32)
    expected = {
        name
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in tokens]
    arguments = QUANTIZE_DEFAULTS | {k: v for k, v in options.items() if k not in CONFIG_NAMES}
    started, started_cpu = time.perf_counter(), time.process_time()
    model.quantize(rows, calibration_sort=None, **arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    # Its layers in memory hold zero points in the file's convention, or are in files already.
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        model = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu")
        dense = {
            name: module.dequantize_weight().detach().float().T.contiguous()
            for name, module in model.model.named_modules()
            if hasattr(module, "qweight")
        }
    if set(dense) != expected:
        raise RuntimeError(f"left dense: {sorted(expected - set(dense))}")
    save_file(dense, request["out"])
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "modules": len(dense),
        "fallbacks": [],
    }


if __name__ == "__main__":
    serve(run, ("gptqmodel", "torch", "transformers"))
