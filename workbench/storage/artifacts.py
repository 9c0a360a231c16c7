"""Compressed models on disk, in the canonical packing: one safetensors file, no pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.classifiers import as_classifier, own_labels
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.models.structure import rebuild
from workbench.models.weight_access import find_site
from workbench.tensors.memory_mapped import read_tensors
from workbench.tensors.weights import weight_from

FORMAT_VERSION = 1


def dense_tensors(model: LoadedModel) -> dict[str, Tensor]:
    """Return what is not compressed, tied tensors once, in the dtype it is stored in."""
    sites = {name: model.site(name) for name in model.weights}
    covered: Counter[tuple[int, int]] = Counter()  # values of each parameter, by its identity
    for stored in {tensor_identity(site.stored): site for site in sites.values()}.values():
        covered[tensor_identity(stored.whole)] += stored.stored.numel()
    whole = model.hf_model.state_dict(keep_vars=True)
    left: dict[str, tuple[str, Tensor]] = {}  # with the name of the whole parameter
    for name, tensor in whole.items():
        if 0 < covered[tensor_identity(tensor)] < tensor.numel():  # some experts of a stack
            names = (f"{name}.{i}" for i in range(len(tensor)))
            left |= {n: (name, model.site(n).stored) for n in names if n not in sites}
        elif not covered[tensor_identity(tensor)]:
            left[name] = name, tensor
    dense: dict[str, Tensor] = {}
    seen: set[tuple[int, int]] = set()
    for name, (parameter, tensor) in left.items():
        identity = tensor_identity(tensor)
        if identity in seen:
            continue
        seen.add(identity)
        tensor = tensor.detach()
        if tensor.is_floating_point():
            tensor = tensor.to(model.stored_as(parameter))
        dense[name] = tensor.contiguous().clone()
    return dense


def save_weights(path: Path, model: LoadedModel) -> str:
    """Write a model's tensors: codes packed, all else dense. Returns the content's digest.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file; the caller renames it into place.
    model : LoadedModel

    Returns
    -------
    str
        sha256 over names, dtypes, shapes, bytes and the changed fields of the configuration, 64
        hexadecimal digits. Equal models have equal digests, on every machine.
    """
    tensors = {f"dense/{name}": tensor for name, tensor in dense_tensors(model).items()}
    described = {}
    for name, weight in model.weights.items():
        described[name] = weight.describe()
        for part, tensor in weight.tensors().items():
            tensors[f"packed/{name}/{part}"] = tensor.contiguous()
    if model.head is not None:
        tensors["head/weight"] = model.head.weight.to(model.stored_dtype)
        tensors["head/bias"] = model.head.bias.to(model.stored_dtype)
    meta: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "weights": described,
        "stored_dtype": str(model.stored_dtype).removeprefix("torch."),
    }
    if (labels := own_labels(model)) is not None:
        meta["labels"] = labels
    if model.structure:
        meta["structure"] = model.structure
    if model.wide:
        meta["wide"] = sorted(model.wide)
    save_file(tensors, str(path), metadata={"workbench": json.dumps(meta)})
    return _digest(tensors, model.structure)


def _digest(tensors: dict[str, Tensor], structure: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode() if structure else b"")
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def load_weights(path: Path, base: LoadedModel) -> LoadedModel:
    """Return a copy of the base model with the tensors of a file in place.

    Parameters
    ----------
    path : Path
        Written by :func:`save_weights` for a model that was made of the base.
    base : LoadedModel
        Not changed. Where the file's model has fewer blocks, neurons or heads, it is built from
        the base's configuration with the fields that the file states.
    """
    tensors, metadata = read_tensors(path)
    meta = json.loads(metadata["workbench"])
    dense = {n.removeprefix("dense/"): t for n, t in tensors.items() if n.startswith("dense/")}
    packed: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("packed/"):
            module, _, part = name.removeprefix("packed/").rpartition("/")
            packed.setdefault(module, {})[part] = tensor
    if "labels" in meta and base.head is not None:  # trained in the form of its class
        base = as_classifier(base, meta["labels"]) or base
    head = base.head
    if head is not None and "head/weight" in tensors:
        weight, bias = (tensors[f"head/{part}"].float() for part in ("weight", "bias"))
        head = dataclasses.replace(head, weight=weight, bias=bias)
    experts = {name: dense.pop(name) for name in list(dense) if _is_expert(base, name)}
    if structure := meta.get("structure"):
        packed_names = [_parameter_name(base, name) for name in (*meta["weights"], *experts)]
        model = rebuild(base, structure, dense, later=packed_names)
    else:
        model = base.copy()
        # The tensors of a streamed model are mapped, and its copies share them.
        streamed = model.streaming is not None
        model.hf_model.load_state_dict(_changed(model, dense), strict=False, assign=streamed)
        model.weights.clear()  # the file says all that is compressed, also of the base's own
    model = dataclasses.replace(
        model,
        stored_dtype=getattr(torch, meta["stored_dtype"]),
        head=head,
        wide=frozenset(meta.get("wide", ())),
    )
    for name, tensor in experts.items():
        model.site(name).stored.copy_(tensor)
    for name, data in meta["weights"].items():
        model.set_weight(name, weight_from(data, packed[name]))
    return model


def _changed(model: LoadedModel, dense: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what has to be written into a model; of a streamed one what differs from its own."""
    if model.streaming is None:
        return dense
    own = model.hf_model.state_dict()
    given = {name: tensor.to(own[name].dtype) for name, tensor in dense.items() if name in own}
    return {name: t for name, t in given.items() if not torch.equal(t, own[name])}


def _parameter_name(model: LoadedModel, name: str) -> str:
    """Return the name of the parameter that a compressed weight, or one expert's, lies in."""
    return name.rpartition(".")[0] if _is_expert(model, name) else f"{name}.weight"


def _is_expert(model: LoadedModel, name: str) -> bool:
    """Return whether a name is one expert's, and not a module's or a tensor's."""
    try:
        return find_site(model.hf_model, name).index is not None
    except ConfigError:
        return False
