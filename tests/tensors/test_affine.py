from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.recipes.schemes import IntScheme, Sparsity
from workbench.tensors import affine
from workbench.tensors.masks import global_threshold, keep_mask


@given(
    bits=st.integers(2, 8),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_packing_round_trip(bits, shape, seed):
    codes = torch.randint(
        0, 2**bits, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    stream = affine.pack(codes, bits)
    assert stream.numel() == affine.packed_bytes(codes.numel(), bits)
    assert torch.equal(affine.unpack(stream, bits, shape), codes)


def test_packing_is_lowest_bits_first():
    assert affine.pack(torch.tensor([1, 2], dtype=torch.uint8), 4).tolist() == [0x21]
    assert affine.pack(torch.tensor([7, 0, 1], dtype=torch.uint8), 3).tolist() == [0b01000111, 0]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [None, 8, 13])
def test_rounding_error_is_at_most_half_a_step_inside_the_range(symmetric, group_size):
    torch.manual_seed(0)
    weight = torch.randn(20, 30)
    scheme = IntScheme(5, group_size, symmetric)
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    dense = affine.dequantize(codes, scales, zeros, scheme)
    step = affine.expand(scales, scheme, 30)
    # Symmetric ranges lack one positive level, and a rounded zero point moves the ends.
    assert ((dense - weight).abs() <= step * 1.01).all()
    assert ((dense - weight).abs() <= step * 0.51).float().mean() > 0.95


def test_zero_is_always_a_level():
    weight = torch.tensor([[5.0, 6.0, 7.0, 0.0]])
    for symmetric in (True, False):
        scheme = IntScheme(2, 4, symmetric)
        scales, zeros = affine.choose_scales(weight, scheme)
        codes = affine.quantize(weight, scales, zeros, scheme)
        assert affine.dequantize(codes, scales, zeros, scheme)[0, 3] == 0


def test_an_all_zero_group_stays_zero_and_finite():
    scheme = IntScheme(4, 4)
    weight = torch.zeros(2, 8)
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    assert torch.equal(affine.dequantize(codes, scales, zeros, scheme), weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IntScheme(1), "from 2 to 8"),
        (lambda: IntScheme(4, 0), "group_size=0"),
        (lambda: Sparsity(), "either ratio"),
        (lambda: Sparsity(1.0), "ratio=1.0"),
        (lambda: Sparsity(n=4, m=2), "below m"),
        (lambda: Sparsity(n=2), "give both"),
    ],
)
def test_bad_schemes_say_what_is_accepted(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_masks_keep_the_largest():
    scores = torch.tensor([[1.0, 5.0, 2.0, 4.0, 3.0]])
    assert keep_mask(scores, Sparsity(0.4)).tolist() == [[False, True, False, True, True]]
    # 2:4, and a short last group of one weight that keeps it.
    assert keep_mask(scores, Sparsity(n=2, m=4)).tolist() == [[False, True, False, True, True]]
    assert keep_mask(torch.ones(3, 3), Sparsity(0.0)).all()


def test_global_threshold_counts_over_all_tensors():
    threshold = global_threshold([torch.tensor([1.0, 9.0]), torch.tensor([2.0, 8.0])], 0.5)
    assert threshold == 2.0
    assert global_threshold([torch.tensor([1.0])], 0.0) == -torch.inf
