"""Exports loaded by the programs that they are for: their logits decide, not our reader's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.client import Peer
from tests.exported import exported
from tests.interop.windows import Windows, measured, perplexity, windows_of
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.export import gguf_tokenizer, publish
from workbench.export.base import code_layers
from workbench.models.layers import shared_inputs
from workbench.models.load import load_model
from workbench.models.loaded import LoadedModel
from workbench.recipes import AWQ, GPTQ, RTN, DepthPruning, Mixed, QuantizeEmbeddings
from workbench.recipes.recipe import Recipe
from workbench.study import Study

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

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
    "recipe",
    [GPTQ(4, grid="q4_k"), [GPTQ(3, grid="q3_k"), QuantizeEmbeddings(6, grid="q6_k")]],
    ids=str,
)
def test_the_studys_perplexity_of_k_quants(
    recipe: Any, peer: Peer, study: Study, everything: Windows, tmp_path: Path
) -> None:
    """Layers 256 wide are on the grid, those 640 wide in the blocks of 32 that llama.cpp takes."""
    run = study.run(recipe)
    folder = run.export(tmp_path / "out", "gguf").path
    found, expected = perplexity(peer, "llama.cpp", folder, everything), measured(run)
    print(f"{run.label} by llama.cpp: {found:.4f}, the study measured {expected:.4f}")
    assert found == pytest.approx(expected, rel=0.005)
    kinds = {weight.kind for weight in load_model(folder).weights.values()}
    assert kinds == {"superblocks", "quantized"}


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
        (RTN(5, group_size=32), "gguf", "llama.cpp"),
        (RTN(5, group_size=32, symmetric=True), "gguf", "llama.cpp"),
        (GPTQ(2, grid="q2_k"), "gguf", "llama.cpp"),
        (GPTQ(3, grid="q3_k"), "gguf", "llama.cpp"),
        ([GPTQ(5, grid="q5_k"), QuantizeEmbeddings(6, grid="q6_k")], "gguf", "llama.cpp"),
        (GPTQ(2, group_size=32), "mlx", "mlx"),
        ([GPTQ(3, group_size=64), QuantizeEmbeddings(8)], "mlx", "mlx"),
        (RTN(5, group_size=None), "mlx", "mlx"),
        (RTN(6, symmetric=True), "mlx", "mlx"),
        (RTN(8), "mlx", "mlx"),
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
    tolerance = 0.001 if loader == "mlx" else TOLERANCE
    assert perplexity(peer, loader, folder, few) == pytest.approx(expected, rel=tolerance)
    assert few.perplexity(load_model(folder)) == pytest.approx(expected, rel=TOLERANCE)


def test_mixed_precision(peer: Peer, quick: Study, few: Windows, tmp_path: Path) -> None:
    groups = [group.key for group in shared_inputs(load_model("demo").hf_model)]
    steps = [GPTQ(4, symmetric=True), RTN(8, group_size=32, symmetric=True)]
    run = quick.run(Mixed(steps, {key: i % 2 for i, key in enumerate(groups[:-1])}))
    expected = few.perplexity(run.model())
    loaders = {"compressed-tensors": "transformers", "gguf": "llama.cpp", "mlx": "mlx"}
    for format, loader in loaders.items():
        folder = run.export(tmp_path / format, format).path
        assert perplexity(peer, loader, folder, few) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("format", "loader"),
    [("gptq", "transformers"), ("gptq", "gptqmodel"), ("awq", "transformers")],
)
def test_layers_that_stay_dense(
    format: str, loader: str, peer: Peer, quick: Study, few: Windows, tmp_path: Path
) -> None:
    """Loaders are told which; one that takes them for codes fails, or has other numbers."""
    groups = [group.key for group in shared_inputs(load_model("demo").hf_model)]
    run = quick.run(Mixed([GPTQ(4, symmetric=True)], dict.fromkeys(groups[1:-1], 0)))
    assert len(run.model().weights) == len(code_layers(quick.run(GPTQ(4)).model())) - 4
    folder = run.export(tmp_path / "out", format).path
    expected = few.perplexity(run.model())
    assert perplexity(peer, loader, folder, few) == pytest.approx(expected, rel=TOLERANCE)


WIDE = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 264}
"""Of tiny models whose layers have whole blocks of 32."""


def written(model: LoadedModel, folder: Path) -> Path:
    """Write a GGUF file of a model that is no study's."""
    return exported(model, folder, "gguf").path


@pytest.mark.parametrize("recipe", [(), RTN(4, group_size=32)], ids=["dense", "codes"])
@pytest.mark.parametrize(("architecture", "kv_heads"), [("Qwen2", 2), ("Mistral", 2), ("Llama", 4)])
def test_other_architectures_by_llama_cpp(
    architecture: str, kv_heads: int, recipe: Any, peer: Peer, tmp_path: Path
) -> None:
    """Of random weights so large that a row or a bias in a wrong place changes the loss."""
    small = ARCHITECTURES[architecture] | WIDE
    small |= {
        "num_key_value_heads": kv_heads,
        "sliding_window": None,
        "class": f"{architecture}ForCausalLM",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Wide", small)
        hf_model = tiny_model("Wide")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in hf_model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    model = compress(load_model(hf_model, tiny_tokenizer(("q", "u"))), Recipe.of(recipe)).model
    rows = torch.randint(4, 260, (4, 24), generator=generator).tolist()
    windows = windows_of(tmp_path / "rows.json", rows)
    expected = windows.perplexity(model)
    found = perplexity(peer, "llama.cpp", written(model, tmp_path / "out"), windows)
    tolerance = 0.02 if recipe else 0.005  # beside codes llama.cpp rounds inputs to 8 bits
    assert found == pytest.approx(expected, rel=tolerance)
    for layer in model.hf_model.model.layers:
        query = layer.self_attn.q_proj
        query.weight.data = query.weight.data.flip(0)
    assert windows.perplexity(model) != pytest.approx(expected, rel=2 * tolerance)


TEXTS = [
    "def main(argv=None):\n    return [1, 23, 4567]  # don't\n",
    "Grüße, 世界!  \t\n\n  é — “quoted” ½",
    "x" * 300,
    " leading and trailing   ",
]


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2"])
def test_llama_cpp_knows_other_ways_to_cut_texts(pre: str, peer: Peer, tmp_path: Path) -> None:
    demo = load_model("demo")
    pattern = next(regex for regex, name in gguf_tokenizer._PATTERNS.items() if name == pre)
    backend = demo.tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.normalizer = normalizers.NFC() if pre == "qwen2" else None
    expected = [demo.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    folder = written(demo, tmp_path / "out")
    assert peer.run({"tokenize": str(folder), "texts": TEXTS})["tokens"] == expected


def sentencepiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer as Llama 2 and Mistral have them: ▁ for spaces, bytes for the unknown."""
    learning = Tokenizer(BPE())
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    learning.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=900, show_progress=False))
    pieces = sorted(learning.get_vocab().items(), key=lambda item: item[1])
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [piece for piece, _ in pieces]
    known = set(tokens)
    merges = [  # as transformers derives them: every way to make a piece of two
        (piece[:i], piece[i:])
        for piece, _ in pieces
        for i in range(1, len(piece))
        if piece[:i] in known and piece[i:] in known
    ]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(
        BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_llama_cpp_reads_sentencepiece_as_we_write_it(peer: Peer, tmp_path: Path) -> None:
    path = Path(publish.__file__)
    tokenizer = sentencepiece(path.read_text().splitlines())
    small = (
        ARCHITECTURES["Llama"] | WIDE | {"vocab_size": len(tokenizer), "class": "LlamaForCausalLM"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "Wide", small)
        model = load_model(tiny_model("Wide"), tokenizer)
    texts = [*TEXTS, path.read_text()[:2000]]
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    folder = written(model, tmp_path / "out")
    assert peer.run({"tokenize": str(folder), "texts": texts})["tokens"] == expected
    assert max(map(max, expected)) > 600  # pieces, not bytes alone


def test_llama_cpp_cuts_texts_into_the_same_tokens(
    peer: Peer, quick: Study, tmp_path: Path
) -> None:
    folder = quick.run([]).export(tmp_path / "out", "gguf").path
    tokenizer = load_model("demo").tokenizer
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert peer.run({"tokenize": str(folder), "texts": TEXTS})["tokens"] == expected
