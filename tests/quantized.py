"""Quantized weights of random numbers, for tests of what is made of codes."""

from __future__ import annotations

import torch

from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.weights import QuantizedWeight


def quantized(rows: int, columns: int, scheme: IntScheme, seed: int = 0) -> QuantizedWeight:
    """Return a random matrix, rounded to nearest."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return QuantizedWeight.from_codes(codes, scales, zeros, scheme)
