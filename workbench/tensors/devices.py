"""The device that torch computes on: what it is, its memory, dtypes, waiting and random numbers.

Nothing else in the package names a kind of device or asks torch for one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.fields import shown

CPU, CUDA, MPS = "cpu", "cuda", "mps"
ACCEPTED = "give 'auto', 'cpu', 'cuda' (or 'cuda:1'), or 'mps'"


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device that was asked for; ``"auto"`` is the first CUDA device, else the CPU.

    Raises
    ------
    ConfigError
        If it is not a device, or not one of this machine.
    """
    if not isinstance(device, (str, torch.device)):
        raise ConfigError(f"device={shown(device)} is not accepted; {ACCEPTED}.")
    if device == "auto":
        return torch.device(CUDA, 0) if torch.cuda.is_available() else torch.device(CPU)
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={shown(device)} is not accepted; {ACCEPTED}.") from error
    if target.type not in (CPU, CUDA, MPS):
        raise ConfigError(f"device={str(device)!r} is not supported; {ACCEPTED}.")
    if not is_available(target):
        raise ConfigError(
            f"device={str(device)!r} is not available on this machine, which has"
            f" {', '.join(map(repr, available_devices()))}; give one of these, or 'auto'."
        )
    return target


def available_devices() -> tuple[str, ...]:
    """Return the names of the devices of this machine, the CPU first."""
    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    apple = [MPS] if torch.backends.mps.is_available() else []
    return (CPU, *(f"{CUDA}:{index}" for index in cards), *apple)


def is_available(device: torch.device) -> bool:
    """Return whether this machine has the device."""
    if device.type == CUDA:
        return f"{CUDA}:{device.index or 0}" in available_devices()
    return device.type in available_devices() and not device.index


def is_cpu(device: torch.device) -> bool:
    """Return whether it is the processor, whose memory is the machine's."""
    return device.type == CPU


def is_cuda(device: torch.device) -> bool:
    """Return whether it is an NVIDIA GPU (or an AMD one, which torch calls the same)."""
    return device.type == CUDA


def device_name(device: torch.device) -> str:
    """Return a GPU's name, such as "NVIDIA H100"; for others the kind of the device."""
    return str(torch.cuda.get_device_name(device)) if is_cuda(device) else device.type


def device_id(device: torch.device) -> str:
    """Return what tells an NVIDIA GPU from all others of the machine, its UUID."""
    found = str(torch.cuda.get_device_properties(device).uuid)
    return found if found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"


# Memory


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device.

    Of ``mps``, which shares the machine's memory, what the system lets the GPU take of it.
    """
    if is_cuda(device):
        return int(torch.cuda.mem_get_info(device)[0])
    machine = int(psutil.virtual_memory().available)
    if device.type == MPS:
        recommended = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(machine, int(recommended)))
    return machine


# Dtypes


def has_float64(device: torch.device) -> bool:
    """Return whether the device computes in float64."""
    return device.type != MPS


def in_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU where its device has none.

    Factorizations need the precision, and what they give is small beside the weights.
    """
    return (tensor if has_float64(tensor.device) else tensor.cpu()).double()


def compute_dtype(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """Return what a model is computed in where the user does not say.

    The dtype that it is stored in; on the CPU, and where the device lacks that dtype, float32.
    """
    lacking = stored == torch.float64 and not has_float64(device)
    return torch.float32 if is_cpu(device) or lacking else stored


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return what dense layers are fast in: bfloat16 where there are instructions for it.

    A CUDA GPU has them, and so has a CPU with AVX-512 BF16 or AMX; other CPUs emulate bfloat16,
    many times slower than float32.
    """
    cpu = torch.cpu
    if is_cuda(device) or (
        is_cpu(device) and (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    ):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Compute in bfloat16 where that is faster and sums stay in float32: on CUDA."""
    if is_cuda(device) and torch.cuda.is_bf16_supported():
        return torch.autocast(CUDA, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def has_tinygemm(device: torch.device) -> bool:
    """Return whether the GPU runs torch's int4 kernel, which needs compute capability 8.0."""
    return is_cuda(device) and torch.cuda.get_device_capability(device) >= (8, 0)


# Waiting


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything that it was given; the CPU always has."""
    if is_cuda(device):
        torch.cuda.synchronize(device)
    elif device.type == MPS:
        torch.mps.synchronize()


# Random numbers


def seeded_generator(device: torch.device, seed: int) -> torch.Generator:
    """Return a generator of random numbers for tensors of a device."""
    return torch.Generator(device).manual_seed(seed)


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw random numbers from a seed, on the CPU and on the device.

    What the user draws next is not affected, on any device.
    """
    apple = torch.mps.get_rng_state() if device.type == MPS else None
    try:
        with torch.random.fork_rng(devices=[device] if is_cuda(device) else []):
            torch.default_generator.manual_seed(seed)
            if is_cuda(device):
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            elif device.type == MPS:
                torch.mps.manual_seed(seed)
            yield
    finally:
        if apple is not None:
            torch.mps.set_rng_state(apple)
