"""In which precision a model computes, and whether it fits on a device."""

from __future__ import annotations

import torch

from workbench.errors import ConfigError, NotEnoughMemoryError
from workbench.fields import shown
from workbench.tensors.devices import CPU, free_memory, is_cpu

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Return the dtype that was asked for, None for ``"auto"``.

    Raises
    ------
    ConfigError
        If it is not one of :data:`DTYPES`.
    """
    known = isinstance(dtype, (str, torch.dtype))
    if known and dtype == "auto":
        return None
    found = DTYPES.get(str(dtype).removeprefix("torch.")) if known else None
    if found is None:
        raise ConfigError(
            f"dtype={shown(dtype)} is not accepted; give 'auto', {', '.join(map(repr, DTYPES))} or"
            " the torch.dtype of that name."
        )
    return found


def check_memory(name: str, n_parameters: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raise NotEnoughMemoryError if a model's parameters are estimated not to fit on a device.

    The checkpoint is not counted: it is memory-mapped, so its pages can be dropped. Measured with
    170 M parameters: bfloat16 read as float32 takes 685 MB, which is four bytes per parameter.
    """
    needed = n_parameters * dtype.itemsize
    free = free_memory(device)
    if needed <= free:
        return
    half = ', dtype="bfloat16" (half the memory of float32)' if dtype.itemsize > 2 else ""
    other = "" if is_cpu(device) else f', device="{CPU}"'
    raise NotEnoughMemoryError(
        f"{name!r} needs about {needed / 1e9:.1f} GB to load ({n_parameters / 1e6:,.0f} M"
        f" parameters in {str(dtype).removeprefix('torch.')}), and {free / 1e9:.1f} GB are free on"
        f" {device}. Use a smaller model{half}{other}, another machine, or close other programs"
        " and notebooks."
    )
