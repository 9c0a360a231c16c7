"""The compiled kernels: against the codes and torch, their fallbacks, and their cache."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime.test_kernels import CPU, FITTING, error, quantized
from workbench.recipes.schemes import IntScheme
from workbench.runtime.packed import native
from workbench.runtime.packed.kernels import Int4Kernel, make_kernel
from workbench.runtime.packed.native import attend, int8_product, native_library
from workbench.runtime.packed.native_int4 import NativeInt4Kernel

here = pytest.mark.skipif(native_library()[0] is None, reason=native_library()[1] or "-")


@here
@pytest.mark.parametrize(
    ("rows", "columns", "scheme"), [case[:3] for case in FITTING if case[3] == "int4"]
)
@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_the_product_is_that_of_the_codes(
    rows: int, columns: int, scheme: IntScheme, tokens: int
) -> None:
    weight = quantized(rows, columns, scheme)
    kernel = make_kernel("int4", [weight], CPU)
    assert isinstance(kernel, NativeInt4Kernel)
    x = torch.randn(tokens, columns).bfloat16()
    expected = x.float() @ weight.dequantize().T
    # sums are float32 and scales float16: what is left is the rounding of the result
    assert error(kernel.few(x), expected) < 0.025
    assert error(kernel.many(x), expected) < 0.06
    dense = kernel.dense_transposed().float().T
    assert torch.allclose(dense, weight.dequantize(), rtol=0.006, atol=0.01)


@here
def test_it_is_no_worse_than_that_of_torch() -> None:
    weight = quantized(256, 512, IntScheme(4, 32, False))
    x = torch.randn(8, 512).bfloat16()
    expected = x.float() @ weight.dequantize().T
    assert error(NativeInt4Kernel([weight]).few(x), expected) <= error(
        Int4Kernel([weight]).few(x), expected
    )


@here
def test_any_number_of_threads_and_any_strides() -> None:
    weight = quantized(80, 64, IntScheme(4, 32, False))
    kernel = NativeInt4Kernel([weight])
    x = torch.randn(64, 5).bfloat16().T
    assert not x.is_contiguous()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = kernel.few(x)
        torch.set_num_threads(2)
        assert torch.equal(kernel.few(x), one)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(kernel.few(x[3:4]), one[3:4])


@here
def test_a_copy_has_its_own_memory() -> None:
    kernel = NativeInt4Kernel([quantized(32, 64, IntScheme(4, 32, False))])
    x = torch.randn(1, 64).bfloat16()
    expected = kernel.few(x)
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):  # noqa: S301
        kernel_bytes = other.resident_bytes
        assert torch.equal(other.few(x), expected)
        assert other._zeros == other._offsets.data_ptr()
        assert kernel_bytes == 32 * 64 // 2 + 2 * 2 * 32 * 2


@here
@pytest.mark.parametrize("columns", [16, 32, 80, 1024])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_the_int8_product_is_that_of_the_codes(columns: int, tokens: int) -> None:
    codes = torch.randint(-128, 128, (37, columns), dtype=torch.int8)
    scales = (torch.rand(37) + 0.1).bfloat16()
    x = torch.randn(tokens, columns).bfloat16()
    expected = (x.float() @ codes.float().T) * scales.float()
    assert error(int8_product(x, codes, scales), expected) < 0.025


@here
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (8, 2), (6, 1)])
@pytest.mark.parametrize("length", [1, 7, 256, 700])
@pytest.mark.parametrize("width", [16, 64, 256])
def test_attention_is_that_of_torch(heads: int, shared: int, length: int, width: int) -> None:
    torch.manual_seed(length)
    q = 3 * torch.randn(heads, width)
    keys, values = torch.randn(shared, 800, width), torch.randn(shared, 800, width)
    keys[:, length:], values[:, length:] = float("nan"), float("nan")  # never read
    given = attend(q, keys, values, length)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q[None, :, None], keys[None, :, :length], values[None, :, :length], enable_gqa=True
    )
    assert given.shape == (1, heads * width)
    assert (given.float() - expected.reshape(1, -1)).abs().max() < 0.01 * values[
        :, :length
    ].abs().max()


@here
def test_attention_to_one_large_score_late_in_the_text() -> None:
    q, keys, values = torch.ones(1, 16), torch.zeros(1, 600, 16), torch.randn(1, 600, 16)
    keys[0, 500] = 100  # the scores before it vanish beside it
    assert torch.allclose(attend(q, keys, values, 600)[0].float(), values[0, 500], atol=0.02)


def fresh() -> tuple[object, str]:
    """Look for the library anew."""
    return native_library.__wrapped__()


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_NATIVE", "0")
    assert fresh() == (None, "turned off by WORKBENCH_NATIVE=0")


def test_without_the_instructions_or_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    assert "AVX-512 BF16" in fresh()[1]
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert fresh() == (None, "there is no C compiler")
    for module in ("native", "native_int4"):
        monkeypatch.setattr(f"workbench.runtime.packed.{module}.native_library", fresh)
    weight = quantized(32, 64, IntScheme(4, 32, True))
    assert isinstance(make_kernel("int4", [weight], CPU), Int4Kernel)
    with pytest.raises(RuntimeError, match="no C compiler"):
        NativeInt4Kernel([weight])


@here
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fresh()[0] is not None
    files = list((tmp_path / "compression-workbench").iterdir())
    assert [file.suffix for file in files] == [".so"]

    run = subprocess.run

    def refuse(command: list[str], **options: Any) -> Any:
        assert command[1:] == ["--version"], "compiled twice"
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", refuse)
    assert fresh()[0] is not None


@here
def test_a_damaged_library_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = native._compile(shutil.which("cc") or "")
    path.write_bytes(b"half of")
    assert fresh()[0] is not None

    def refuse(path: str) -> None:
        raise OSError("failed to map segment: operation not permitted")

    monkeypatch.setattr("ctypes.CDLL", refuse)  # as where nothing may be run
    assert fresh() == (
        None,
        "loading it failed: failed to map segment: operation not permitted",
    )


@here
def test_another_compiler_compiles_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "compiler"
    monkeypatch.setenv("CC", str(compiler))
    for version in ("1.0", "2.0"):
        compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} || exec cc "$@"\n')
        compiler.chmod(0o700)
        assert fresh()[0] is not None
    assert len(list((tmp_path / "compression-workbench").iterdir())) == 2


@here
def test_no_home_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", refuse)
    assert fresh() == (None, "compiling it failed: Could not determine home directory.")


@here
def test_what_c_cannot_read_is_refused() -> None:
    q, keys = torch.randn(4, 16), torch.randn(2, 8, 16)
    good = attend(q, keys, keys, 8)
    assert good.shape == (1, 64)
    for wrong in (
        (q.bfloat16(), keys, keys, 8),
        (q, keys.mT.contiguous().mT, keys, 8),
        (q, keys, keys[:1], 8),
        (q[:3], keys, keys, 8),
        (q, keys, keys, 9),
        (q[:, :8].contiguous(), keys[..., :8].contiguous(), keys[..., :8].contiguous(), 8),
    ):
        with pytest.raises(ValueError, match=r"no kernel|compiled kernels take"):
            attend(*wrong)
    x, codes, scales = torch.randn(1, 32), torch.zeros(3, 32).char(), torch.ones(3).bfloat16()
    assert not int8_product(x, codes, scales).any()
    for wrong in ((x[:, :16], codes, scales), (x, codes.short(), scales), (x, codes, scales[:2])):
        with pytest.raises(ValueError, match=r"do not fit|compiled kernels take"):
            int8_product(*wrong)
    kernel = NativeInt4Kernel([quantized(32, 64, IntScheme(4, 32, False))])
    for x in (torch.randn(1, 64), torch.randn(1, 32).bfloat16()):
        with pytest.raises(ValueError, match=r"compiled kernels take|it takes \(n, 64\)"):
            kernel.few(x)


@here
def test_a_source_that_does_not_compile_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "broken.c"
    broken.write_text("int4 is no C")
    monkeypatch.setattr(native, "SOURCE", broken)
    library, why = fresh()
    assert library is None
    assert why.startswith("compiling it failed: ")
    assert "error" in why
