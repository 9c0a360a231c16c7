"""GPTQModel, the maintained successor of AutoGPTQ and AutoAWQ: how it is asked.

The file is not named after the package, which the program beside it has to find under that name.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from workbench.errors import CompressionError
from workbench.methods.backends.base import Backend, interpreter, run_process
from workbench.models.load import load_model, save_model
from workbench.models.loaded import LoadedModel
from workbench.progress import Monitor
from workbench.recipes import AWQ, GPTQ, Step

INSTALL = 'pip install --no-build-isolation "gptqmodel>=7.0,<7.7" optimum'
PYTHON = "WORKBENCH_GPTQMODEL_PYTHON"
"""Environment variable: the Python that has GPTQModel, where it is not this one."""

WORKER = Path(__file__).with_name("gptqmodel_worker.py")


class GPTQModelBackend(Backend):
    """Runs ``quantize`` on a saved copy of the model, and reads the checkpoint that it writes."""

    name: ClassVar[str] = "gptqmodel"

    def apply(
        self,
        model: LoadedModel,
        step: Step,
        windows: Sequence[Sequence[int]],
        monitor: Monitor,
    ) -> LoadedModel:
        if model.weights:
            raise CompressionError(
                f"{step.label}: GPTQModel starts from a dense model, and earlier steps have"
                " compressed this one. Let it be the recipe's first step that compresses."
            )
        if model.is_encoder_decoder:
            raise CompressionError(
                f"{step.label}: GPTQModel runs decoders, and {type(model.hf_model).__name__} is an"
                " encoder-decoder. Leave backend at 'workbench'."
            )
        options = _options(step)
        python = interpreter(PYTHON)
        _check_installed(python)
        with tempfile.TemporaryDirectory(prefix="workbench-gptqmodel-") as temporary:
            folder = Path(temporary)
            save_model(model, folder / "model", lossless=False, whole=True)
            request = {
                "model": str(folder / "model"),
                "out": str(folder / "out"),
                "windows": [list(window) for window in windows],
                "options": options,
                "device": str(model.device),
                "temporary": temporary,
            }
            path = folder / "request.json"
            path.write_text(json.dumps(request), encoding="utf-8")
            run_process([python, WORKER, path], self.name, monitor)
            found = load_model(
                folder / "out", model.tokenizer, device=str(model.device), dtype=model.dtype
            )
            found.hf_model.requires_grad_(False)
        if not found.weights:
            raise CompressionError(f"{step.label}: GPTQModel left every layer dense.")
        return dataclasses.replace(model, hf_model=found.hf_model, weights=found.weights)


def _check_installed(python: Path) -> None:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('gptqmodel') is None)"
    try:
        found = subprocess.run([python, "-c", look], capture_output=True)
    except OSError as error:
        raise CompressionError(
            f"{python}, which the environment variable {PYTHON} names, is no Python that can be run"
            f" ({error.strerror}). Set it to the Python of an environment that has GPTQModel."
        ) from error
    if found.returncode:
        raise CompressionError(
            f"GPTQModel is not installed for {python}. Install it with\n    {INSTALL}\nor set the"
            f" environment variable {PYTHON} to the Python of an environment that has it."
        )


def _options(step: Step) -> dict[str, Any]:
    """Return what GPTQModel's ``QuantizeConfig`` is given for a step."""
    if not isinstance(step, (GPTQ, AWQ)):
        raise CompressionError(f"{step.label}: GPTQModel runs GPTQ and AWQ.")
    accepted = (2, 3, 4, 8) if isinstance(step, GPTQ) else (4,)
    if step.bits not in accepted:
        known = ", ".join(map(str, accepted))
        raise CompressionError(f"{step.label}: GPTQModel takes {known} bits for it.")
    options: dict[str, Any] = {
        "bits": step.bits,
        "group_size": -1 if step.group_size is None else step.group_size,
        "sym": step.symmetric,
        "offload_to_disk": False,
    }
    if isinstance(step, AWQ):
        return {**options, "quant_method": "awq", "format": "gemm"}
    # Its order "group aware" leaves groups where they are, as ours does; it needs groups.
    aware = step.act_order and step.group_size is not None
    return {
        **options,
        "damp_percent": step.damping,
        "desc_act": step.act_order and not aware,
        "act_group_aware": aware,
    }
