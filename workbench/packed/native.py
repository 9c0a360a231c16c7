"""The package's own int4 kernel, compiled where a C compiler and the instructions are at hand.

torch's int4 kernel is bound by its arithmetic; this one reads the codes nearly at the speed of
memory, keeps the scales in float16 as they are stored, and sums in float32. Measured on one core,
1,024 inputs and 5,632 outputs, one token: 0.10 ms against torch's 0.18. It is compiled in about a
second when it is first needed and kept in the user's cache. Nothing depends on it: without it
torch's kernel runs, and the report of a packed model says which one does. ``WORKBENCH_NATIVE=0``
in the environment turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.packed.kernels import INT4_MOST_TOKENS, Kernel, int4_group, joined_int4
from workbench.weights import QuantizedWeight

SOURCE = Path(__file__).with_name("int4.c")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


@functools.cache
def native_library() -> tuple[Any, str]:
    """Return the compiled functions of ``int4.c``, or None and why there are none."""
    if os.environ.get("WORKBENCH_NATIVE", "1") == "0":
        return None, "turned off by WORKBENCH_NATIVE=0"
    if platform.system() != "Linux" or not torch.cpu._is_avx512_bf16_supported():
        return None, "needs Linux and a processor with AVX-512 BF16"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None, "there is no C compiler"
    try:
        library = ctypes.CDLL(str(_compile(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error)
        return None, f"compiling it failed: {' '.join(words.split())[:200]}"
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.int4_product.argtypes = [*[pointer] * 6, *[number] * 4, ctypes.c_int32]
    library.int4_dense.argtypes = [*[pointer] * 4, *[number] * 3, ctypes.c_int32]
    library.int4_product.restype = library.int4_dense.restype = None
    return library, ""


def _compile(compiler: str) -> Path:
    """Return the library, from the cache if the same was compiled on this machine before."""
    about = [compiler, *_FLAGS, platform.node(), _processor(), SOURCE.read_text()]
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "compression-workbench"
    path = folder / f"int4-{digest}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        built = Path(aside) / "int4.so"
        subprocess.run(
            [compiler, *_FLAGS, str(SOURCE), "-o", str(built)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        os.replace(built, path)
    return path


def _processor() -> str:
    """What the compiler's choice of instructions depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith("flags")), platform.machine())


class NativeInt4Kernel(Kernel):
    """Codes of 2 to 4 bits by :mod:`workbench.packed.native`.

    Parameters
    ----------
    weights : sequence of QuantizedWeight
        As for :class:`workbench.packed.kernels.Int4Kernel`.

    Raises
    ------
    RuntimeError
        If the library is not there; see :func:`native_library`.
    """

    name = "int4"

    def __init__(self, weights: Sequence[QuantizedWeight]) -> None:
        library, why = native_library()
        if library is None:
            raise RuntimeError(f"There is no compiled kernel: {why}.")
        self._group = min(int4_group(w) or 0 for w in weights)
        codes, scales, offsets = joined_int4(weights, self._group)
        rows, columns = codes.shape
        self.shape = (rows, columns)
        self.most_tokens = INT4_MOST_TOKENS
        # (block, row, chunk of 8 columns, nibble, word) -> (block, chunk, row, word)
        nibbles = codes.view(rows // 16, 16, columns // 8, 4, 2).to(torch.int16)
        words = sum(nibbles[:, :, :, i] << 4 * i for i in range(4))
        assert isinstance(words, Tensor)
        self._codes = words.transpose(1, 2).contiguous()
        self._scales = self._by_block(scales)
        self._offsets = self._by_block(offsets) if bool(offsets.any()) else None
        self._zeros = 0 if self._offsets is None else self._offsets.data_ptr()

    @staticmethod
    def _by_block(values: Tensor) -> Tensor:
        """From (rows, n_groups) to (blocks, n_groups, 16), float16."""
        return values.half().view(-1, 16, values.shape[1]).transpose(1, 2).contiguous()

    def few(self, x: Tensor) -> Tensor:
        library, _ = native_library()
        rows, columns = self.shape
        x = x.contiguous()
        n = x.shape[0]
        y = torch.empty(n, rows, dtype=torch.bfloat16)
        sums = None
        if self._offsets is not None:
            sums = x.view(n, -1, self._group).sum(-1, dtype=torch.float32)
        library.int4_product(
            self._codes.data_ptr(),
            self._scales.data_ptr(),
            self._zeros,
            x.data_ptr(),
            0 if sums is None else sums.data_ptr(),
            y.data_ptr(),
            n,
            rows,
            columns,
            self._group,
            torch.get_num_threads(),
        )
        return y

    def many(self, x: Tensor) -> Tensor:
        return x @ self.dense_transposed()

    def dense_transposed(self) -> Tensor:
        library, _ = native_library()
        rows, columns = self.shape
        dense = torch.empty(columns, rows, dtype=torch.bfloat16)
        library.int4_dense(
            self._codes.data_ptr(),
            self._scales.data_ptr(),
            self._zeros,
            dense.data_ptr(),
            rows,
            columns,
            self._group,
            torch.get_num_threads(),
        )
        return dense

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_zeros"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._zeros = 0 if self._offsets is None else self._offsets.data_ptr()

    def tensors(self) -> tuple[Tensor, ...]:
        offsets = () if self._offsets is None else (self._offsets,)
        return (self._codes, self._scales, *offsets)
