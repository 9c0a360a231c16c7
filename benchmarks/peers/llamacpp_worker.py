"""Run llama.cpp for ``packed_decode.py``; needs ``llama-cpp-python`` and ``gguf``, not torch.

Reads one JSON object per line from standard input and answers with one:

    {"write": "weights.npz", "to": "model.gguf", "about": {…}}    -> {"bytes": …}
    {"load": "model.gguf", "as": "Q4_0", "context": 256}          -> {"system": …}
    {"time": "Q4_0", "prompt": [ids], "new_tokens": 64}           -> {"prefill": s, "decode": s}
    {"logits": "Q4_0", "prompt": [ids]}                           -> {"logits": [...]}

In the npz, an array "NAME:Q4_0" or "NAME:Q8_0" holds a tensor's blocks as bytes, (rows, bytes of
a row), and "NAME:F32" its values; NAME is the tensor's name in a GGUF file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np


def write(request: dict[str, Any]) -> dict[str, Any]:
    import gguf

    about = request["about"]
    writer = gguf.GGUFWriter(request["to"], "llama")
    writer.add_context_length(about["context"])
    writer.add_embedding_length(about["hidden"])
    writer.add_block_count(about["blocks"])
    writer.add_feed_forward_length(about["intermediate"])
    writer.add_head_count(about["heads"])
    writer.add_head_count_kv(about["key_heads"])
    writer.add_layer_norm_rms_eps(about["epsilon"])
    writer.add_rope_dimension_count(about["hidden"] // about["heads"])
    writer.add_rope_freq_base(about["rope_theta"])
    writer.add_vocab_size(about["vocabulary"])
    # A tokenizer that llama.cpp accepts; only token ids are ever given to it.
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [f"token{i}" for i in range(len(tokens), about["vocabulary"])]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (about["vocabulary"] - 259)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    with np.load(request["write"]) as arrays:
        for key in arrays.files:
            name, _, kind = key.partition(":")
            raw = None if kind == "F32" else gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, arrays[key], raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()
    return {"bytes": os.path.getsize(request["to"])}


def load(request: dict[str, Any]) -> Any:
    from llama_cpp import Llama

    threads = int(os.environ["OMP_NUM_THREADS"])
    return Llama(
        request["load"],
        n_ctx=request["context"],
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=request.get("flash_attention", False),
        verbose=False,
    )


def logits_of(model: Any) -> np.ndarray:
    return np.ctypeslib.as_array(model._ctx.get_logits(), shape=(model.n_vocab(),))


def measure(model: Any, prompt: list[int], new_tokens: int) -> dict[str, Any]:
    model.reset()
    start = time.perf_counter()
    model.eval(prompt)
    token = int(logits_of(model).argmax())
    middle = time.perf_counter()
    for _ in range(new_tokens):
        model.eval([token])
        token = int(logits_of(model).argmax())
    return {"prefill": middle - start, "decode": time.perf_counter() - middle}


def main() -> None:
    import llama_cpp

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is no answer
    models: dict[str, Any] = {}

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    system = llama_cpp.llama_print_system_info().decode()
    answer({"llama-cpp-python": llama_cpp.__version__, "system": system})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "write" in request:
                answer(write(request))
            elif "load" in request:
                models[request["as"]] = load(request)
                answer({"loaded": request["as"]})
            elif "logits" in request:
                model = models[request["logits"]]
                model.reset()
                model.eval(request["prompt"])
                answer({"logits": logits_of(model).tolist()})
            else:
                model = models[request["time"]]
                answer(measure(model, request["prompt"], request["new_tokens"]))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
