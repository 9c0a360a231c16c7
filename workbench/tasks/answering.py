"""How prompts and answers become the tokens of an encoder and of a decoder."""

from __future__ import annotations

from workbench.models.load import LoadedModel


def plain_tokens(model: LoadedModel, text: str) -> list[int]:
    """Return the tokens of a text without special ones."""
    return list(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def around_input(model: LoadedModel) -> tuple[list[int], list[int]]:
    """Return the special tokens that a model's tokenizer puts before and after a text.

    None before and an end of text after for T5; both for BART.
    """
    bare = plain_tokens(model, "a")
    whole = list(model.tokenizer("a", verbose=False)["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def answer_tokens(model: LoadedModel, text: str) -> list[int]:
    """Return what an encoder-decoder's decoder is to write, the end of text included.

    As the model's tokenizer writes targets, with the language's token where it has one before them
    (mBART-50, NLLB); one behind the end (mBART) is what the decoder starts with, not an answer.
    """
    tokens = list(model.tokenizer(text_target=text, verbose=False)["input_ids"])
    end = model.tokenizer.eos_token_id
    if tokens[-2:-1] == [end] and tokens[-1] in model.tokenizer.all_special_ids:
        tokens.pop()
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, int(end)]
