"""GGUF files with a configuration beside them: F32, F16, BF16, simple blocks and k-quants."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ModelNotFoundError, UnsupportedArchitectureError
from workbench.models.readers.base import Codes
from workbench.tensors.packing import gguf as packing
from workbench.tensors.weights import CompressedWeight


def find_gguf(folder: Path) -> Path | None:
    """Return the GGUF file of a folder that has no safetensors, None if there is none.

    Raises
    ------
    ModelNotFoundError
        If there are several.
    """
    files = sorted(folder.glob("*.gguf"))
    if not files or any(folder.glob("model*.safetensors")):
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ModelNotFoundError(
            f"{str(folder)!r} has several GGUF files ({names}); keep one of them in a folder of its"
            " own, with config.json and the tokenizer beside it."
        )
    return files[0]


def read_gguf(path: Path, names: Iterable[str], config: Any) -> Codes:
    """Return the codes and dense tensors of a file.

    Parameters
    ----------
    path : Path
    names : iterable of str
        What the model's ``state_dict`` has to hold, as transformers names it.
    config : PretrainedConfig
        From beside the file.

    Raises
    ------
    UnsupportedArchitectureError
        If the architecture, or the type of a tensor, is not known.
    ModelNotFoundError
        If it is no GGUF file, or cut off.
    """
    import gguf

    if config.model_type not in packing.ARCHITECTURES:
        known = ", ".join(packing.ARCHITECTURES)
        raise UnsupportedArchitectureError(
            f"{path.name} is a {config.model_type!r}; of GGUF files the workbench reads {known}."
        )
    try:
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    except (ValueError, IndexError, KeyError) as error:
        raise ModelNotFoundError(
            f"{path.name} in {str(path.parent)!r} is not a whole GGUF file ({error}). Copy or"
            " download it again."
        ) from error
    weights: dict[str, CompressedWeight] = {}
    dense: dict[str, Tensor] = {}
    for name in names:
        tensor = tensors.pop(packing.tensor_name(name, config) or "", None)
        if tensor is None:  # tied to another one; what is really missing is said when it is loaded
            continue
        kind, data = tensor.tensor_type.name, np.array(tensor.data)
        heads = packing.heads_of(name, config)
        if heads is not None:
            data = packing.unrotated(data, heads)
        if kind in packing.BLOCK_BYTES or kind in packing.SUPER_BLOCKS:
            weights[name.removesuffix(".weight")] = packing.unpack(kind, data)
        elif kind in ("F32", "F16"):
            dense[name] = torch.from_numpy(np.ascontiguousarray(data))
        elif kind == "BF16":
            dense[name] = torch.from_numpy(np.ascontiguousarray(data)).view(torch.bfloat16)
        else:
            known = ", ".join(("F32", "F16", "BF16", *packing.BLOCK_BYTES, *packing.SUPER_BLOCKS))
            raise UnsupportedArchitectureError(
                f"{path.name} stores {tensor.name} as {kind}; the workbench reads {known}. Load"
                " the original model that this file was made from."
            )
    return Codes(weights, dense)
