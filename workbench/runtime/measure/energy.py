"""Read the energy that the machine has used, where it has a meter that may be read."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


class Meter(ABC):
    """Counts joules. It counts the whole processor or GPU, other programs' work included."""

    name: str

    @abstractmethod
    def read(self) -> float:
        """Return the joules used since the meter was opened."""


class RaplMeter(Meter):
    """The processor packages' own counters (Linux, Intel and AMD); usually only root may read."""

    name = "RAPL"

    def __init__(self, domains: list[Path]) -> None:
        self._domains = domains
        self._last = [self._count(domain) for domain in domains]
        self._ranges = [int((d / "max_energy_range_uj").read_text()) for d in domains]
        self._total = 0

    @staticmethod
    def _count(domain: Path) -> int:
        return int((domain / "energy_uj").read_text())

    def read(self) -> float:
        for index, domain in enumerate(self._domains):
            now = self._count(domain)
            passed = now - self._last[index]
            # The counter starts again at 0 after its range.
            self._total += passed if passed >= 0 else passed + self._ranges[index]
            self._last[index] = now
        return self._total / 1e6


class NvmlMeter(Meter):
    """An NVIDIA GPU's counter, by the package ``nvidia-ml-py`` where it is installed."""

    name = "NVML"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._start = self._millijoules()

    def _millijoules(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def read(self) -> float:
        return (self._millijoules() - self._start) / 1e3


def open_meter(device: str = "cpu", *, powercap: Path = POWERCAP) -> Meter | None:
    """Return the meter of a device, or None where there is none that may be read.

    Parameters
    ----------
    device : str
        As torch writes it, such as "cpu" or "cuda:1".
    powercap : Path
        Where Linux shows the processor's counters.
    """
    import torch

    from workbench.tensors.devices import device_id, is_cpu, is_cuda

    target = torch.device(device)
    if is_cuda(target):
        with contextlib.suppress(Exception):  # no package, no driver, or a GPU without a counter
            import pynvml

            pynvml.nvmlInit()
            # torch counts the GPUs that CUDA_VISIBLE_DEVICES shows, NVML all: they agree on the id.
            return NvmlMeter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(device_id(target)))
    if not is_cpu(target):
        return None
    with contextlib.suppress(OSError, ValueError):
        domains = [d for d in sorted(powercap.glob("*-rapl:*")) if _is_package(d)]
        return RaplMeter(domains) if domains else None
    return None


def _is_package(domain: Path) -> bool:
    """Whether it counts a whole processor; its cores, its memory and "psys" would count twice."""
    name = domain / "name"
    return name.is_file() and name.read_text().startswith("package")
