"""A transformers tokenizer in the terms of llama.cpp."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_PATTERNS = {
    f"{_CONTRACTIONS}\\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    f"{_CONTRACTIONS}\\p{{N}}{_REST}": "qwen2",
}
"""llama.cpp's name of how a text is cut into words, by the expression in tokenizer.json."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes
    ----------
    model : str
        "gpt2" for bytes written as letters, "llama" for SentencePiece with a fallback to bytes.
    pre : str
        How a text is cut into words before merging.
    tokens : list of str
    kinds : list of int
    scores : list of float
        Empty where merges are given.
    merges : list of str
    space_prefix : bool
        Whether a space is put before a text.
    """

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    space_prefix: bool = False


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary | str:
    """Return a tokenizer's vocabulary, or a clause that says why llama.cpp has none like it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    size : int
        Rows of the model's table of embeddings; ids without a token are filled up.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return f"its tokenizer ({type(tokenizer).__name__}) has no tokenizer.json"
    data: dict[str, Any] = json.loads(backend.to_str())
    model = data["model"]
    if model.get("type") != "BPE":
        return f"its tokenizer is of type {model.get('type')!r}, and GGUF's is BPE"
    special = {t["id"]: bool(t["special"]) for t in data.get("added_tokens") or []}
    ids = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(ids) >= size:
        return f"its tokenizer has ids up to {max(ids)} and the model embeds {size}"
    tokens = [ids.get(index, f"[PAD{index}]") for index in range(size)]
    kinds = []
    for index in range(size):
        plain = _NORMAL if index in ids else _UNUSED
        kinds.append((_CONTROL if special[index] else _USER_DEFINED) if index in special else plain)
    pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    if not pairs:
        return "its tokenizer merges nothing, and llama.cpp loads none without merges"
    if model.get("byte_fallback"):
        return _sentencepiece(data, tokens, kinds, pairs)
    pre = _words(data)
    if pre is None:
        kind = json.dumps(data.get("pre_tokenizer"))[:120]
        return f"its tokenizer cuts texts in a way that is not known of llama.cpp ({kind})"
    return Vocabulary("gpt2", pre, tokens, kinds, [], [" ".join(pair) for pair in pairs])


def _words(data: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of a byte-level tokenizer's way to cut texts."""
    pre = data.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre])
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    # Qwen2's composes characters (NFC); llama.cpp leaves that to whoever gives the text, as its own
    # conversion of these models does.
    composes = (data.get("normalizer") or {"type": "NFC"}).get("type") == "NFC"
    if not composes or len(levels) != 1 or levels[0].get("add_prefix_space"):
        return None
    others = [part for part in parts if part is not levels[0]]
    if levels[0].get("use_regex", True):
        if not others:
            return "gpt-2"
        digits = others == [{"type": "Digits", "individual_digits": True}]
        return "smollm" if digits else None
    if len(others) == 1 and others[0].get("type") == "Split":
        return _PATTERNS.get(others[0].get("pattern", {}).get("Regex", ""))
    return None


def _sentencepiece(
    data: dict[str, Any], tokens: list[str], kinds: list[int], pairs: list[tuple[Any, ...]]
) -> Vocabulary | str:
    """Return a SentencePiece vocabulary: merges become scores, the earlier the higher."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    unknown = data["model"].get("unk_token")
    for index, token in enumerate(tokens):
        if token == unknown:
            kinds[index] = _UNKNOWN
        elif len(token) == 6 and token.startswith("<0x") and kinds[index] == _NORMAL:
            kinds[index] = _BYTE
    scores = [-float(ranks[t]) if t in ranks else 0.0 for t in tokens]
    text = json.dumps([data.get("normalizer"), data.get("pre_tokenizer")], ensure_ascii=False)
    if "▁" not in text:
        return "its tokenizer falls back to bytes, but does not write spaces as SentencePiece does"
    prefix = '"Prepend"' in text or '"prepend_scheme": "first"' in text
    prefix = prefix or '"prepend_scheme": "always"' in text
    return Vocabulary("llama", "default", tokens, kinds, scores, [], prefix)
