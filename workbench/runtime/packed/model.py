"""Make a copy of a compressed model that runs from its codes, and say what runs how."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.models.layers import LINEAR_TYPES, find_linears, shared_inputs
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.runtime.packed.kernels import Int8Kernel, kernel_name, make_kernel
from workbench.runtime.packed.linear import (
    CodeRows,
    LowRank,
    PackedEmbedding,
    PackedLinear,
    SharedProduct,
)
from workbench.runtime.packed.native import native_library
from workbench.tensors.devices import is_cpu, is_cuda
from workbench.tensors.weights import CompressedWeight, CorrectedWeight, QuantizedWeight

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LayerForm:
    """How one layer runs.

    Attributes
    ----------
    name : str
    kernel : str
        "int4", "int8", "rows" (an embedding, looked up row by row), or "dense".
    reason : str
        Why it is dense; ``""`` for a packed layer.
    n_weights : int
    note : str
        What differs from the stored form, such as 3-bit codes that run as 4-bit ones.
    """

    name: str
    kernel: str
    reason: str
    n_weights: int
    note: str = ""


@dataclass(frozen=True)
class PackReport:
    """What of a model runs packed, and why the rest does not.

    Attributes
    ----------
    layers : tuple of LayerForm
        Every linear layer of the blocks, and every other layer that is compressed.
    kernels : str
        Whose kernels run: "compiled" (the package's own), or "torch's" and why.
    dtype : str
        What the dense layers compute in.
    """

    layers: tuple[LayerForm, ...]
    kernels: str = "torch's"
    dtype: str = "bfloat16"

    @property
    def packed_share(self) -> float:
        """Share of the listed layers' weights that runs from the codes, 0 to 1."""
        total = sum(layer.n_weights for layer in self.layers)
        packed = sum(layer.n_weights for layer in self.layers if layer.kernel != "dense")
        return packed / total if total else 0.0

    @property
    def label(self) -> str:
        """How the model runs, in a few words: "packed int4", "dense bfloat16"."""
        kernels = sorted({layer.kernel for layer in self.layers} - {"dense", "rows"})
        if not kernels:
            return f"dense {self.dtype}"
        text = f"packed {' and '.join(kernels)}"
        if self.kernels == "compiled":
            text += " (compiled)"
        if any("inputs" in layer.note for layer in self.layers):
            text += " with int8 inputs"
        if self.packed_share < 1:
            text += f", {1 - self.packed_share:.0%} dense {self.dtype}"
        return text

    def facts(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        dense = [layer for layer in self.layers if layer.kernel == "dense"]
        notes = Counter(layer.note for layer in self.layers if layer.note)
        return {
            "runs": self.label,
            "packed_layers": len(self.layers) - len(dense),
            "dense_layers": len(dense),
            "packed_share": round(self.packed_share, 4),
            "dense_because": dict(Counter(layer.reason for layer in dense)),
            "notes": dict(notes),
            "kernels": self.kernels,
        }

    def __str__(self) -> str:
        facts = self.facts()
        count = facts["packed_layers"]
        text = f"{self.label}: {count} layers run from their codes"
        text = text if count != 1 else f"{self.label}: 1 layer runs from its codes"
        because = [f"{n} dense ({reason})" for reason, n in facts["dense_because"].items()]
        notes = [f"{n} layer{'s' * (n != 1)}: {note}" for note, n in facts["notes"].items()]
        return "; ".join([text, *because, *notes]) + "."


@dataclass(frozen=True, eq=False, repr=False)
class PackedModel:
    """A model that runs from its codes.

    Attributes
    ----------
    hf_model : PreTrainedModel
        For inference only; it cannot be saved or trained.
    report : PackReport
    """

    hf_model: PreTrainedModel
    report: PackReport

    @property
    def resident_bytes(self) -> int:
        """Bytes of all parameters, buffers, codes and scales; what is shared counts once."""
        tensors: dict[tuple[int, int], Tensor] = {}
        for module in self.hf_model.modules():
            for tensor in [*module.parameters(False), *module.buffers(False), *_held(module)]:
                tensors[tensor_identity(tensor)] = tensor
        return sum(t.numel() * t.element_size() for t in tensors.values())

    def __repr__(self) -> str:
        return f"<PackedModel {type(self.hf_model).__name__}, {self.report}>"


def pack_model(
    model: LoadedModel, *, dtype: torch.dtype = torch.bfloat16, int8_inputs: bool = False
) -> PackedModel:
    """Return a copy of a model whose compressed layers run from their codes.

    Layers that read the same input and have the same kernel are multiplied as one. What no kernel
    takes stays dense and is counted in the report; a base model is dense throughout.

    Parameters
    ----------
    model : LoadedModel
        Not changed; its dense copies of the packed weights are not copied.
    dtype : torch.dtype
        What is not packed computes in this: bfloat16, or float32 where a processor is slow in
        bfloat16 (see :func:`workbench.tensors.devices.fast_dtype`). The packed layers compute in
        bfloat16: torch's kernels are 30 to 100 times slower in float32.
    int8_inputs : bool
        Round the inputs of int8 layers to 8 bits as well, each token by its largest value. It is
        about 1.4 times as fast as dense bfloat16 for a prompt of 128 tokens, but another
        rounding, which the evaluation of the run has not seen: evaluate the packed model.

    Returns
    -------
    PackedModel

    Raises
    ------
    ConfigError
        If another dtype is asked for, or int8 inputs on a processor without instructions for them.
    """
    if dtype not in (torch.bfloat16, torch.float32):
        raise ConfigError(f"dtype={dtype} is not accepted; give torch.bfloat16 or torch.float32.")
    if int8_inputs and not (is_cpu(model.device) and torch.cpu._is_vnni_supported()):
        raise ConfigError(
            "int8_inputs=True is not accepted here: it is fast only on CPUs with VNNI instructions"
            " (AVX-512 VNNI or AVX VNNI), and this is none. Leave it out."
        )
    model.need_resident("Running packed, and measuring speed and memory,")
    modules = dict(model.hf_model.named_modules())
    forms, chosen = _forms(model, modules)
    if int8_inputs:
        note = "inputs are rounded to 8 bits"
        forms = [dataclasses.replace(f, note=note) if f.kernel == "int8" else f for f in forms]
    memo: dict[int, Any] = {}
    tables: dict[int, Int8Kernel] = {}
    for names in _groups(model, chosen):
        weights = [chosen[name][1] for name in names]
        bases = [_base(weight) for weight in weights]
        kernel = make_kernel(chosen[names[0]][0], bases, model.device, int8_inputs=int8_inputs)
        scales = bases[0].input_scales
        scales = None if scales is None else scales.to(model.device)
        product = SharedProduct(kernel, tuple(w.shape[0] for w in bases), scales)
        for part, name in enumerate(names):
            module, weight = modules[name], weights[part]
            bias = getattr(module, "bias", None)
            memo[id(module)] = PackedLinear(product, part, bias, _low_rank(weight, model.device))
        if isinstance(kernel, Int8Kernel) and len(names) == 1:
            tables[id(weights[0])] = kernel
    for name, (_, weight) in chosen.items():
        if isinstance(modules[name], nn.Embedding):
            rows = tables.get(id(weight))
            memo[id(modules[name])] = PackedEmbedding(
                rows.rows if rows is not None else CodeRows(_base(weight)), weight.shape, dtype
            )
    packed = copy.deepcopy(model.hf_model, memo)
    for parameter in packed.parameters():
        parameter.requires_grad_(False)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    # Buffers keep their dtype: rotary frequencies need all of float32. Tables of positions that are
    # added to the hidden states do not (M2M100, XGLM), and norms take these in one dtype only.
    for module in packed.modules():
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding"):
            for buffer in module.buffers(recurse=False):
                buffer.data = buffer.data.to(dtype)
    words = _kernels_in_words(model.device)
    report = PackReport(tuple(forms), words, str(dtype).removeprefix("torch."))
    return PackedModel(packed.eval(), report)


def _kernels_in_words(device: torch.device) -> str:
    if is_cuda(device):
        return "tinygemm"
    library, why = native_library()
    return "compiled" if library is not None else f"torch's; the compiled ones: {why}"


def _forms(
    model: LoadedModel, modules: dict[str, nn.Module]
) -> tuple[list[LayerForm], dict[str, tuple[str, CompressedWeight]]]:
    """Return how every layer will run, and for the packed ones the kernel and the weight."""
    sizes: dict[str, int] = {}
    with contextlib.suppress(UnsupportedArchitectureError):
        sizes = {
            name: site.shape[0] * site.shape[1]
            for name, site in find_linears(model.hf_model).items()
        }
    weights = _with_tied(model, modules)
    forms, chosen = [], {}
    for name in dict.fromkeys([*sizes, *weights]):
        weight = weights.get(name)
        n_weights = sizes.get(name) or (0 if weight is None else weight.shape[0] * weight.shape[1])
        if weight is None:
            forms.append(LayerForm(name, "dense", "not compressed", n_weights))
            continue
        module = modules.get(name)
        kernel, reason = _kernel(module, weight, model.device)
        if kernel is not None:
            chosen[name] = (kernel, weight)
        note = ""
        base = _base(weight) if kernel is not None else None
        if base is not None and kernel == "int4" and base.scheme.bits < 4:
            note = f"{base.scheme.bits}-bit codes run as 4-bit ones"
        elif base is not None and kernel == "int8" and base.scheme.bits < 8:
            note = f"{base.scheme.bits}-bit codes run as 8-bit ones"
        forms.append(LayerForm(name, kernel or "dense", reason, n_weights, note))
    return forms, chosen


def _with_tied(model: LoadedModel, modules: dict[str, nn.Module]) -> dict[str, CompressedWeight]:
    """Return the compressed weights, with every module that is tied to one of them."""
    by_tensor: dict[tuple[int, int], list[str]] = {}
    for name, module in modules.items():
        tensor = getattr(module, "weight", None)
        if isinstance(tensor, Tensor) and isinstance(module, (nn.Embedding, *LINEAR_TYPES)):
            by_tensor.setdefault(tensor_identity(tensor), []).append(name)
    found = dict(model.weights)
    for name, weight in model.weights.items():
        tensor = getattr(modules.get(name), "weight", None)
        if isinstance(tensor, Tensor):
            for tied in by_tensor.get(tensor_identity(tensor), []):
                found.setdefault(tied, weight)
    return found


def _kernel(
    module: nn.Module | None, weight: CompressedWeight, device: torch.device
) -> tuple[str | None, str]:
    base = weight.base if isinstance(weight, CorrectedWeight) else weight
    if module is None:
        return None, "fused experts have no packed kernel"
    if isinstance(module, nn.Embedding):
        if type(module) is not nn.Embedding or base is not weight:
            return None, f"no packed form of {type(module).__name__}"
        if not isinstance(base, QuantizedWeight):
            return None, f"no kernel for {base.kind} weights"
        return ("rows", "") if is_cpu(device) else (None, "embeddings are packed on CPU only")
    if not isinstance(module, LINEAR_TYPES):
        return None, f"no packed form of {type(module).__name__}"
    return kernel_name(base, device)


def _groups(model: LoadedModel, chosen: dict[str, tuple[str, CompressedWeight]]) -> list[list[str]]:
    """Return the packed linear layers, those that can be multiplied as one together."""
    shared: list[tuple[str, ...]] = []
    with contextlib.suppress(UnsupportedArchitectureError):
        shared = [group.names for group in shared_inputs(model.hf_model)]
    groups: list[list[str]] = []
    left = [name for name, (kernel, _) in chosen.items() if kernel != "rows"]
    for names in shared:
        alike: list[list[str]] = []
        for name in (n for n in names if n in left):
            fitting = next((g for g in alike if _joins(chosen[g[0]], chosen[name])), None)
            if fitting is None:
                alike.append([name])
            else:
                fitting.append(name)
            left.remove(name)
        groups += alike
    return groups + [[name] for name in left]


def _joins(one: tuple[str, CompressedWeight], other: tuple[str, CompressedWeight]) -> bool:
    """Whether two layers of the same input can be one product."""
    first, second = _base(one[1]), _base(other[1])
    if one[0] != other[0] or first.scales.shape[1] != second.scales.shape[1]:
        return False
    mine, theirs = first.input_scales, second.input_scales
    if mine is None or theirs is None:
        return mine is theirs
    return torch.equal(mine, theirs)


def _base(weight: CompressedWeight) -> QuantizedWeight:
    base = weight.base if isinstance(weight, CorrectedWeight) else weight
    assert isinstance(base, QuantizedWeight)
    return base


def _low_rank(weight: CompressedWeight, device: torch.device) -> LowRank | None:
    if not isinstance(weight, CorrectedWeight):
        return None
    return LowRank(*(part.to(device, torch.bfloat16) for part in (weight.left, weight.right)))


def _held(module: nn.Module) -> list[Tensor]:
    """Tensors that a packed module keeps outside of torch's own lists."""
    if isinstance(module, PackedLinear):
        scales = module.product.input_scales
        low_rank = module.low_rank
        return [
            *module.product.kernel.tensors(),
            *([] if scales is None else [scales]),
            *([] if low_rank is None else [low_rank.left, low_rank.right]),
        ]
    if isinstance(module, PackedEmbedding):
        rows = module.rows
        if isinstance(rows, CodeRows):
            zeros = rows.weight.zeros
            return [rows.weight.codes, rows.weight.scales, *([] if zeros is None else [zeros])]
        return list(rows.__self__.tensors())  # type: ignore[attr-defined]
    return []
