"""The one rule of padding: a text in a batch is read as it is read alone.

Models find the end of a padded text in one of two ways. Encoders and language models go by the
attention mask, and may be padded with anything that they embed. Decoders for sequence
classification ignore the mask: they read the last token that is not ``config.pad_token_id``,
whatever the tokenizer pads with; alone, without such an id, they read the last one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.tasks.label_matching import with_config


def own_head_logits(
    model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the logits of a model's own head of labels, each text's as it is alone.

    Parameters
    ----------
    model : LoadedModel
        Of a class for sequence classification; not changed.
    input_ids : Tensor of shape (examples, tokens), int64
        Padded on the right.
    attention_mask : Tensor of shape (examples, tokens), optional
        One where a token is real; None where no example is padded.

    Returns
    -------
    Tensor of shape (examples, classes)
    """
    pad = model.hf_model.config.get_text_config().pad_token_id
    hf_model: Any = model.hf_model
    if pad is None or not 0 <= pad < model.n_embeddings:
        if len(input_ids) == 1 and attention_mask is None:
            return _logits(hf_model, input_ids, None)
        # Whatever no text ends with is surely not taken for the end of one.
        pad = _not_among(_last_tokens(input_ids, attention_mask))
        hf_model = with_pad(model, pad).hf_model
    if attention_mask is not None:
        input_ids = input_ids.masked_fill(attention_mask == 0, pad)
    return _logits(hf_model, input_ids, attention_mask)


def with_pad(model: LoadedModel, pad: int) -> LoadedModel:
    """Return a model that shares all weights and takes this token for padding."""
    changed = with_config(model, pad_token_id=pad)
    changed.hf_model.config.get_text_config().pad_token_id = pad
    return changed


def _logits(hf_model: Any, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    found: Tensor = hf_model(input_ids=input_ids, attention_mask=attention_mask).logits
    return found


def _last_tokens(input_ids: Tensor, attention_mask: Tensor | None) -> set[int]:
    if attention_mask is None:
        return set(input_ids[:, -1].tolist())
    last = (attention_mask.sum(1) - 1).clamp(min=0)
    return set(input_ids[torch.arange(len(last), device=last.device), last].tolist())


def _not_among(taken: set[int]) -> int:
    return next(token for token in range(len(taken) + 1) if token not in taken)
