"""Every architecture in every format that can hold it: read again, it is the run's model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.models.families import FAMILIES, PARTLY, family_folder, family_model
from tests.tiny import ARCHITECTURES, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.export import FORMATS, export_model, offers
from workbench.export.convert import prove_on_texts
from workbench.models.architectures import auto_class
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe

EVERY = [kind for kind in {**ARCHITECTURES, **FAMILIES, **PARTLY} if kind != "ViT"]
FAST = ("Llama", "GPT2", "Bert", "Mixtral", "Rwkv")
STEPS = (
    RTN(4, group_size=8),
    RTN(4, group_size=8, symmetric=True),
    RTN(8, group_size=32, symmetric=True),  # whose groups GGUF and MLX have; not all layers fit
)
ALWAYS = {"hf"}
"""Formats that hold every model; Llama fits into all of them by one of the steps."""


KINDS = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in FAST else pytest.mark.slow) for k in EVERY]
)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_transformers_reads_the_run_from_a_dense_export(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = load_model(family_folder(kind, tmp_path / "m", dtype), dtype="float32", device="cpu")
    assert model.stored_dtype == dtype
    small = compress(model, Recipe.of(RTN(4, group_size=8))).model
    export_model(
        small,
        tmp_path / "out",
        "hf",
        prove=lambda found, dtype: prove_on_texts(small, found, dtype),
        card=lambda format, n_bytes, proof: "",
    )
    auto = auto_class(type(small.hf_model).__name__)
    theirs = auto.from_pretrained(tmp_path / "out", dtype=torch.float32)
    proof = prove_on_texts(small, dataclasses.replace(small, hf_model=theirs), dtype)
    assert proof.n_predictions > 3
    # The last bits of small products depend on where in memory a matrix begins.
    assert proof.relative < 1e-5 or dtype == torch.bfloat16


@KINDS
def test_an_export_agrees_with_the_run(kind: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 264} | ({"vocab_size_per_layer_input": 264} if kind == "Gemma4" else {})
    tokenizer = tiny_tokenizer(("q", "u"))  # without merges llama.cpp loads none
    model = load_model(family_model(kind, **sizes), tokenizer, device="cpu")
    held = set()
    for number, step in enumerate(STEPS):
        small = compress(model, Recipe.of(step)).model
        for offer in offers(small):
            if offer.refusal is not None or (offer.format == "onnx" and number < 2):
                continue  # tracing takes seconds, and tests/export/test_onnx.py has every family
            held.add(offer.format)
            folder = tmp_path / f"{offer.format}-{number}"
            done = export_model(
                small,
                folder,
                offer.format,
                prove=lambda found, dtype, made=small: prove_on_texts(made, found, dtype),
                card=lambda format, n_bytes, proof: "",
            )
            assert done.tensor_bytes == done.predicted_bytes == offer.size_bytes
            assert done.kept_dense == offer.kept_dense
            if offer.format == "hf":
                continue
            found, dense = FORMATS[offer.format].reload(small, folder), done.kept_dense
            assert set(found.weights) == set(small.weights) - set(dense)
            assert set(dense) < set(small.weights)
    assert held >= (set(FORMATS) if kind == "Llama" else ALWAYS)
