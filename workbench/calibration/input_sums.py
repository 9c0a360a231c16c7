"""Sums over what enters the layers, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.errors import CalibrationError
from workbench.tensors.products import add_gram, mirror


class InputSums:
    """Adds the inputs of every group to its sums, without padded positions.

    A layer that is called several times in one pass adds what it is given each time. Padding is
    left out where an input has the positions of an attention mask; an input of another shape
    (DeBERTa's table of relative positions) is counted whole.
    """

    def __init__(self, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        self._sums = sums
        self._masks: list[Tensor] = []
        self.counts = dict.fromkeys(sums, 0)

    def begin_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Take the forward inputs whose layer inputs come next."""
        masks = [batch[n] for n in ("attention_mask", "decoder_attention_mask") if n in batch]
        self._masks = [mask.bool().cpu() for mask in masks if mask.ndim == 2]
        if len(self._masks) == 2 and self._masks[0].shape == self._masks[1].shape:
            if not torch.equal(*self._masks):
                raise CalibrationError(
                    "The attention masks of encoder and decoder have one shape and different"
                    " padding, so a layer's padding cannot be told. Pad the decoder's tokens by"
                    " one more."
                )
            self._masks.pop()

    def add(self, key: str, x: Tensor, tokens: Tensor | None = None) -> None:
        """Add one input of a group; see :class:`workbench.models.listening.Listener`."""
        rows = x.reshape(-1, x.shape[-1]).float()
        kept = self._kept(x.shape[:-1], None if tokens is None else tokens.cpu())
        if kept is not None:
            rows = rows[kept.to(rows.device)]
        gram, abs_sum = self._sums[key]
        add_gram(gram, rows)
        abs_sum.add_(rows.abs().sum(0).to(abs_sum.device))
        self.counts[key] += len(rows)

    def finish(self) -> None:
        """Complete the sums after the last input: until then half of each gram is missing."""
        for gram, _ in self._sums.values():
            mirror(gram)

    def _kept(self, shape: torch.Size, tokens: Tensor | None) -> Tensor | None:
        """Return which rows are no padding, None for all of them."""
        for mask in self._masks:
            flat = len(shape) == 1 and shape[0] == mask.numel()
            if tokens is not None or flat or shape == mask.shape:
                kept = mask.reshape(-1) if tokens is None else mask.reshape(-1)[tokens]
                return None if bool(kept.all()) else kept
        return None
