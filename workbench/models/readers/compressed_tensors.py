"""Checkpoints of llm-compressor in the integer formats of compressed-tensors."""

from __future__ import annotations

import re
from typing import Any

from workbench.errors import UnsupportedArchitectureError
from workbench.models.readers.base import Codes, Tensors, group_size_of
from workbench.tensors.packing import compressed_tensors
from workbench.tensors.packing.gptq import in_groups
from workbench.tensors.weights import CompressedWeight

_IN_WEIGHTS = {"weight_input", "weight_output"}
"""Places of transforms that the stored weights have in them already."""

_LAYOUTS = ("pack-quantized", "int-quantized", "naive-quantized")


def read_compressed_tensors(about: dict[str, Any], tensors: Tensors) -> Codes:
    """Return the codes of a checkpoint whose activations and cache are not quantized."""
    transforms = (about.get("transform_config") or {}).get("config_groups") or {}
    places = {a["location"] for group in transforms.values() for a in group["apply"]}
    if places - _IN_WEIGHTS:
        raise UnsupportedArchitectureError(
            "it transforms what its layers read or write (transform_config), which the workbench"
            " does not compute. Give the original model."
        )
    if about.get("kv_cache_scheme"):
        raise UnsupportedArchitectureError(
            "it quantizes keys and values in the cache too (kv_cache_scheme), which the workbench"
            " does not compute. Give the original model."
        )
    weights: dict[str, CompressedWeight] = {}
    groups = list((about.get("config_groups") or {}).values())
    for group in groups:
        if group.get("input_activations") or group.get("output_activations"):
            raise UnsupportedArchitectureError(
                "it quantizes activations too, which the workbench does not compute. Give the"
                " original model."
            )
    groups = [group for group in groups if group.get("weights")]
    for group in groups:
        arguments, layout = group["weights"], group.get("format") or about["format"]
        if layout not in _LAYOUTS or arguments["type"] != "int":
            raise UnsupportedArchitectureError(
                f"its format is {layout!r} with {arguments['type']} weights; the workbench reads"
                f" {', '.join(_LAYOUTS)} with int weights."
            )
    packed = set(tensors.layers("weight_packed"))
    for name in tensors.layers("weight_scale"):
        group = groups[0] if len(groups) == 1 else _group_of(groups, name)
        arguments = group["weights"]
        bits = int(arguments["num_bits"])
        group_size = group_size_of(arguments.get("group_size"))
        more = ("weight_zero_point", "weight_shape")
        if name in packed:
            found = tensors.take(name, ("weight_packed", "weight_scale", "weight_shape"), more[:1])
            unpacked = compressed_tensors.unpack(found, bits, group_size)
        else:
            found = tensors.take(name, ("weight", "weight_scale"), more)
            unpacked = compressed_tensors.unpack_int8(found, bits, group_size)
        weights[name] = in_groups(unpacked, tensors.left.pop(f"{name}.weight_g_idx", None))
    return Codes(weights, tensors.left)


def _group_of(groups: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the group that names a layer; the one for all linear layers if none does."""
    for group in groups:
        for target in group["targets"]:
            pattern = target.removeprefix("re:")
            if target == name or (target != pattern and re.match(pattern, name)):
                return group
    for group in groups:
        if "Linear" in group["targets"]:
            return group
    raise UnsupportedArchitectureError(f"none of its config_groups is for {name}.")
