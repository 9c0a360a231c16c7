"""Quantize a saved model with GPTQModel; a program of its own: ``python … request.json``.

Nothing of the workbench is imported here, since it may run in another environment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # With fewer cores than it expects it raises when its pool of threads is made.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(min(os.cpu_count() or 1, 4)))
    os.chdir(Path(request["out"]).parent)  # it writes logs where it is

    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    cuda = torch.cuda.is_available()
    config = QuantizeConfig(device="cuda" if cuda else "cpu", **request["options"])
    model = GPTQModel.load(request["model"], config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in request["windows"]]
    awq = request["options"].get("quant_method") == "awq"
    kernels = BACKEND.AWQ_TORCH if awq and not cuda else BACKEND.AUTO  # AWQ's default asks for CUDA
    model.quantize(rows, batch_size=1, backend=kernels)
    model.save(request["out"])


if __name__ == "__main__":
    main()
