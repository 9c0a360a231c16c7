"""Read checkpoints that hold integer codes, with torch alone: one format per file, and their table.

A reader takes the tensors of a checkpoint and its ``quantization_config``, and returns the codes by
module and everything else dense. Its methods are named as in ``quantization_config.quant_method``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.models.readers.awq import read_awq
from workbench.models.readers.base import Codes, Reader, Tensors
from workbench.models.readers.compressed_tensors import read_compressed_tensors
from workbench.models.readers.gguf import find_gguf, read_gguf
from workbench.models.readers.gptq import read_gptq
from workbench.models.readers.mlx import METHOD as MLX
from workbench.models.readers.mlx import read_mlx
from workbench.models.readers.mxfp4 import read_mxfp4
from workbench.tensors.weights import CompressedWeight, PermutedWeight, QuantizedWeight

READERS: dict[str, Reader] = {
    "gptq": read_gptq,
    "awq": read_awq,
    "compressed-tensors": read_compressed_tensors,
    MLX: read_mlx,
    "mxfp4": read_mxfp4,
}

__all__ = [
    "READERS",
    "Codes",
    "Tensors",
    "check_method",
    "find_gguf",
    "quantization_of",
    "read_codes",
    "read_gguf",
]


def quantization_of(config: Any) -> dict[str, Any] | None:
    """Take what a configuration says of its codes out of it, so that the dense model can be built.

    Parameters
    ----------
    config : PretrainedConfig
        Loses ``quantization_config`` and MLX's ``quantization``, which is the same by another name
        and names no method.
    """
    own = config.__dict__.pop("quantization", None)
    about = config.__dict__.pop("quantization_config", None)
    if isinstance(own, dict) and {"bits", "group_size"} <= set(own):
        return {**own, "quant_method": MLX}
    return about if about is None or isinstance(about, dict) else dict(about.to_dict())


def check_method(ref: str, about: Any) -> None:
    """Raise UnsupportedArchitectureError unless a ``quantization_config`` is of a known method."""
    method = about.get("quant_method") if isinstance(about, dict) else None
    if method not in READERS:
        known = ", ".join(READERS)
        raise UnsupportedArchitectureError(
            f"{ref!r} is quantized already, as {method!r}; the workbench reads {known} and GGUF."
            " Give the original model, so that the workbench can compress it and compare."
        )


def read_codes(ref: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> Codes:
    """Return the compressed weights of a checkpoint and its dense rest.

    Parameters
    ----------
    ref : str
        The model as messages name it.
    about : dict
        Its ``quantization_config``.
    tensors : dict
        All of its tensors by name.

    Raises
    ------
    UnsupportedArchitectureError
        If the method or an option of it is not known, or tensors are missing.
    """
    check_method(ref, about)
    try:
        codes = READERS[about["quant_method"]](about, Tensors(tensors))
        for name, weight in codes.weights.items():
            _check_groups(name, weight)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedArchitectureError):
            raise UnsupportedArchitectureError(f"{ref!r}: {error}") from error
        raise UnsupportedArchitectureError(
            f"{ref!r} says that it is quantized as {about['quant_method']!r}, but its tensors are"
            f" not those of such a checkpoint ({type(error).__name__}: {error})."
        ) from error
    return codes


def _check_groups(name: str, weight: CompressedWeight) -> None:
    inner = weight.base if isinstance(weight, PermutedWeight) else weight
    assert isinstance(inner, QuantizedWeight)
    expected = (inner.shape[0], inner.scheme.n_groups(inner.shape[1]))
    if tuple(inner.scales.shape) != expected:
        raise ValueError(
            f"{name} has scales of shape {tuple(inner.scales.shape)}, and groups of"
            f" {inner.scheme.group_size} need {expected}"
        )
