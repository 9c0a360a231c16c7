"""An ordinary transformers checkpoint: dense safetensors in the model's own dtype."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from workbench.export.base import Format, head_bytes
from workbench.export.checkpoint import transformers_code
from workbench.models.load import save_model
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.progress import SILENT, Monitor


class HuggingFace(Format):
    """For pruned, distilled and fine-tuned models; of codes it writes the dense values."""

    name: ClassVar[str] = "hf"
    title: ClassVar[str] = "Hugging Face (dense safetensors)"
    loaders: ClassVar[str] = "transformers, vLLM, everything that reads transformers models"

    def obstacle(self, model: LoadedModel) -> str | None:
        return None

    def predicted_bytes(self, model: LoadedModel) -> int:
        sizes = {}
        for name, tensor in model.hf_model.state_dict(keep_vars=True).items():
            item = model.stored_as(name).itemsize
            item = item if tensor.is_floating_point() else tensor.element_size()
            sizes[tensor_identity(tensor)] = tensor.numel() * item
        return sum(sizes.values()) + head_bytes(model)

    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        save_model(model, folder, lossless=False)

    def loading(self, model: LoadedModel) -> str:
        return transformers_code(model)
