"""Write a folder in the layout of transformers: tensors, configuration and tokenizer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from workbench.export.base import dense_bytes, head_bytes
from workbench.models.architectures import quiet
from workbench.models.load import save_tokenizer, write_extras
from workbench.models.loaded import LoadedModel
from workbench.storage.artifacts import dense_tensors


def write_checkpoint(
    model: LoadedModel,
    folder: Path,
    packed: dict[str, Tensor],
    fields: dict[str, Any],
) -> None:
    """Write safetensors, config.json with what the format says of itself, tokenizer and head.

    Parameters
    ----------
    model : LoadedModel
        Not changed; what is not compressed is written in its stored dtype, tied tensors once.
    folder : Path
    packed : dict
        The tensors of the compressed layers by their names in the checkpoint.
    fields : dict
        What config.json has besides the model's own configuration: JSON-ready.
    """
    save_torch_state_dict(
        {**dense_tensors(model), **packed}, folder, max_shard_size="5GB", metadata={"format": "pt"}
    )
    write_configuration(model, folder, fields)
    write_extras(model, folder)


def write_configuration(
    model: LoadedModel, folder: Path, more: dict[str, Any] | None = None
) -> None:
    """Write config.json, generation_config.json and the tokenizer.

    Parameters
    ----------
    model : LoadedModel
    folder : Path
    more : dict, optional
        Further fields of config.json.
    """
    config = copy.deepcopy(model.hf_model.config)
    config.architectures = [type(model.hf_model).__name__]
    config.dtype = model.stored_dtype
    with quiet():
        config.save_pretrained(folder)
        generation = getattr(model.hf_model, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(folder)
        if model.tokenizer is not None:
            save_tokenizer(model.tokenizer, folder)
    if more:
        path = folder / "config.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**data, **more}, indent=2) + "\n", encoding="utf-8")


def checkpoint_bytes(model: LoadedModel, packed: int) -> int:
    """Return the bytes of all tensors; ``packed`` are those of the compressed layers."""
    return dense_bytes(model) + packed + head_bytes(model)


def auto_class_name(model: LoadedModel) -> str:
    """Return the transformers Auto class that loads the model's checkpoint."""
    from workbench.models.architectures import auto_class

    return str(auto_class(type(model.hf_model).__name__).__name__)


def transformers_code(model: LoadedModel, dtype: str = "auto") -> str:
    """Return the code that loads a checkpoint with transformers."""
    name = auto_class_name(model)
    return (
        f"from transformers import {name}, AutoTokenizer\n\n"
        f'model = {name}.from_pretrained("FOLDER", dtype="{dtype}")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    )
