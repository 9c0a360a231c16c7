"""MLX's layout of codes: known answers, and what its own quantizer writes."""

from __future__ import annotations

import pytest
import torch

from tests.quantized import quantized
from workbench.errors import UnsupportedArchitectureError
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing import mlx


@pytest.mark.parametrize("bits", mlx.BITS)
@pytest.mark.parametrize("group_size", [32, 64, 128, 256, None])
@pytest.mark.parametrize("symmetric", [True, False])
def test_values_are_kept(bits: int, group_size: int | None, symmetric: bool) -> None:
    scheme = IntScheme(bits, group_size, symmetric)
    weight = quantized(8, 256, scheme)
    tensors = mlx.pack(weight, torch.float32)
    size = mlx.group_size(scheme, 256)
    assert size == {32: 32, 64: 64}.get(group_size or 0, 128)
    assert tensors["weight"].dtype == torch.uint32
    assert tensors["weight"].shape == (8, 256 * bits // 32)
    stored = sum(t.numel() * t.element_size() for t in tensors.values())
    assert stored == mlx.packed_bytes(weight.shape, scheme, torch.float32)
    # the format's own formula
    spread = [tensors[part].repeat_interleave(size, dim=1) for part in ("scales", "biases")]
    assert torch.allclose(spread[0] * weight.codes + spread[1], weight.dequantize(), atol=1e-6)
    read = mlx.unpack(tensors, bits, size)
    assert torch.equal(read.dequantize(), weight.dequantize())
    assert read.scheme.symmetric == symmetric


def test_three_bits_lie_across_words() -> None:
    """Ten codes fill thirty bits; the eleventh has two in the first word and one in the next."""
    weight = quantized(1, 32, IntScheme(3, 32))
    weight.codes.zero_()
    weight.codes[0, 0], weight.codes[0, 10] = 5, 0b110
    words = mlx.pack(weight, torch.float16)["weight"].view(torch.int32)[0].tolist()
    assert [word % 2**32 for word in words] == [5 | (0b10 << 30), 0b1, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_biases_lose_no_zero_point(dtype: torch.dtype) -> None:
    weight = quantized(16, 64, IntScheme(8, 32))
    read = mlx.unpack(mlx.pack(weight, dtype), 8, 32)
    assert torch.equal(read.codes, weight.codes)
    assert torch.equal(read.zeros, weight.zeros)


def test_a_negative_scale_is_turned_over() -> None:
    """MLX gives one to a group whose largest weight is positive: w = s q + b with s < 0."""
    codes = torch.arange(32, dtype=torch.uint8)[None] % 16
    words = mlx.pack_words(codes, 4).view(torch.uint32)
    tensors = {"weight": words, "scales": torch.tensor([[-0.5]]), "biases": torch.tensor([[5.0]])}
    read = mlx.unpack(tensors, 4, 32)
    assert bool((read.scales > 0).all())
    assert torch.equal(read.dequantize(), -0.5 * codes.float() + 5.0)


def test_learned_biases_are_refused() -> None:
    tensors = mlx.pack(quantized(4, 64, IntScheme(4, 32)), torch.float32)
    tensors["biases"] = tensors["biases"] + 0.3 * tensors["scales"]
    with pytest.raises(UnsupportedArchitectureError, match="no whole multiples"):
        mlx.unpack(tensors, 4, 32)


def test_groups_that_the_format_has_not() -> None:
    assert mlx.group_size(IntScheme(4, 16), 64) is None
    assert mlx.group_size(IntScheme(4, 64), 96) is None  # a short last group
    assert mlx.group_size(IntScheme(4, None), 96) == 32
