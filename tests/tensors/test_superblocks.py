"""k-quants: bytes as the ``gguf`` package reads them, and scales that are worth their search."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from workbench.errors import NotFiniteError
from workbench.recipes.schemes import GRIDS, IntScheme
from workbench.tensors import superblocks
from workbench.tensors.packing import gguf as packing
from workbench.tensors.weights import QuantizedWeight, SuperBlockWeight, rounded, weight_from


def weights(rows: int = 12, columns: int = 512) -> torch.Tensor:
    """Rows of very different sizes, with groups that are all positive, all equal, and zero."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(rows, columns, generator=generator)
    found *= torch.exp(2 * torch.randn(rows, 1, generator=generator))
    found[0, :32] = found[0, :32].abs() + 1
    found[1, 32:64] = -0.5
    found[2, :256] = 0
    return found


@pytest.mark.parametrize("name", GRIDS)
def test_bytes_are_those_that_the_gguf_package_reads(name: str) -> None:
    weight = rounded(weights(), GRIDS[name])
    assert isinstance(weight, SuperBlockWeight)
    kind, blocks = packing.pack(weight)
    assert blocks.nbytes == weight.stored_bytes == packing.packed_bytes(weight.shape, weight.scheme)
    read = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(read, weight.dequantize().numpy())
    again = packing.unpack(kind, blocks)
    assert torch.equal(again.dequantize(), weight.dequantize())
    restored = weight_from(weight.describe(), weight.tensors())
    assert torch.equal(restored.dequantize(), weight.dequantize())


@pytest.mark.parametrize("name", GRIDS)
def test_every_byte_of_a_foreign_file_is_kept(name: str) -> None:
    scheme = GRIDS[name]
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (6, 2 * scheme.block_bytes), dtype=np.uint8)
    found = SuperBlockWeight.from_blocks(torch.from_numpy(blocks), scheme)
    assert np.array_equal(packing.pack(found)[1], blocks)


@pytest.mark.parametrize("symmetric", [True, False])
def test_five_bits_in_blocks_of_32(symmetric: bool) -> None:
    weight = rounded(weights(), IntScheme(5, 32, symmetric))
    assert isinstance(weight, QuantizedWeight)
    kind, blocks = packing.pack(weight)
    assert kind == ("Q5_0" if symmetric else "Q5_1")
    assert blocks.nbytes == packing.packed_bytes(weight.shape, weight.scheme)
    read = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    expected = weight.dequantize().numpy()
    # m of Q5_1 is a product that is rounded to float16.
    assert np.allclose(read, expected, rtol=0, atol=0 if symmetric else 2e-3 * abs(expected).max())
    again = packing.unpack(kind, blocks)
    assert torch.equal(again.dequantize(), weight.dequantize())


@pytest.mark.parametrize("name", GRIDS)
def test_scales_are_near_the_best_that_float16_ones_reach(name: str) -> None:
    scheme, x = GRIDS[name], weights()
    error = (rounded(x, scheme).dequantize() - x).square().sum(1)
    free = IntScheme(scheme.bits, scheme.length, symmetric=not scheme.minima)
    plain = (rounded(x, free).dequantize() - x).square().sum(1)
    assert float(error.sum()) < 1.15 * float(plain.sum())
    assert bool((rounded(x, scheme).dequantize()[2, :256] == 0).all())


@pytest.mark.parametrize("name", GRIDS)
def test_important_inputs_are_rounded_more_closely(name: str) -> None:
    scheme, x = GRIDS[name], weights(64)
    importance = torch.ones(512)
    importance[::4] = 100.0
    first = (rounded(x, scheme).dequantize() - x).square()
    second = (rounded(x, scheme, importance=importance).dequantize() - x).square()
    assert float(second[:, ::4].sum()) < 0.9 * float(first[:, ::4].sum())
    assert float((second * importance).sum()) < float((first * importance).sum())


def test_a_row_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = superblocks.choose_scales(weights(), GRIDS["q4_k"])
    monkeypatch.setattr(superblocks, "_CHUNK", 1024)
    parts = superblocks.choose_scales(weights(), GRIDS["q4_k"])
    assert torch.equal(whole.step, parts.step)


def test_scales_beyond_float16_are_an_error() -> None:
    with pytest.raises(NotFiniteError, match="does not fit into float16"):
        superblocks.choose_scales(weights() * 1e9, GRIDS["q6_k"])
