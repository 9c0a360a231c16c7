"""Answers written greedily until a stop string, as the harness has them written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.progress import Monitor
from workbench.tasks.base import BATCH_TOKENS, pad_token

_MORE_TOKENS = 4  # a stop string may end within a token that began before it


def write_answers(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    stops: Sequence[str],
    monitor: Monitor,
    detail: str,
    batch_size: int | None = None,
) -> list[str]:
    """Return the answer to each prompt, cut before the first stop string.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    prompts : sequence of sequence of int
        Tokens; the longest is passed first.
    new_tokens : int
        Most tokens of an answer.
    stops : sequence of str
        The end of text is one, too.
    monitor : Monitor
        Told after every batch, stage ``"generate"``; may cancel there.
    detail : str
        For the monitor.
    batch_size : int, optional
        Most prompts at once.
    """
    tokenizer: Any = model.tokenizer
    end = tokenizer.eos_token_id
    ends = [tokenizer.decode(end)] if end is not None else []
    terms = [term for term in dict.fromkeys([*stops, *ends]) if term]
    pad, generate = pad_token(model), model.hf_model.generate
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    found: dict[int, str] = {}
    while order:
        width = len(prompts[order[0]])
        count = batch_size or max(1, BATCH_TOKENS // (width + new_tokens))
        chosen, order = order[:count], order[count:]
        ids = torch.full((len(chosen), width), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, number in enumerate(chosen):  # padded on the left: it goes on at the right
            ids[row, width - len(prompts[number]) :] = torch.tensor(prompts[number])
            mask[row, width - len(prompts[number]) :] = 1
        with torch.no_grad():
            written = generate(  # type: ignore[operator]
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                stopping_criteria=[_Stop(tokenizer, terms, width)],
            )
        for number, row in zip(chosen, written[:, width:].tolist(), strict=True):
            text = str(tokenizer.decode(row, skip_special_tokens=True))
            for term in terms:
                text = text.split(term)[0]
            found[number] = text
        monitor.report("generate", len(found), len(prompts), detail)
    return [found[number] for number in range(len(prompts))]


class _Stop:
    """Says of every row whether a stop string was written; transformers asks after each token."""

    def __init__(self, tokenizer: Any, terms: Sequence[str], width: int) -> None:
        self._tokenizer = tokenizer
        self._terms = terms
        self._width = width
        self._tail = max((len(term.encode("utf-8")) for term in terms), default=0) + _MORE_TOKENS

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        new = input_ids[:, self._width :][:, -self._tail :].tolist()
        texts = [str(self._tokenizer.decode(row)) for row in new]
        done = [any(term in text for term in self._terms) for text in texts]
        return torch.tensor(done, device=input_ids.device)
