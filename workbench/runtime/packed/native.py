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
import stat
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
        path = _compile(compiler)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return None, _failed("compiling", error)
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # a damaged file, such as of a full disk, is made anew once
        try:
            path.unlink()
            library = ctypes.CDLL(str(_compile(compiler)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            return None, _failed("loading", error)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.int4_product.argtypes = [*[pointer] * 6, *[number] * 4, ctypes.c_int32]
    library.int4_dense.argtypes = [*[pointer] * 4, *[number] * 3, ctypes.c_int32]
    library.int8_product.argtypes = [*[pointer] * 4, *[number] * 3, ctypes.c_int32]
    library.attend.argtypes = [*[pointer] * 4, *[number] * 5, ctypes.c_int32]
    for name in ("int4_product", "int4_dense", "int8_product", "attend"):
        getattr(library, name).restype = None
    return library, ""


def _failed(what: str, error: Exception) -> str:
    words = getattr(error, "stderr", None) or str(error)
    return f"{what} it failed: {' '.join(words.split())[:200]}"


def _compile(compiler: str) -> Path:
    """Return the library, from the cache if the same was compiled on this machine before.

    Raises
    ------
    OSError, RuntimeError, SubprocessError
        If there is no folder for it or no home, or the compiler fails.
    """
    version = subprocess.run(
        [compiler, "--version"], check=False, capture_output=True, text=True, timeout=60
    ).stdout.partition("\n")[0]
    about = [compiler, version, *_FLAGS, platform.node(), _processor(), SOURCE.read_text()]
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "compression-workbench"
    path = folder / f"kernels-{digest}.so"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_own(folder)
    if path.is_file() or path.is_symlink():
        _check_own(path)
        return path
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        built = Path(aside) / "kernels.so"
        subprocess.run(
            [compiler, *_FLAGS, str(SOURCE), "-lm", "-o", str(built)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        built.chmod(0o700)
        os.replace(built, path)
    return path


def _check_own(path: Path) -> None:
    """Refuse a cache that another user could have put a library into.

    Raises
    ------
    RuntimeError
        If it is a link, another user's, or may be written by others.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(
            f"{path} is not yours alone (a link, another owner, or others may write to it), so"
            f" nothing in it is run; remove it, or chmod go-w {path}"
        )


def _processor() -> str:
    """Return what the compiler's choice of instructions depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith("flags")), platform.machine())


def check(tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError unless a tensor can be given to C by its address."""
    if not (tensor.is_cpu and tensor.dtype is dtype and tensor.is_contiguous()):
        how = "contiguous" if tensor.is_contiguous() else "strided"
        raise ValueError(
            f"The compiled kernels take contiguous {dtype} on the CPU; this is {how}"
            f" {tensor.dtype} on {tensor.device}."
        )


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

    Raises
    ------
    ValueError
        If a tensor is not as above, or the sizes do not fit together.
    """
    library, _ = native_library()
    heads, width = q.shape
    shared, capacity, _ = keys.shape
    for tensor in (q, keys, values):
        check(tensor, torch.float32)
    if (
        keys.shape != values.shape
        or keys.shape[2] != width
        or heads % shared
        or width % 16
        or not 0 < width <= MOST_WIDTH
        or not 0 < length <= capacity
    ):
        raise ValueError(
            f"Attention of {tuple(q.shape)} over {length} of {tuple(keys.shape)} and"
            f" {tuple(values.shape)} has no kernel: give (heads, width) and twice (shared heads,"
            f" capacity, width), widths in multiples of 16 up to {MOST_WIDTH}."
        )
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

    Raises
    ------
    ValueError
        If a tensor is not as above, or the sizes do not fit together.
    """
    library, _ = native_library()
    inputs = x.float().contiguous()
    (tokens, columns), rows = inputs.shape, codes.shape[0]
    check(codes, torch.int8)
    check(scales, torch.bfloat16)
    if codes.shape != (rows, columns) or scales.shape != (rows,):
        raise ValueError(
            f"Inputs of {tuple(x.shape)}, codes of {tuple(codes.shape)} and scales of"
            f" {tuple(scales.shape)} do not fit: give (tokens, n), (rows, n) and (rows,)."
        )
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
