"""Time what writes text: the first token after a prompt, and one token at a time after it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import ConfigError
from workbench.models.architectures import decoder_start_token
from workbench.runtime.packed import Decoder, PackedModel, why_not_lean
from workbench.tensors.devices import synchronize

PROMPT_TOKENS = 128
NEW_TOKENS = 64


@dataclass(frozen=True)
class Generator:
    """A way to decode one sequence greedily.

    Attributes
    ----------
    run : callable
        Takes the prompt's ids and how many tokens to decode after the first new one; returns the
        seconds until the first token and those of the rest.
    path : str
        "short path" (:class:`workbench.runtime.packed.Decoder`) or "transformers".
    prompt : tuple of int
        As long as wanted, or as fits.
    new_tokens : int
    """

    run: Callable[[tuple[int, ...], int], tuple[float, float]]
    path: str
    prompt: tuple[int, ...]
    new_tokens: int

    @property
    def workload(self) -> str:
        """What is timed, in a few words."""
        return f"{self.new_tokens} tokens after {len(self.prompt)}"

    def __call__(self) -> tuple[float, float]:
        """Return the seconds until the first token, and those per further token."""
        first, rest = self.run(self.prompt, self.new_tokens)
        return first, rest / self.new_tokens


def make_generator(
    packed: PackedModel,
    max_length: int | None,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    new_tokens: int = NEW_TOKENS,
) -> Generator:
    """Return how a model is decoded: on the short path where there is one.

    Parameters
    ----------
    packed : PackedModel
    max_length : int or None
        Tokens that fit into the model; a longer prompt is cut, then the new tokens.
    prompt_tokens, new_tokens : int

    Raises
    ------
    ConfigError
        If fewer than 3 tokens fit.
    """
    model: Any = packed.hf_model
    limit = 2**31 if max_length is None else max_length
    if limit < 3:
        raise ConfigError(f"The model takes {limit} tokens; at least 3 are needed to time it.")
    new_tokens = min(new_tokens, limit // 2)
    prompt_tokens = min(prompt_tokens, limit - new_tokens - 1)
    size = model.config.get_text_config().vocab_size
    # Which tokens they are does not change the time, so they need no tokenizer and no data.
    prompt = tuple((7919 * i + 13) % size for i in range(prompt_tokens))
    capacity = prompt_tokens + new_tokens + 1
    windows = getattr(model.config, "sliding_window", None) or capacity
    if why_not_lean(model) is None and windows >= capacity:
        return Generator(_short(Decoder(model, capacity)), "short path", prompt, new_tokens)
    if getattr(model.config, "is_encoder_decoder", False):
        return Generator(_answering(model), "transformers", prompt, new_tokens)
    return Generator(_long(model), "transformers", prompt, new_tokens)


def _short(decoder: Decoder) -> Callable[[tuple[int, ...], int], tuple[float, float]]:
    def run(prompt: tuple[int, ...], new_tokens: int) -> tuple[float, float]:
        start = time.perf_counter()
        token = decoder.prefill(prompt).argmax()
        middle = time.perf_counter()
        for _ in range(new_tokens):
            token = decoder.step(token).argmax()
        return middle - start, time.perf_counter() - middle

    return run


def last_logits_only(model: Any) -> dict[str, int]:
    """Return what tells ``model.forward`` to compute the last token's logits only, if it can."""
    taken = inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in taken else {}


def _long(model: Any) -> Callable[[tuple[int, ...], int], tuple[float, float]]:
    only = last_logits_only(model)

    @torch.inference_mode()
    def run(prompt: tuple[int, ...], new_tokens: int) -> tuple[float, float]:
        start = time.perf_counter()
        out = model(torch.tensor([prompt], device=model.device), use_cache=True, **only)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(model.device)
        middle = time.perf_counter()
        read = [*prompt]
        for _ in range(new_tokens):
            kept = _kept(model, out)
            if kept:
                out = model(token, use_cache=True, **kept)
            else:  # a model that keeps nothing reads everything again
                read.append(int(token))
                out = model(torch.tensor([read], device=model.device), **only)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(model.device)
        return middle - start, time.perf_counter() - middle

    return run


def _kept(model: Any, out: Any) -> dict[str, Any]:
    """Return what a model keeps of the tokens it has read, as its next forward pass takes it.

    Keys and values of attention, or the state of a recurrent model (RWKV, Mamba).
    """
    taken = inspect.signature(model.forward).parameters
    for name in ("past_key_values", "state", "cache_params"):
        found = getattr(out, name, None)
        if found is not None and name in taken:
            return {name: found}
    return {}


def _answering(model: Any) -> Callable[[tuple[int, ...], int], tuple[float, float]]:
    """Return how an encoder-decoder is run: the encoder once, then the decoder by tokens."""
    from transformers.modeling_outputs import BaseModelOutput

    start_token = decoder_start_token(model.config)

    @torch.inference_mode()
    def run(prompt: tuple[int, ...], new_tokens: int) -> tuple[float, float]:
        start = time.perf_counter()
        ids = torch.tensor([prompt], device=model.device)
        token = torch.tensor([[start_token]], device=model.device)
        out = model(input_ids=ids, decoder_input_ids=token, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        # Not a tuple, as T5 takes it too: ProphetNet and T5Gemma ask for its names.
        read = BaseModelOutput(last_hidden_state=out.encoder_last_hidden_state)
        synchronize(model.device)
        middle = time.perf_counter()
        for _ in range(new_tokens):
            out = model(
                encoder_outputs=read,
                decoder_input_ids=token,
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        synchronize(model.device)
        return middle - start, time.perf_counter() - middle

    return run
