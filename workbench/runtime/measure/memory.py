"""How much memory a model takes, asked of a process that does nothing else.

The packed model goes through a file into a fresh process, which reads its resident set size after
its imports and a first small product, loads and runs the model, frees what can be freed and reads
it again: that is what it holds. The most that the process held in between, with what a pass needs
for itself, is the peak. So neither the dense copy, nor calibration data, nor the notebook counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench.child_process import package_environment
from workbench.errors import WorkbenchError
from workbench.runtime.packed import PackedModel

TIMEOUT_SECONDS = 600

# Whoever does not want to wait kills the process that asks, which then cannot clear up itself: its
# end closes this one's standard input.
_WATCH = """
import os, shutil, sys, threading
def watch():
    os.read(0, 1)
    shutil.rmtree(os.path.dirname(sys.argv[1]), ignore_errors=True)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
"""

# The model's code alone takes more than 100 MB, so it is imported before the first reading.
_CHILD = """
import importlib, json, sys
import torch
from workbench.runtime.measure.generation import last_logits_only
from workbench.runtime.measure.memory import peak_so_far, settle

path, threads, n_tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for name in sys.argv[4:]:
    importlib.import_module(name)
torch.set_num_threads(threads)
with torch.inference_mode():
    torch.nn.functional.linear(torch.ones(8, 64).bfloat16(), torch.ones(64, 64).bfloat16())
    before = settle()
    model = torch.load(path, weights_only=False)
    size = model.config.get_text_config().vocab_size
    ids = torch.arange(n_tokens)[None] % size
    mask = torch.ones_like(ids)
    only = last_logits_only(model)
    if getattr(model.config, "is_encoder_decoder", False):
        only["decoder_input_ids"] = ids[:, :1]
    for _ in range(2):
        model(input_ids=ids, attention_mask=mask, **only)
        model(**{**only, "input_ids": ids[:, :1], "attention_mask": mask[:, :1]})
    peak = peak_so_far()
print(json.dumps({"held_bytes": settle() - before, "peak_bytes": peak - before}))
"""


@dataclass(frozen=True)
class Memory:
    """What a model takes in a fresh process, beyond that process itself.

    Attributes
    ----------
    held_bytes : int
        Resident after it ran, when what can be freed is freed.
    peak_bytes : int
        The most that was resident at once, while it was loaded and ran.
    """

    held_bytes: int
    peak_bytes: int


def settle() -> int:
    """Return the resident bytes of this process after giving back what is free.

    The peak starts anew from here, where the system allows that (Linux).
    """
    import contextlib
    import ctypes
    import gc

    import psutil

    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6", use_errno=True).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss)


def peak_so_far() -> int:
    """Return the most bytes that this process has had resident.

    Linux counts in ``ru_maxrss`` what the parent had before it started this program, so its own
    counter is read there.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS counts bytes


def measure_memory(packed: PackedModel, *, n_tokens: int = 128) -> Memory:
    """Return the memory that a model takes in a fresh process.

    Parameters
    ----------
    packed : PackedModel
        Written to a temporary file, which needs as much disk as the model has bytes.
    n_tokens : int
        Tokens of the input that it runs on, and a second input of one token.

    Returns
    -------
    Memory
        Less what the process had before the model was loaded.

    Raises
    ------
    WorkbenchError
        If the model cannot be written, or the process fails or takes 10 minutes.
    """
    with tempfile.TemporaryDirectory(prefix="workbench-memory-") as folder:
        path = Path(folder) / "model.pt"
        try:
            torch.save(packed.hf_model, path)
        except Exception as error:
            raise WorkbenchError(
                f"The memory of {type(packed.hf_model).__name__} cannot be measured: it cannot be"
                f" written to a file for another process ({type(error).__name__}: {error})."
            ) from error
        environment = {**package_environment(), "HF_HUB_OFFLINE": "1"}
        arguments = [str(path), str(torch.get_num_threads()), str(n_tokens)]
        arguments += sorted({type(module).__module__ for module in packed.hf_model.modules()})
        ours, held = os.pipe()
        try:
            done = subprocess.run(
                [sys.executable, "-c", _WATCH + _CHILD, *arguments],
                stdin=ours,
                capture_output=True,
                text=True,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WorkbenchError(
                f"Measuring the memory took more than {TIMEOUT_SECONDS} s and was stopped."
            ) from error
        finally:
            os.close(ours)
            os.close(held)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise WorkbenchError(f"The process that measures the memory failed: {words[0]}")
    return Memory(**json.loads(lines[-1]))
