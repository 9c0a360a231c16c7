"""Run torchao's int4 layers for CPUs for ``packed_decode.py``; needs torch, torchao, transformers.

Reads one JSON object per line from standard input and answers with one:

    {"load": folder, "as": "int4", "group_size": 32}        -> {"layers": …}
    {"time": "int4", "prompt": [ids], "new_tokens": 64}     -> {"prefill": s, "decode": s}

The layers run in transformers' own modules with its default cache, as torchao's users run them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def load(request: dict[str, Any]) -> Any:
    import torch
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import quantize_
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(request["load"], dtype=torch.bfloat16).eval()
    config = PrototypeInt4WeightOnlyConfig(group_size=request["group_size"])

    def chosen(module: torch.nn.Module, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and "lm_head" not in name

    quantize_(model, config, filter_fn=chosen)
    return model


def measure(model: Any, prompt: list[int], new_tokens: int) -> dict[str, Any]:
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        out = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        middle = time.perf_counter()
        for _ in range(new_tokens):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
    return {"prefill": middle - start, "decode": time.perf_counter() - middle}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    import torch
    import torchao

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    models: dict[str, Any] = {}

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    answer({"torchao": torchao.__version__, "torch": torch.__version__})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                models[request["as"]] = load(request)
                answer({"loaded": request["as"]})
            else:
                model = models[request["time"]]
                answer(measure(model, request["prompt"], request["new_tokens"]))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
