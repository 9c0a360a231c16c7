"""Codes in 32-bit words, in the layouts of the formats' own definitions."""

from __future__ import annotations

import pytest
import torch

from tests.quantized import quantized
from workbench.recipes.schemes import IntScheme
from workbench.tensors.packing import awq, compressed_tensors, gguf, gptq
from workbench.tensors.packing.bit_words import pack_words, unpack_words, words_bytes


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [32, 40, 7])
def test_words_round_trip(bits: int, count: int) -> None:
    codes = torch.randint(0, 2**bits, (3, count), dtype=torch.uint8)
    words = pack_words(codes, bits)
    assert words.dtype == torch.int32
    assert words[0].numel() * 4 == words_bytes(count, bits)
    assert torch.equal(unpack_words(words, bits, count), codes)


def test_three_bits_as_autogptq_packs_them() -> None:
    """Ten codes, then two bits of the eleventh, whose third bit is in the next word."""
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    codes[0, 0], codes[0, 10], codes[0, 11], codes[0, 21] = 5, 0b110, 7, 0b101
    words = pack_words(codes, 3)[0].tolist()
    first = 5 | (0b10 << 30)
    assert words[0] == first - 2**32
    assert words[1] == (0b1 | (7 << 1) | (0b1 << 31)) - 2**32
    assert words[2] == 0b10


def test_gptq_by_its_own_formula() -> None:
    """The dequantization of AutoGPTQ's README, written out for one layer."""
    weight = quantized(rows=32, columns=64, scheme=IntScheme(4, 32))
    tensors = gptq.pack(weight, 2)
    shifts = torch.arange(0, 32, 4)
    q = (tensors["qweight"][:, None, :] >> shifts[None, :, None]).reshape(64, 32) & 15
    z = (tensors["qzeros"][:, :, None] >> shifts).reshape(2, 32) & 15
    groups = tensors["g_idx"].long()
    dense = tensors["scales"].float()[groups] * (q - z[groups])
    assert torch.equal(dense.T, weight.dequantize())


def test_version_one_stores_zero_points_less_one() -> None:
    weight = quantized(32, 64, IntScheme(4, 32, symmetric=True))
    assert set(gptq.pack(weight, 1)["qzeros"].flatten().tolist()) == {0x77777777}
    read = gptq.unpack(gptq.pack(weight, 1), 4, 32, 1)
    assert torch.equal(read.dequantize(), weight.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, None])
def test_round_trips_and_sizes(bits: int, symmetric: bool, group_size: int | None) -> None:
    scheme = IntScheme(bits, group_size, symmetric)
    weight = quantized(32, 64, scheme)
    shape = weight.shape
    both = [
        (
            gptq.pack(weight, 2),
            gptq.packed_bytes(shape, scheme),
            lambda tensors: gptq.unpack(tensors, bits, group_size, 2),
        ),
        (
            compressed_tensors.pack(weight, torch.float16),
            compressed_tensors.packed_bytes(shape, scheme, torch.float16),
            lambda tensors: compressed_tensors.unpack(tensors, bits, group_size),
        ),
    ]
    if bits == 4:
        awqs = awq.pack(weight), awq.packed_bytes(shape, scheme)
        both.append((*awqs, lambda tensors: awq.unpack(tensors, group_size)))
    if bits == 8 and symmetric:
        plain = compressed_tensors.pack_int8(weight, torch.float16)
        size = compressed_tensors.int8_bytes(shape, scheme, torch.float16)
        both.append((plain, size, lambda t: compressed_tensors.unpack_int8(t, 8, group_size)))
    for tensors, size, read in both:
        assert sum(t.numel() * t.element_size() for t in tensors.values()) == size
        found = read(tensors)
        assert torch.equal(found.dequantize(), weight.dequantize())
        assert found.stored_bytes == weight.stored_bytes


def test_awq_interleaves_eight_outputs() -> None:
    weight = quantized(8, 32, IntScheme(4, 32))
    word = awq.pack(weight)["qweight"][5, 0].item()
    nibbles = [(word >> 4 * i) & 15 for i in range(8)]
    assert nibbles == [int(weight.codes[row, 5]) for row in (0, 2, 4, 6, 1, 3, 5, 7)]


def test_groups_in_another_order_are_kept() -> None:
    weight = quantized(32, 64, IntScheme(4, 32))
    tensors = gptq.pack(weight, 2)
    shuffled = tensors["g_idx"][torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    read = gptq.unpack(tensors | {"g_idx": shuffled}, 4, 32, 2)
    groups = shuffled.long()
    zeros = weight.zeros
    assert zeros is not None
    expected = (weight.codes.float() - zeros.float()[:, groups]) * weight.scales.float()[:, groups]
    assert torch.equal(read.dequantize(), expected)
    assert read.stored_bytes == weight.stored_bytes + 4 * 64
    again = gptq.pack(read, 2)  # type: ignore[arg-type]
    assert torch.equal(again["qweight"], tensors["qweight"])
    assert torch.equal(again["g_idx"], shuffled)


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        (IntScheme(4, 64, True), "Q4_0"),
        (IntScheme(3, 32, True), "Q4_0"),
        (IntScheme(4, 32), "Q4_1"),
        (IntScheme(2, 32), "Q4_1"),
        (IntScheme(8, None, True), "Q8_0"),
        (IntScheme(6, 32), "Q8_0"),
    ],
)
def test_gguf_blocks(scheme: IntScheme, kind: str) -> None:
    weight = quantized(8, 64, scheme)
    found, blocks = gguf.pack(weight)
    assert (found, blocks.nbytes) == (kind, gguf.packed_bytes(weight.shape, scheme))
    assert torch.equal(gguf.unpack(kind, blocks).dequantize(), weight.dequantize())
    ours = torch.from_numpy(_reference(kind, blocks))
    rounding = 2**-10 * weight.dequantize().abs().max() * 16 if kind == "Q4_1" else 0
    assert torch.allclose(ours, weight.dequantize(), atol=float(rounding), rtol=0)


def _reference(kind, blocks):
    """Return what the gguf package makes of blocks."""
    import gguf as package

    return package.quants.dequantize(blocks, package.GGMLQuantizationType[kind])


def test_gguf_has_no_block_for_these() -> None:
    assert gguf.block_type(IntScheme(8, 32)) is None
    assert gguf.block_type(IntScheme(4, 48, True)) is None
