"""A tokenizer in llama.cpp's terms: how texts are cut, which tokens are special, what is not."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny_tokenizer
from workbench.export.gguf_tokenizer import Vocabulary, vocabulary_of

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


MERGE = ("q", "u")


def byte_level(*parts: Any, **options: Any) -> PreTrainedTokenizerFast:
    backend = tiny_tokenizer(MERGE).backend_tokenizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, **options)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*parts, level]) if parts else level
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 has it: spaces as ▁, bytes for what is not in the vocabulary."""
    tokens = ["<unk>", "<s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "ab", "▁ab"]
    backend = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[("a", "b"), ("▁", "ab")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.ByteFallback()
    backend.add_special_tokens([AddedToken("<s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def test_byte_level() -> None:
    found = vocabulary_of(tiny_tokenizer(MERGE), 264)
    assert isinstance(found, Vocabulary)
    assert (found.model, found.pre, found.scores) == ("gpt2", "gpt-2", [])
    assert found.tokens[:4] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert found.kinds[:5] == [3, 3, 3, 3, 1]
    assert found.tokens[260:] == ["qu", *(f"[PAD{i}]" for i in range(261, 264))]
    assert found.merges == ["q u"]
    assert found.kinds[260:] == [1, 5, 5, 5]


def test_known_ways_to_cut_texts() -> None:
    split = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
    qwen2 = vocabulary_of(byte_level(split, use_regex=False), 261)
    smollm = vocabulary_of(byte_level(pre_tokenizers.Digits(individual_digits=True)), 261)
    assert isinstance(qwen2, Vocabulary)
    assert isinstance(smollm, Vocabulary)
    assert (qwen2.pre, smollm.pre) == ("qwen2", "smollm")


def test_qwen2_composes_characters_before() -> None:
    split = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
    tokenizer = byte_level(split, use_regex=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    found = vocabulary_of(tokenizer, 261)
    assert isinstance(found, Vocabulary)
    assert found.pre == "qwen2"
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "is not known" in str(vocabulary_of(tokenizer, 261))


def test_sentencepiece_merges_become_scores() -> None:
    found = vocabulary_of(sentencepiece(), 263)
    assert isinstance(found, Vocabulary)
    assert (found.model, found.merges, found.space_prefix) == ("llama", [], True)
    assert found.kinds[:3] == [2, 3, 6]
    scores = dict(zip(found.tokens, found.scores, strict=True))
    assert scores["ab"] > scores["▁ab"]


@pytest.mark.parametrize(
    ("tokenizer", "size", "words"),
    [
        (byte_level(pre_tokenizers.Punctuation()), 261, "is not known of llama.cpp"),
        (byte_level(pre_tokenizers.Whitespace(), use_regex=False), 261, "is not known"),
        (tiny_tokenizer(), 260, "merges nothing"),
        (tiny_tokenizer(), 100, "ids up to 259 and the model embeds 100"),
        (object(), 260, "has no tokenizer.json"),
        (
            PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
            ),
            260,
            "of type 'WordLevel'",
        ),
    ],
    ids=["punctuation", "whitespace", "no merges", "small table", "no fast one", "word level"],
)
def test_what_is_refused(tokenizer: Any, size: int, words: str) -> None:
    found = vocabulary_of(tokenizer, size)
    assert isinstance(found, str)
    assert words in found
