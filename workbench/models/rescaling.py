"""Models that divide their own weights when they first run, so that float16 can hold their sums.

RWKV does: at the first forward it divides the last matrix of both halves of its later blocks by
powers of two, in place, and halves the hidden states every few blocks. Whoever reads the weights
then finds others than the checkpoint's, and what is written is divided again when it is read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def keep_weights(hf_model: nn.Module) -> None:
    """Have a model of ours divide what its blocks give instead, which is equal bit for bit.

    Its weights are those of the checkpoint from then on, also of a live model that has run.
    """
    for module in hf_model.modules():
        rescaled = getattr(module, "layers_are_rescaled", None)
        if rescaled is None or not hasattr(module, "_rescale_layers"):
            continue
        part: Any = module
        every = int(part.config.rescale_every)
        for number, block in enumerate(part.blocks if every > 0 else ()):
            factor = 2 ** (number // every)
            if factor == 1:
                continue
            if rescaled:
                block.attention.output.weight.mul_(factor)
                block.feed_forward.value.weight.mul_(factor)
            for half in (block.attention, block.feed_forward):
                half.register_forward_hook(partial(_divided, factor))
        part.layers_are_rescaled = True
        part._rescale_layers = _nothing


def _divided(factor: int, _module: nn.Module, _inputs: Any, output: tuple[Tensor, ...]) -> Any:
    return (output[0] / factor, *output[1:])


def _nothing() -> None:
    """Take the place of the method that changes the weights."""
