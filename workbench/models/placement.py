"""Where a model is put and in which precision it computes, and whether it fits there."""

from __future__ import annotations

import psutil
import torch

from workbench.errors import ConfigError, NotEnoughMemoryError
from workbench.fields import shown

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device that was asked for; ``"auto"`` is the first CUDA device, else the CPU.

    Raises
    ------
    ConfigError
        If it is not a device, or not one of this machine.
    """
    if not isinstance(device, (str, torch.device)):
        raise ConfigError(f"load_model: device={shown(device)} is not accepted; give a text.")
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    accepted = "give 'auto', 'cpu', 'cuda' (or 'cuda:1'), or 'mps'"
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r} is not accepted; {accepted}.") from error
    if target.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device={str(device)!r} is not supported; {accepted}.")
    count = torch.cuda.device_count() if target.type == "cuda" else 1
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (target.index or 0) < count,
        "mps": torch.backends.mps.is_available(),
    }
    if not usable[target.type]:
        raise ConfigError(
            f"device={str(device)!r} is not available on this machine; use 'auto' or 'cpu'."
        )
    return target


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


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device (the machine's memory for all but CUDA)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


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
    other = ', device="cpu"' if device.type == "cuda" else ""
    raise NotEnoughMemoryError(
        f"{name!r} needs about {needed / 1e9:.1f} GB to load ({n_parameters / 1e6:,.0f} M"
        f" parameters in {str(dtype).removeprefix('torch.')}), and {free / 1e9:.1f} GB are free on"
        f" {device}. Use a smaller model{half}{other}, another machine, or close other programs"
        " and notebooks."
    )
