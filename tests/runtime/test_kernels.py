"""The packed products against the dense product of the same codes, and the guards."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from workbench.recipes.schemes import IntScheme, Sparsity
from workbench.runtime.packed import kernels, native
from workbench.runtime.packed.kernels import Int4Kernel, Int8Kernel, kernel_name, make_kernel
from workbench.tensors import affine
from workbench.tensors.weights import PrunedWeight, QuantizedWeight

CPU = torch.device("cpu")


def quantized(rows: int, columns: int, scheme: IntScheme, seed: int = 0) -> QuantizedWeight:
    torch.manual_seed(seed)
    weight = torch.randn(rows, columns) + 0.3  # off centre, so that zero points differ
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return QuantizedWeight.from_codes(codes, scales, zeros, scheme)


def error(given: Tensor, expected: Tensor) -> float:
    """The largest error in units of the expected values' size."""
    return float((given.float() - expected).abs().max() / expected.pow(2).mean().sqrt())


FITTING = [
    (16, 32, IntScheme(4, 32, True), "int4"),
    (48, 96, IntScheme(4, 32, False), "int4"),
    (64, 128, IntScheme(4, 64, False), "int4"),
    (144, 256, IntScheme(4, 128, False), "int4"),
    (80, 512, IntScheme(4, 256, True), "int4"),
    (64, 512, IntScheme(4, 512, False), "int4"),  # runs in groups of 256 with equal scales
    (64, 96, IntScheme(4, None, False), "int4"),
    (32, 64, IntScheme(3, 32, False), "int4"),
    (32, 64, IntScheme(2, 32, True), "int4"),
    (48, 80, IntScheme(8, None, True), "int8"),
    (48, 80, IntScheme(8, None, False), "int8"),
    (7, 16, IntScheme(8, None, False), "int8"),
    (32, 64, IntScheme(6, None, False), "int8"),
    (32, 48, IntScheme(4, None, True), "int8"),  # 48 inputs fit no group of the int4 kernel
]


@pytest.mark.parametrize(("rows", "columns", "scheme", "name"), FITTING)
@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_the_product_is_that_of_the_codes(
    rows: int,
    columns: int,
    scheme: IntScheme,
    name: str,
    tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = quantized(rows, columns, scheme)
    assert kernel_name(weight, CPU) == (name, "")
    monkeypatch.setattr(native, "native_library", lambda: (None, "not now"))
    kernel = make_kernel(name, [weight], CPU)
    assert isinstance(kernel, (Int4Kernel, Int8Kernel))
    x = torch.randn(tokens, columns).bfloat16()
    expected = x.float() @ weight.dequantize().T
    # bfloat16 keeps 8 bits: of the scales, of the result, and of offsets several scales large
    assert error(kernel.few(x), expected) < 0.06
    assert error(kernel.many(x), expected) < 0.06
    assert error(kernel(x), expected) < 0.06
    assert kernel(x).dtype == torch.bfloat16


@pytest.mark.parametrize("tokens", [1, 5, 200])
@pytest.mark.parametrize("symmetric", [True, False])
def test_rounded_inputs_give_nearly_the_same(tokens: int, symmetric: bool) -> None:
    weight = quantized(48, 256, IntScheme(8, None, symmetric))
    x = torch.randn(tokens, 256).bfloat16()
    x[0] *= 100  # every token has a scale of its own
    expected = x.float() @ weight.dequantize().T
    kernel = Int8Kernel([weight], int8_inputs=True)
    for row in (0, tokens - 1):
        assert 1e-4 < error(kernel.many(x)[row], expected[row]) < 0.06
        assert error(kernel(x)[row], expected[row]) < 0.06
    assert torch.equal(kernel(x), kernel.many(x) if tokens > kernel.most_tokens else kernel.few(x))
    assert not kernel.many(torch.zeros(2, 256).bfloat16()).any()


@pytest.mark.parametrize("rows", [16, 48, 64, 80, 128, 144, 176])
def test_packed_codes_are_read_back_exactly(rows: int) -> None:
    weight = quantized(rows, 64, IntScheme(4, 32, True))
    kernel = Int4Kernel([weight])
    assert kernel.most_tokens == kernels.INT4_MOST_TOKENS  # the packing was understood
    scales = weight.scales.bfloat16().float().repeat_interleave(32, 1)
    expected = (weight.codes.float() - 8) * scales
    assert torch.allclose(kernel.dense_transposed().float().T, expected, rtol=0.01, atol=1e-6)


def test_a_packing_that_is_not_understood_is_never_made_dense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "_block_rows", lambda: 32)  # not this processor's, or by luck
    monkeypatch.setattr(kernels, "_row_order", lambda height: torch.arange(height).flip(0))
    weight = quantized(64, 64, IntScheme(4, 32, True))
    kernel = Int4Kernel([weight])
    assert kernel.most_tokens is None
    x = torch.randn(200, 64).bfloat16()
    assert error(kernel(x), x.float() @ weight.dequantize().T) < 0.06


@pytest.mark.parametrize("scheme", [IntScheme(4, 32, False), IntScheme(8, None, False)])
def test_joined_rows_are_the_rows_of_each(scheme: IntScheme) -> None:
    first, second = quantized(32, 64, scheme, 1), quantized(48, 64, scheme, 2)
    name, _ = kernel_name(first, CPU)
    assert name is not None
    x = torch.randn(2, 64).bfloat16()
    joined = make_kernel(name, [first, second], CPU)(x)
    parts = [make_kernel(name, [w], CPU)(x) for w in (first, second)]
    assert torch.equal(joined, torch.cat(parts, -1))


@pytest.mark.parametrize(
    ("rows", "columns", "scheme", "reason"),
    [
        (24, 64, IntScheme(4, 32, True), "multiples of 16"),
        (32, 80, IntScheme(4, 32, True), "whole groups"),  # a short last group
        (32, 64, IntScheme(4, 16, True), "whole groups"),
        (32, 64, IntScheme(5, 32, True), "5-bit codes in groups"),
        (32, 64, IntScheme(8, 32, True), "8-bit codes in groups"),
        (32, 72, IntScheme(8, None, True), "inputs in multiples of 16"),
        (32, 24, IntScheme(4, None, True), "inputs in multiples of 16"),
    ],
)
def test_what_no_kernel_takes_is_refused_with_the_reason(
    rows: int, columns: int, scheme: IntScheme, reason: str
) -> None:
    name, why = kernel_name(quantized(rows, columns, scheme), CPU)
    assert name is None
    assert reason in why


def test_other_kinds_of_weights_are_refused() -> None:
    weight = PrunedWeight(torch.zeros(32, 64), Sparsity(0.5))
    assert kernel_name(weight, CPU) == (None, "no kernel for pruned weights")


def test_other_devices_have_no_kernel() -> None:
    for scheme in (IntScheme(4, 32, True), IntScheme(8, None, True)):
        found = kernel_name(quantized(32, 64, scheme), torch.device("mps"))
        assert found == (None, "no packed kernel on mps")


def test_rows_of_an_embedding_are_those_of_the_codes() -> None:
    weight = quantized(20, 16, IntScheme(8, None, False))
    index = torch.tensor([[3, 0], [19, 3]])
    rows = Int8Kernel([weight]).rows(index)
    assert rows.shape == (2, 2, 16)
    assert error(rows, weight.dequantize()[index]) < 0.03


def test_resident_bytes_are_those_of_the_packing() -> None:
    weight = quantized(64, 128, IntScheme(4, 32, True))
    assert Int4Kernel([weight]).resident_bytes == 64 * 128 // 2 + 4 * 64 * 128 // 32
    weight = quantized(64, 128, IntScheme(8, None, True))
    assert Int8Kernel([weight]).resident_bytes == 64 * 128 + 2 * 64
    shifted = dataclasses.replace(
        weight, scheme=IntScheme(8, None, False), zeros=weight.codes[:, :1]
    )
    assert Int8Kernel([shifted]).resident_bytes == 64 * 128 + 2 * 64 + 4 * 64
