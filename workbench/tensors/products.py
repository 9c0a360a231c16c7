"""Products of float32 matrices at the speed that the CPU has, and sums of outer products."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_lock = threading.Lock()
_users = 0
_setting_before = "none"


def _onednn_is_exact() -> bool:
    """Return whether oneDNN multiplies float32 in float32 even where it may round to bfloat16.

    Of the CPUs with 512-bit vectors only those with AMX have an instruction for the rounded form.
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision")
        and not has_amx()
    )


@contextlib.contextmanager
def fast_products() -> Iterator[None]:
    """Multiply float32 matrices with the faster of torch's two libraries, equally precisely.

    MKL, which torch uses by itself, runs at half speed on CPUs that Intel did not make; oneDNN does
    not. Torch turns to oneDNN when float32 products may be rounded to bfloat16 on the way, so this
    is allowed where the CPU could not do so anyway, and nothing is done elsewhere. The setting is
    the process's; it is put back when the last user of this context has left.
    """
    global _users, _setting_before
    if not _onednn_is_exact():
        yield
        return
    settings: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009 - unknown to mypy
    with _lock:
        if _users == 0:
            _setting_before = settings.fp32_precision
            settings.fp32_precision = "bf16"
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                settings.fp32_precision = _setting_before


def add_gram(gram: Tensor, rows: Tensor) -> None:
    """Add Σ x xᵀ over the rows to the lower triangle of ``gram``, in place.

    Only blocks on and below the diagonal are computed, which saves nearly half of the work; call
    :func:`mirror` after the last addition.

    Parameters
    ----------
    gram : Tensor of shape (in_features, in_features), float32
        May be on another device than the rows.
    rows : Tensor of shape (tokens, in_features), float32
    """
    width = len(gram)
    if rows.device != gram.device:
        gram.add_((rows.T @ rows).to(gram.device))
        return
    block = 64 * max(1, -(-width // 512))  # about eight blocks: measured from 256 to 2048 wide
    for first in range(0, width, block):
        last = min(first + block, width)
        gram[first:last, :last].addmm_(rows[:, first:last].T, rows[:, :last])


def mirror(gram: Tensor) -> None:
    """Copy the lower triangle of a square matrix to the upper one, in place."""
    gram.copy_(gram.tril() + gram.tril(-1).T)
