"""Load checkpoints, and make some, with the programs that others use; runs in their environment.

Requests, one JSON object per line, and answers:

    {"load": "transformers", "gptqmodel", "llama.cpp" or "mlx", "folder": …, "windows": file.json}
        -> {"loss": summed over all predictions, "predictions": …, "kinds": [classes of q_proj]}
    {"make": "gptqmodel" or "llmcompressor", "model": folder, "folder": …, "windows": …, …}
        -> {}
    {"tokenize": folder, "texts": […]}                           -> {"tokens": [[…], …]}
    {"retrieve": folder, "queries": {…}, "documents": {…}, "relevant": {query: [documents]}}
        -> {"vectors": [of the documents], "scores": what its evaluator says}

Of this project only ``serving.py`` is imported here.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiling takes longer than all that is run here
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import numpy as np
import torch
from serving import serve
from torch.nn.functional import cross_entropy


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked."""
    if "tokenize" in request:
        model = _llama(request["tokenize"])
        return {"tokens": [model.tokenize(t.encode(), add_bos=False) for t in request["texts"]]}
    if "retrieve" in request:
        return retrieve(request)
    windows = json.loads(Path(request["windows"]).read_text())
    if "make" in request:
        make = {"gptqmodel": make_gptqmodel, "llmcompressor": make_llmcompressor}
        make[request["make"]](request, windows)
        return {}
    load = {"transformers": transformers_logits, "gptqmodel": gptqmodel_logits}
    if request["load"] == "llama.cpp":
        return _loss(llama_logits(request["folder"]), windows, [])
    if request["load"] == "mlx":
        return _loss(mlx_logits(request["folder"]), windows, [])
    model = load[request["load"]](request["folder"])
    kinds = {type(m).__name__ for n, m in model.named_modules() if n.endswith("q_proj")}

    @torch.no_grad()
    def logits(window: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([window])).logits[0].float()

    answer = _loss(logits, windows, sorted(kinds))
    gc.collect()
    return answer


def retrieve(request: dict[str, Any]) -> dict[str, Any]:
    """Return vectors and scores of sentence-transformers' own evaluator."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    model = SentenceTransformer(request["retrieve"], device="cpu")
    queries, documents = request["queries"], request["documents"]
    relevant = {query: set(named) for query, named in request["relevant"].items()}
    evaluate = InformationRetrievalEvaluator(
        queries, documents, relevant, show_progress_bar=False, name="", write_csv=False
    )
    scores = {name.replace("@", "_at_"): float(value) for name, value in evaluate(model).items()}
    vectors = model.encode_document(list(documents.values()), normalize_embeddings=True)
    return {"vectors": vectors.tolist(), "scores": scores}


def _loss(logits: Any, windows: list[list[int]], kinds: list[str]) -> dict[str, Any]:
    total, count = 0.0, 0
    for window in windows:
        found, targets = logits(window)[:-1], torch.tensor(window[1:])
        total += float(cross_entropy(found, targets, reduction="sum"))
        count += len(targets)
    return {"loss": total, "predictions": count, "kinds": kinds}


def transformers_logits(folder: str) -> Any:
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    about = json.loads((Path(folder) / "config.json").read_text()).get("quantization_config", {})
    options: dict[str, Any] = {"dtype": "auto"}
    if about.get("quant_method") not in ("gptq", "awq"):  # theirs have a dtype that they compute in
        options["dtype"] = torch.float32  # products in float16 take minutes on a CPU without them
    groups = about.get("config_groups", {}).values()
    if any(not group["weights"]["symmetric"] for group in groups):  # as the model card says
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def gptqmodel_logits(folder: str) -> Any:
    from gptqmodel import BACKEND, GPTQModel

    return GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu").model


def _llama(folder: str) -> Any:
    from llama_cpp import Llama

    threads = int(os.environ["OMP_NUM_THREADS"])
    path = next(Path(folder).glob("*.gguf"))
    return Llama(
        str(path),
        n_ctx=512,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        verbose=False,
    )


def llama_logits(folder: str) -> Any:
    model = _llama(folder)

    def logits(window: list[int]) -> torch.Tensor:
        model.reset()
        model.eval(window)
        return torch.from_numpy(np.array(model.scores[: len(window)]))

    return logits


def mlx_logits(folder: str) -> Any:
    import mlx.core as mx
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)  # a CPU computes float16 fifteen times as slowly

    def logits(window: list[int]) -> torch.Tensor:
        found = model(mx.array([window]))[0].astype(mx.float32)
        return torch.from_numpy(np.array(found))

    return logits


def make_gptqmodel(request: dict[str, Any], windows: list[list[int]]) -> None:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    config = QuantizeConfig(device="cpu", offload_to_disk=False, **request["options"])
    model = GPTQModel.load(request["model"], config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in windows]
    awq = request["options"].get("quant_method") == "awq"  # its default asks for a GPU
    model.quantize(rows, batch_size=1, backend=BACKEND.AWQ_TORCH if awq else BACKEND.AUTO)
    model.save(request["folder"])


def make_llmcompressor(request: dict[str, Any], windows: list[list[int]]) -> None:
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    groups = {"group_0": {"targets": ["Linear"], "weights": request["options"]}}
    data = {"input_ids": windows, "attention_mask": [[1] * len(row) for row in windows]}
    oneshot(
        model=model,
        processor=tokenizer,
        recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"], actorder=request["actorder"]),
        dataset=Dataset.from_dict(data),
        num_calibration_samples=len(windows),
        max_seq_length=max(map(len, windows)),
    )
    model.save_pretrained(request["folder"], save_compressed=True)
    tokenizer.save_pretrained(request["folder"])


if __name__ == "__main__":
    serve(
        run, ("transformers", "gptqmodel", "llmcompressor", "llama-cpp-python", "mlx-lm", "torch")
    )
