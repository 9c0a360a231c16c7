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
    if is_cpu(device):
        other = ', memory="streamed" (the weights stay in their files)'
    raise NotEnoughMemoryError(
        f"{name!r} needs about {needed / 1e9:.1f} GB to load ({n_parameters / 1e6:,.0f} M"
        f" parameters in {str(dtype).removeprefix('torch.')}), and {free / 1e9:.1f} GB are free on"
        f" {device}. Use a smaller model{half}{other}, another machine, or close other programs"
        " and notebooks."
    )


MEMORY = ("auto", "resident", "streamed")


def choose_memory(memory: str, budget: float | None) -> str:
    """Return how a model is kept, as it was asked for, after checking it.

    Raises
    ------
    ConfigError
        If it is not one of :data:`MEMORY`, or the budget is no number of bytes above zero.
    """
    if memory not in MEMORY:
        raise ConfigError(
            f"memory={shown(memory)} is not accepted; give {', '.join(map(repr, MEMORY))}."
        )
    number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if budget is not None and not (number and 0 < budget < 2**60):
        raise ConfigError(
            f"memory_budget={shown(budget)} is not accepted; give bytes, such as 8e9, or None for"
            " what is free."
        )
    return memory


def fits_comfortably(
    n_parameters: int, dtype: torch.dtype, device: torch.device, budget: float | None
) -> bool:
    """Return whether a model and the copy that a run compresses fit into memory together."""
    room = free_memory(device) if budget is None else min(budget, free_memory(device))
    return 2 * n_parameters * dtype.itemsize <= room
