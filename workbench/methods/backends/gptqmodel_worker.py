"""Quantize a saved model with GPTQModel; a program of its own: ``python … request.json``.

Nothing of the workbench is imported here, since it may run in another environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any


def end_with_the_caller(folder: str) -> None:
    """End, and leave nothing, when standard input closes: the process that asked was killed."""
    while os.read(0, 4096):  # sys.stdin, held by a thread, would be an error when Python ends
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Quantize what the request names."""
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    args = (request["temporary"],)
    threading.Thread(target=end_with_the_caller, args=args, daemon=True).start()
    # With fewer cores than it expects it raises when its pool of threads is made.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(min(os.cpu_count() or 1, 4)))
    os.chdir(Path(request["out"]).parent)  # it writes logs where it is

    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    config = QuantizeConfig(device=request["device"], **request["options"])
    model = GPTQModel.load(request["model"], config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in request["windows"]]
    awq = request["options"].get("quant_method") == "awq"
    # AWQ's default asks for a GPU.
    kernels = BACKEND.AWQ_TORCH if awq and request["device"] == "cpu" else BACKEND.AUTO
    model.quantize(rows, batch_size=1, backend=kernels)
    model.save(request["out"])


if __name__ == "__main__":
    main()
