"""The package's own kernels for one token, compiled where a compiler and the instructions are.

torch's kernels for codes are bound by their arithmetic; these read the codes nearly at the speed
of memory and sum in float32. Measured on one core, 1,024 inputs and 5,632 outputs, one token: int4
0.10 ms against torch's 0.18, int8 0.20 against 0.31; attention over 190 tokens of 16 heads 0.09
against 0.13. They are compiled in about a second when they are first needed and kept in the user's
cache. Nothing depends on them: without them torch's kernels run, and the report of a packed model
says which do. ``WORKBENCH_NATIVE=0`` in the environment turns them off.
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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
MOST_WIDTH = 256
"""The widest head that the compiled attention takes; widths are multiples of 16."""

_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


@functools.cache
def native_library() -> tuple[Any, str]:
    """Return the compiled functions of ``kernels.c``, or None and why there are none."""
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
    library.int8_product.argtypes = [*[pointer] * 4, *[number] * 3, ctypes.c_int32]
    library.attend.argtypes = [*[pointer] * 4, *[number] * 5, ctypes.c_int32]
    for name in ("int4_product", "int4_dense", "int8_product", "attend"):
        getattr(library, name).restype = None
    return library, ""


def _compile(compiler: str) -> Path:
    """Return the library, from the cache if the same was compiled on this machine before."""
    about = [compiler, *_FLAGS, platform.node(), _processor(), SOURCE.read_text()]
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "compression-workbench"
    path = folder / f"kernels-{digest}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        built = Path(aside) / "kernels.so"
        subprocess.run(
            [compiler, *_FLAGS, str(SOURCE), "-lm", "-o", str(built)],
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


def attend(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """Return the attention of one token over the first ``length`` positions.

    Parameters
    ----------
    q : Tensor of shape (n_heads, width), float32, contiguous
    keys, values : Tensor of shape (n_key_heads, capacity, width), float32, contiguous
    length : int

    Returns
    -------
    Tensor of shape (1, n_heads · width), bfloat16
    """
    library, _ = native_library()
    heads, width = q.shape
    shared, capacity, _ = keys.shape
    out = torch.empty(1, heads * width, dtype=torch.bfloat16)
    library.attend(
        q.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        out.data_ptr(),
        heads,
        shared,
        capacity,
        length,
        width,
        torch.get_num_threads(),
    )
    return out


def int8_product(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """Return what ``torch._weight_int8pack_mm`` does, summed in float32.

    Parameters
    ----------
    x : Tensor of shape (tokens, in_features), bfloat16
    codes : Tensor of shape (out_features, in_features), int8, contiguous
    scales : Tensor of shape (out_features,), bfloat16
    """
    library, _ = native_library()
    inputs = x.float().contiguous()
    (tokens, columns), rows = inputs.shape, codes.shape[0]
    y = torch.empty(tokens, rows, dtype=torch.bfloat16)
    library.int8_product(
        codes.data_ptr(),
        scales.data_ptr(),
        inputs.data_ptr(),
        y.data_ptr(),
        tokens,
        rows,
        columns,
        torch.get_num_threads(),
    )
    return y
