"""Text to tokens by the harness's rules, so that its numbers are met exactly.

The rules are those of ``lm_eval.models.huggingface.HFLM`` with its defaults: special tokens as the
tokenizer adds them, blanks at the end of a context counted to what follows it, and requests that
are too long cut on the left, such that what is read (all but the last token) fits.
"""

from __future__ import annotations

from typing import Any

from workbench.errors import DataError
from workbench.models.load import LoadedModel

DEFAULT_MAX_LENGTH = 2048
"""The harness's, where neither configuration nor tokenizer sets a limit."""

_UNSET = 10**29  # transformers' "no limit" of a tokenizer is 1e30


class Encoder:
    """One model's tokenizer, as the harness uses it.

    Parameters
    ----------
    model : LoadedModel
    most : int or None
        Fewer tokens than the model takes.
    whole : bool
        Refuse what follows a context where it does not fit, as the harness does.
    """

    def __init__(self, model: LoadedModel, most: int | None = None, *, whole: bool = False) -> None:
        self._whole = whole
        self._tokenizer: Any = model.tokenizer
        ids = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        self.prefix = next((int(token) for token in ids if token is not None), None)
        limit = _max_length(model)
        self.max_length = limit if most is None else min(limit, most)

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        """Return a text's tokens; ``special`` None adds what the tokenizer adds by itself."""
        if special is None and self.prefix is not None:
            begin = str(self._tokenizer.decode(self.prefix))
            special = False if begin and text.startswith(begin) else None
        more = {} if special is None else {"add_special_tokens": special}
        return list(self._tokenizer(text, verbose=False, **more)["input_ids"])

    def pair(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Return the tokens of both, and how many of them are given.

        Raises
        ------
        DataError
            If what follows does not fit and must be ``whole``.
        """
        if not context:
            answer = self.encode(continuation, special=False)
            start = [] if self.prefix is None else [self.prefix]
            given = answer[:1] if not start or answer[:1] == start else start
            answer = answer[1:] if given == answer[:1] else answer
        else:
            stripped = context.rstrip()
            continuation = context[len(stripped) :] + continuation
            given = self.encode(stripped)
            answer = self.encode(stripped + continuation)[len(given) :]
        if self._whole and len(answer) > self.max_length:
            raise DataError(
                f"An answer has {len(answer):,} tokens ({continuation[:60]!r} …), and only"
                f" {self.max_length:,} are read at once, so it cannot be scored as a whole; give"
                " shorter answers, a greater sequence_length or a model that takes more."
            )
        tokens = (given + answer)[-(self.max_length + 1) :]
        return tokens, max(1, len(tokens) - len(answer))

    def windows(self, text: str) -> list[tuple[list[int], int]]:
        """Return windows in which every token of a text is predicted once.

        Each as its tokens and how many of them are given: one, except in the last window, which
        reads as much before it as fits.
        """
        tokens, size = self.encode(text), self.max_length
        start = [] if self.prefix is None else [self.prefix]
        first = start + tokens[:size]
        found = [(first, 1)] if len(first) > 1 else []
        for begin in range(size, len(tokens), size):
            end = min(begin + size, len(tokens))
            found.append((tokens[end - size - 1 : end], size + 1 - (end - begin)))
        return found

    def prompt(self, context: str, new_tokens: int) -> list[int]:
        """Return the tokens that an answer of so many tokens is written after."""
        room = max(1, self.max_length - new_tokens)
        begin = getattr(self._tokenizer, "bos_token", None)
        special = False if begin and context.startswith(begin) else None
        return self.encode(context, special=special)[-room:]


def _max_length(model: LoadedModel) -> int:
    config = model.hf_model.config
    config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    limit = getattr(model.tokenizer, "model_max_length", None)
    return DEFAULT_MAX_LENGTH if limit is None or limit > _UNSET else int(limit)
