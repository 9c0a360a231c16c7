"""Where something was measured: numbers of different machines or threads are not comparable."""

from __future__ import annotations

import os
import platform
import time
import warnings
from pathlib import Path

import psutil

from workbench.records import FOR_INFORMATION
from workbench.version import __version__

SAMPLE_SECONDS = 0.5


def conditions(device: str = "cpu", workload: str = "") -> str:
    """Return where and on what something is measured, as one line.

    Such as "AMD EPYC, 8 cores, 2 threads, compiled kernels, 64 tokens after 128 | host lab7, torch
    2.13.0, workbench 0.3.0". What stands before the bar must be equal for numbers to be compared;
    a host's name must not, because a server names its containers anew.

    Parameters
    ----------
    device : str
        As torch writes it, such as "cpu" or "cuda:1". A GPU's name is in place of the processor's
        and of the threads.
    workload : str
        What is run.
    """
    import torch

    from workbench.runtime.packed.native import native_library
    from workbench.tensors.devices import device_name, is_cpu, is_cuda

    target = torch.device(device)
    if is_cuda(target):
        parts = [device_name(target)]
    elif not is_cpu(target):  # it is a part of the processor
        parts = [processor(), device_name(target)]
    else:
        threads = torch.get_num_threads()
        whose = "torch's" if native_library()[0] is None else "compiled"
        parts = [f"{processor()}", f"{os.cpu_count() or 1} cores"]
        parts += [f"{threads} thread{'s' if threads > 1 else ''}", f"{whose} kernels"]
    versions = f"torch {torch.__version__}, workbench {__version__}"
    matters = ", ".join([*parts, *([workload] if workload else [])])
    return f"{matters}{FOR_INFORMATION}host {platform.node()}, {versions}"


def processor() -> str:
    """Return the processor's name as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def warn_if_busy(threads: int) -> None:
    """Warn if other programs leave fewer cores than there are threads; looks for half a second."""
    cores = os.cpu_count() or 1
    start, own = time.monotonic(), time.process_time()
    busy = psutil.cpu_percent(interval=SAMPLE_SECONDS) / 100 * cores
    # Threads of our own may still be waiting for work in a loop.
    busy -= (time.process_time() - own) / (time.monotonic() - start)
    if busy + threads > cores + 0.5:
        warnings.warn(
            f"About {busy:.1f} of {cores} cores are busy with other work, and {threads} are needed,"
            " so the times will be too long. Measure again on a quiet machine.",
            stacklevel=2,
        )
