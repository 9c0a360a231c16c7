"""Exports loaded by the programs that they are for: their logits decide, not our reader's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.client import Peer
from tests.interop.windows import Windows, measured, perplexity
from workbench.layers import shared_inputs
from workbench.models import load_model
from workbench.steps import AWQ, GPTQ, RTN, DepthPruning, Mixed, QuantizeEmbeddings
from workbench.study import Study

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

TOLERANCE = 0.003
"""Of a perplexity: the loaders compute in float16, llama.cpp with inputs of 8 bits."""


@pytest.mark.parametrize(
    ("format", "loader"),
    [
        ("gptq", "transformers"),
        ("awq", "transformers"),
        ("compressed-tensors", "transformers"),
        ("gguf", "llama.cpp"),
    ],
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_studys_perplexity_by_the_formats_own_loader(
    symmetric: bool,
    format: str,
    loader: str,
    peer: Peer,
    study: Study,
    everything: Windows,
    tmp_path: Path,
) -> None:
    run = study.run(GPTQ(4, symmetric=symmetric))
    exported = run.export(tmp_path / "out", format)
    found, expected = perplexity(peer, loader, exported.path, everything), measured(run)
    print(f"{run.label} as {format} by {loader}: {found:.4f}, the study measured {expected:.4f}")
    assert found == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(
    ("recipe", "format", "loader"),
    [
        (DepthPruning(1), "hf", "transformers"),
        (GPTQ(2, group_size=32), "gptq", "transformers"),
        (GPTQ(3, group_size=64), "gptq", "transformers"),
        (GPTQ(4, symmetric=True), "gptq_v2", "gptqmodel"),
        (GPTQ(4, symmetric=True), "gptq_v1", "gptqmodel"),
        (GPTQ(4), "gptq_v1", "transformers"),
        (GPTQ(4, group_size=None), "gptq", "gptqmodel"),
        (RTN(8, symmetric=True), "gptq", "transformers"),
        (AWQ(4, exportable=True), "awq", "transformers"),
        (GPTQ(4, group_size=32), "awq", "gptqmodel"),
        (GPTQ(2, group_size=32), "compressed-tensors", "transformers"),
        (RTN(8, symmetric=True), "compressed-tensors", "transformers"),
        (RTN(8, group_size=None, symmetric=True), "int-quantized", "transformers"),
        (GPTQ(3, group_size=64), "gguf", "llama.cpp"),
        (RTN(8, symmetric=True), "gguf", "llama.cpp"),
        ([GPTQ(4, symmetric=True), QuantizeEmbeddings(8, symmetric=True)], "gguf", "llama.cpp"),
        ([], "gguf", "llama.cpp"),
    ],
    ids=str,
)
def test_every_format_and_width(
    recipe: Any,
    format: str,
    loader: str,
    peer: Peer,
    quick: Study,
    few: Windows,
    tmp_path: Path,
) -> None:
    run = quick.run(recipe)
    folder = run.export(tmp_path / "out", format).path
    expected = few.perplexity(run.model())
    assert perplexity(peer, loader, folder, few) == pytest.approx(expected, rel=TOLERANCE)
    assert few.perplexity(load_model(folder)) == pytest.approx(expected, rel=TOLERANCE)


def test_mixed_precision(peer: Peer, quick: Study, few: Windows, tmp_path: Path) -> None:
    groups = [group.key for group in shared_inputs(load_model("demo").hf_model)]
    steps = [GPTQ(4, symmetric=True), RTN(8, group_size=32, symmetric=True)]
    run = quick.run(Mixed(steps, {key: i % 2 for i, key in enumerate(groups[:-1])}))
    expected = few.perplexity(run.model())
    for format, loader in (("compressed-tensors", "transformers"), ("gguf", "llama.cpp")):
        folder = run.export(tmp_path / format, format).path
        assert perplexity(peer, loader, folder, few) == pytest.approx(expected, rel=TOLERANCE)


def test_llama_cpp_cuts_texts_into_the_same_tokens(
    peer: Peer, quick: Study, tmp_path: Path
) -> None:
    folder = quick.run([]).export(tmp_path / "out", "gguf").path
    texts = [
        "def main(argv=None):\n    return [1, 23, 4567]  # don't\n",
        "Grüße, 世界!  \t\n\n  é — “quoted” ½",
        "x" * 300,
        " leading and trailing   ",
    ]
    tokenizer = load_model("demo").tokenizer
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert peer.run({"tokenize": str(folder), "texts": texts})["tokens"] == expected
