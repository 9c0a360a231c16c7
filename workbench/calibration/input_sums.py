"""Sums over what enters the layers, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.tensors.products import add_gram, mirror


class InputSums:
    """Adds the inputs of every group to its sums, without padded positions.

    A layer that is called several times in one pass adds what it is given each time. Padding is
    left out where an input has the positions of an attention mask; an input of another shape
    (DeBERTa's table of relative positions) is counted whole.

    Parameters
    ----------
    sums : dict of str to (Tensor, Tensor)
        By the group's key: gram and sum of absolute values, added to in place.
    sides : mapping of str to str, optional
        Whose tokens enter a group, see :class:`workbench.models.layers.LinearGroup`.
    """

    def __init__(
        self, sums: dict[str, tuple[Tensor, Tensor]], sides: Mapping[str, str] | None = None
    ) -> None:
        self._sums = sums
        self._sides = sides or {}
        self._masks: dict[str, Tensor] = {}
        self.counts = dict.fromkeys(sums, 0)

    def begin_batch(self, masks: Mapping[str, Tensor]) -> None:
        """Take the masks of the batch whose layer inputs come next, by side."""
        self._masks = {side: mask.bool() for side, mask in masks.items()}

    def add(self, key: str, x: Tensor, tokens: Tensor | None = None) -> None:
        """Add one input of a group; see :class:`workbench.models.input_hooks.Listener`."""
        rows = x.reshape(-1, x.shape[-1]).float()
        mask = self._masks.get(self._sides.get(key, ""))
        kept = _kept(mask, x.shape[:-1], None if tokens is None else tokens.cpu())
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


def _kept(mask: Tensor | None, shape: torch.Size, tokens: Tensor | None) -> Tensor | None:
    """Return which rows are no padding, None for all of them."""
    if mask is None:
        return None
    flat = len(shape) == 1 and shape[0] == mask.numel()
    if tokens is None and not flat and shape != mask.shape:
        return None
    kept = mask.reshape(-1) if tokens is None else mask.reshape(-1)[tokens]
    return None if bool(kept.all()) else kept
