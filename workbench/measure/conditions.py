"""Where something was measured: numbers of different machines or threads are not comparable."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path


def conditions(device: str = "cpu") -> str:
    """Return host, processor and threads as one line, such as "lab7, AMD EPYC, 2 threads".

    Parameters
    ----------
    device : str
        "cpu" or "cuda"; for the latter the GPU's name is in place of the processor's.
    """
    import torch

    if device.startswith("cuda"):
        return f"{platform.node()}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{platform.node()}, {processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """Return the processor's name as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def warn_if_busy(threads: int) -> None:
    """Warn if other programs keep so many cores busy that times would be too long."""
    if not hasattr(os, "getloadavg"):
        return
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy + threads > 1.5 * cores:
        warnings.warn(
            f"About {busy:.1f} of {cores} cores were busy with other work in the last minute, so"
            " the times will be too long. Measure again on a quiet machine.",
            stacklevel=2,
        )
