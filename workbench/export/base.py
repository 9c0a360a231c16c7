"""What an export format is, and what keeps a model from fitting into one."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from workbench.models.layers import find_blocks, find_linears
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.progress import SILENT, Monitor
from workbench.recipes.schemes import IntScheme
from workbench.tensors.weights import (
    CompressedWeight,
    CorrectedWeight,
    PermutedWeight,
    PrunedWeight,
    QuantizedWeight,
    SuperBlockWeight,
)


class Format(ABC):
    """A checkpoint format that other programs load.

    Attributes
    ----------
    name : str
        What ``run.export(format=...)`` takes.
    title : str
        For people.
    loaders : str
        The programs that load it.
    library : str
        ``library_name`` of its model cards, by which hubs sort them.
    complete : bool
        Whether :func:`workbench.load_model` reads it again, and a head of the workbench's has a
        file of its own; else all is in the file that other programs run.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    loaders: ClassVar[str]
    library: ClassVar[str] = "transformers"
    complete: ClassVar[bool] = True

    @abstractmethod
    def obstacle(self, model: LoadedModel) -> str | None:
        """Return why a model does not fit into the format, as a clause; None if it does."""

    def kept_dense(self, model: LoadedModel) -> dict[str, str]:
        """Return the compressed layers that are written densely, by name, and why, as a clause.

        None in a format that holds every compressed layer as it is.
        """
        return {}

    def dense_dtype(self, model: LoadedModel) -> torch.dtype:
        """Return the dtype that dense tensors are rounded to."""
        return model.stored_dtype

    @abstractmethod
    def predicted_bytes(self, model: LoadedModel) -> int:
        """Return the bytes of all tensors that :meth:`write` will write for a model that fits."""

    @abstractmethod
    def write(self, model: LoadedModel, folder: Path, monitor: Monitor = SILENT) -> None:
        """Write the checkpoint into an empty folder; the model is not changed."""

    def reload(self, model: LoadedModel, folder: Path) -> LoadedModel:
        """Return what was written of a model, loaded again, to compare it with the model."""
        from workbench.models.load import load_model

        return load_model(folder, device=str(model.device), dtype=model.dtype, memory="resident")

    def tensor_bytes(self, folder: Path) -> int:
        """Return the bytes of all tensors that :meth:`write` has written."""
        from workbench.models.sources import read_headers

        files = sorted(folder.glob("*.safetensors"))
        return sum(size for file in files for _, size in read_headers([file]).values())

    @abstractmethod
    def loading(self, model: LoadedModel) -> str:
        """Return the code that loads the checkpoint from a folder ``FOLDER``, for the card."""


def layer_weights(model: LoadedModel) -> dict[str, CompressedWeight | None]:
    """Return the stored form of every linear layer of the blocks by name, None where dense."""
    return {name: model.weights.get(name) for name in find_linears(model.hf_model)}


def code_layers(
    model: LoadedModel,
) -> dict[str, QuantizedWeight | PermutedWeight | SuperBlockWeight]:
    """Return the weights that are stored as codes, by name."""
    kinds = (QuantizedWeight, PermutedWeight, SuperBlockWeight)
    return {name: w for name, w in model.weights.items() if isinstance(w, kinds)}


def with_codes(model: LoadedModel, names: Collection[str]) -> LoadedModel:
    """Return a model in which these layers alone are compressed; the others are as dense."""
    kept = {name: weight for name, weight in model.weights.items() if name in names}
    return dataclasses.replace(model, weights=kept)


def split_codes(
    model: LoadedModel,
    reason_of: Callable[[str, QuantizedWeight], str | None],
    *,
    outside: bool = False,
    experts: Collection[str] = (),
    transposed: bool = False,
) -> tuple[dict[str, QuantizedWeight], dict[str, str]]:
    """Return the layers that a format can hold as codes, and why it cannot the other ones.

    Parameters
    ----------
    model : LoadedModel
    reason_of : callable
        Given name and codes of a layer; returns why the format has no such codes, as a clause, or
        None if it has.
    outside : bool
        Whether embeddings and output head may be stored as codes.
    experts : collection of str
        Experts' matrices that the format has names for; a stack is stored as codes or not at all.
    """
    found, dense = _split(model, reason_of, outside=outside, experts=experts)
    fit = {name: weight for name, weight in found.items() if isinstance(weight, QuantizedWeight)}
    for name in [name for name in fit if name in experts]:
        stack = name.rpartition(".")[0]
        other = next((n for n in dense if n.rpartition(".")[0] == stack), None)
        if other is not None:
            del fit[name]
            dense[name] = f"{other} of the same stack is dense"
    return fit, dense


def split_blocks(
    model: LoadedModel, reason_of: Callable[[str, Any], str | None]
) -> tuple[dict[str, QuantizedWeight | SuperBlockWeight], dict[str, str]]:
    """Return what :func:`split_codes` does, for GGUF: with super-blocks, embeddings and head."""
    found, dense = _split(model, reason_of, outside=True, superblocks=True)
    return {n: w for n, w in found.items() if not isinstance(w, PermutedWeight)}, dense


def _split(
    model: LoadedModel,
    reason_of: Callable[[str, Any], str | None],
    *,
    outside: bool = False,
    permuted: bool = False,
    experts: Collection[str] = (),
    superblocks: bool = False,
) -> tuple[dict[str, QuantizedWeight | PermutedWeight | SuperBlockWeight], dict[str, str]]:
    fit: dict[str, QuantizedWeight | PermutedWeight | SuperBlockWeight] = {}
    dense: dict[str, str] = {}
    layers = layer_weights(model)
    for name in [*layers, *(n for n in model.weights if n not in layers)]:
        weight = model.weights.get(name)
        if weight is None or isinstance(weight, PrunedWeight):
            continue  # dense already
        reason = _kind_reason(model, name, weight, permuted, experts)
        if reason is None and isinstance(weight, SuperBlockWeight) and not superblocks:
            reason = f"{name} is on the grid {weight.scheme.name}, which GGUF files alone hold"
        if reason is None and name not in layers and not outside:
            reason = f"{name}, outside of the blocks, is stored as codes too"
        if reason is None:
            assert isinstance(weight, (QuantizedWeight, PermutedWeight, SuperBlockWeight))
            reason = reason_of(name, weight)
            if reason is None:
                fit[name] = weight
                continue
        dense[name] = reason
    return fit, dense


_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that vLLM and SGLang make one of: they are codes together, or dense together."""


def split_alike(
    model: LoadedModel, bits: tuple[int, ...], *, permuted: bool = False
) -> tuple[dict[str, QuantizedWeight | PermutedWeight], dict[str, str]]:
    """Return the layers that fill words of full groups, and why the other compressed ones do not.

    For formats of one number format, whose loaders know the layers that are none by name.
    """
    found, dense = _split(model, lambda n, w: layer_obstacle(n, w, bits), permuted=permuted)
    fit = {name: w for name, w in found.items() if not isinstance(w, SuperBlockWeight)}
    layers = layer_weights(model)
    for name in list(fit):
        parent, _, own = name.rpartition(".")
        mates = next((joined for joined in _JOINED if own in joined), ())
        for mate in (f"{parent}.{other}" for other in mates):
            if name in fit and mate in layers and mate not in fit:
                del fit[name]
                dense[name] = f"loaders join it with {mate}, which is dense"
    return fit, dense


def dense_linears(model: LoadedModel, codes: Collection[str]) -> list[str]:
    """Return the linear layers within the blocks that are not among these."""
    blocks = tuple(f"{name}." for name in find_blocks(model.hf_model))
    linears = (n for n, m in model.hf_model.named_modules() if isinstance(m, nn.Linear))
    return [name for name in linears if name.startswith(blocks) and name not in codes]


def no_codes_obstacle(fit: Mapping[str, CompressedWeight], dense: dict[str, str]) -> str | None:
    """Return why a format holds none of a model's codes, None if it holds some."""
    if fit:
        return None
    return next(iter(dense.values()), "none of its layers is stored as integer codes")


def scheme_of(weight: QuantizedWeight | PermutedWeight) -> IntScheme:
    """Return the number format of a weight's codes."""
    return weight.base.scheme if isinstance(weight, PermutedWeight) else weight.scheme


def scheme_label(scheme: IntScheme) -> str:
    """Return a number format in words, such as "4-bit g128 symmetric"."""
    groups = "per channel" if scheme.group_size is None else f"g{scheme.group_size}"
    return f"{scheme.bits}-bit {groups}{' symmetric' if scheme.symmetric else ''}"


def encoder_decoder_obstacle(model: LoadedModel) -> str | None:
    """Return why a format for packed codes does not take an encoder-decoder, None for others."""
    if not model.is_encoder_decoder:
        return None
    return (
        f"{type(model.hf_model).__name__} is an encoder-decoder, whose layers its loaders do not"
        " run from codes"
    )


def _kind_reason(
    model: LoadedModel,
    name: str,
    weight: CompressedWeight | None,
    permuted: bool,
    experts: Collection[str] = (),
    transposed: bool = False,
) -> str | None:
    site = model.site(name)
    if weight is not None and site.index is not None and name not in experts:
        return f"{name} is one expert of a stack that transformers keeps in one tensor"
    if weight is not None and site.transposed and not transposed:
        return f"{name} is a Conv1D layer, which its loaders do not take"
    if isinstance(weight, CorrectedWeight):
        return f"{name} has a low-rank correction"
    if isinstance(weight, PrunedWeight):
        return f"{name} is pruned and stored densely, not as codes"
    if isinstance(weight, PermutedWeight) and not permuted:
        return f"the groups of {name} are not of consecutive inputs (act-order)"
    if weight is not None and weight.input_scales is not None:
        return (
            f"{name} divides its inputs by scales that the layer before cannot absorb; AWQ(…,"
            " exportable=True) leaves such inputs as they are"
        )
    return None


def alike_obstacle(
    model: LoadedModel,
    fit: Mapping[str, QuantizedWeight | PermutedWeight],
    dense: dict[str, str],
) -> str | None:
    """Return why a format of one number format holds none of a model's codes, or not together."""
    stacked = next((n for n in model.weights if model.site(n).index is not None), None)
    if stacked is not None:
        return f"{stacked} is one expert of a stack that transformers keeps in one tensor"
    counts = Counter(scheme_of(weight) for weight in fit.values())
    formats = {(s.bits, s.group_size) for s in counts}
    if len(formats) > 1:
        several = ", ".join(scheme_label(s) for s, _ in counts.most_common(3))
        return f"its layers have {len(formats)} different number formats ({several})"
    return no_codes_obstacle(fit, dense)


def layer_obstacle(
    name: str, weight: QuantizedWeight | PermutedWeight, bits: tuple[int, ...]
) -> str | None:
    """Return what of a layer keeps its codes from filling words of full groups, None if nothing."""
    scheme, (rows, columns) = scheme_of(weight), weight.shape
    if scheme.bits not in bits:
        accepted = ", ".join(map(str, bits))
        return f"{name} has {scheme.bits} bits, and it has {accepted} only"
    length = scheme.group_size or columns
    if columns % length:
        return f"{name} has {columns} inputs in groups of {length}, so its last group is short"
    if columns * scheme.bits % 32 or rows * scheme.bits % 32:
        return (
            f"{name} is {rows} by {columns}, which does not fill 32-bit words at {scheme.bits} bits"
        )
    return None


def dense_bytes(model: LoadedModel) -> int:
    """Return the bytes of everything that is not stored compressed, in the stored dtype."""
    packed = {}
    for name, weight in model.weights.items():
        packed[tensor_identity(model.site(name).stored)] = weight.stored_bytes
    head = model.head
    n_head = 0 if head is None else head.weight.numel() + head.bias.numel()
    return model.size_bytes - sum(packed.values()) - n_head * model.stored_dtype.itemsize


def head_bytes(model: LoadedModel) -> int:
    """Return the bytes of the classification head's own file's tensors."""
    if model.head is None:
        return 0
    return sum(t.numel() * t.element_size() for t in (model.head.weight, model.head.bias))
