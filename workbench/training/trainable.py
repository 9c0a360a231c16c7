"""What is trained of a model, kept within what is stored of it: masks, codes, tied weights."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from workbench.errors import CompressionError, ConfigError
from workbench.models.classifiers import is_of_head
from workbench.models.layers import find_linears, shared_inputs
from workbench.models.loaded import LoadedModel, tensor_identity
from workbench.tensors import affine
from workbench.tensors.devices import seeded
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight

ADAPTER = "default"


class Trainable(ABC):
    """A working copy of a model in float32, and which of its tensors the optimizer changes.

    Attributes
    ----------
    given : LoadedModel
        Never changed.
    model : LoadedModel
        The working copy, whose logits have gradients.
    parameters : dict of str to Parameter
        What is trained, by name; tied ones once.
    """

    def __init__(self, model: LoadedModel) -> None:
        model.need_resident("Training")
        self.given = model
        working = model.copy()
        working.hf_model.float()  # an optimizer's small steps are lost in 16 bits
        working.hf_model.requires_grad_(False)
        self.parameters: dict[str, nn.Parameter] = {}
        self._masks: dict[str, Tensor] = {}  # as the weights are stored, True where one was kept
        if model.head is not None:
            weight, bias = (
                nn.Parameter(t.detach().float().clone().to(model.device))
                for t in (model.head.weight, model.head.bias)
            )
            working.head = dataclasses.replace(model.head, weight=weight, bias=bias)
            self.parameters |= {"head.weight": weight, "head.bias": bias}
        self.model = working
        for name, parameter in working.hf_model.named_parameters():
            if is_of_head(working.hf_model, name) and name.rpartition(".")[0] not in model.weights:
                self._own(name, parameter)

    def _own(self, name: str, parameter: nn.Parameter) -> None:
        parameter.requires_grad_(True)
        self.parameters[name] = parameter

    def is_head(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is of the classifier that stands on the model."""
        names = (name for name, own in self.parameters.items() if own is parameter)
        return any(n.startswith("head.") or is_of_head(self.model.hf_model, n) for n in names)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Leave out of the gradients what was pruned; called before every step."""
        for name, mask in self._masks.items():
            site = self.model.site(name)
            gradient = site.whole.grad
            if gradient is not None:
                (gradient if site.index is None else gradient[site.index]).mul_(mask)

    @torch.no_grad()
    def keep_in_force(self) -> None:
        """Set what was pruned to zero again; called after every step."""
        for name, mask in self._masks.items():
            self.model.site(name).stored.mul_(mask)

    def finished(self) -> LoadedModel:
        """Return a new model with what was trained, rounded as it is stored.

        Raises
        ------
        CompressionError
            If a value does not fit into the stored dtype.
        """
        result = self.given.copy()
        if result.head is not None:
            assert self.model.head is not None
            result.head = dataclasses.replace(
                result.head,
                weight=self._rounded(self.model.head.weight, "the head"),
                bias=self._rounded(self.model.head.bias, "the head"),
            )
        with torch.no_grad():
            for name, parameter in result.hf_model.named_parameters():
                if is_of_head(result.hf_model, name) and name in self.parameters:
                    parameter.copy_(self._rounded(self.parameters[name], name))
            self._finish(result)
        return result

    @abstractmethod
    def _finish(self, result: LoadedModel) -> None:
        """Write what was trained into a copy of the given model."""

    def _rounded(self, tensor: Tensor, name: str) -> Tensor:
        dtype = self.given.stored_as(name)
        rounded = tensor.detach().to(dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise CompressionError(
                f"After training {name} does not fit into {dtype}. Lower learning_rate."
            )
        return rounded.to(tensor.dtype)


class FullWeights(Trainable):
    """Every parameter that does not hold codes; pruned weights stay zero."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        working = self.model
        frozen = set()
        for name, weight in working.weights.items():
            site = working.site(name)
            if isinstance(weight, PrunedWeight):
                mask = weight.mask.to(working.device)
                self._masks[name] = mask.T.contiguous() if site.transposed else mask
            else:
                frozen.add(tensor_identity(site.whole))
        for name, parameter in working.hf_model.named_parameters():
            if tensor_identity(parameter) not in frozen and parameter.is_floating_point():
                self._own(name, parameter)

    def _finish(self, result: LoadedModel) -> None:
        own = dict(result.hf_model.named_parameters())
        for name in self.parameters:
            if name in own:
                trained = self.model.hf_model.get_parameter(name)
                own[name].copy_(self._rounded(trained, name))
        for name, weight in self.given.weights.items():
            if isinstance(weight, PrunedWeight):
                values = self.model.site(name).matrix.to(self.given.stored_dtype).cpu()
                kept = weight.mask
                # A weight that was kept is never stored as zero: zeros are what the mask is.
                tiny = torch.finfo(values.dtype).tiny
                values = torch.where(kept & (values == 0), tiny, values)
                result.set_weight(name, dataclasses.replace(weight, values=values))


class LowRankProducts(Trainable):
    """LoRA by peft: a product beside every layer of the blocks, the layers themselves frozen.

    Left out are experts' matrices, layers that are read without being called, and the output
    projections of state-space mixers: their kernels take the weight alone.
    """

    def __init__(self, model: LoadedModel, rank: int, seed: int) -> None:
        super().__init__(model)
        from peft import LoraConfig, inject_adapter_in_model

        hf_model = self.model.hf_model
        sites = find_linears(hf_model)
        called = {name for group in shared_inputs(hf_model) for name in group.names}
        self._names = [
            name
            for name, site in sites.items()
            if name in called and site.index is None and not _is_fused_output(hf_model, name)
        ]
        if not self._names:
            raise ConfigError(
                f"{model.source.name} has no linear layers of their own (only fused experts), so"
                " there is nothing that a low-rank product can stand beside; give method='full'."
            )
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=[f"whole.{name}" for name in self._names],
            fan_in_fan_out=any(sites[name].transposed for name in self._names),
        )
        with seeded(self.model.device, seed):
            # A module without a configuration: by that of a model with experts, peft takes every
            # layer that has the name of an expert's matrix for one, dense layers among them.
            whole = nn.Module()
            whole.whole = hf_model
            inject_adapter_in_model(config, whole, adapter_name=ADAPTER)
        missed = [n for n in self._names if not hasattr(hf_model.get_submodule(n), "lora_A")]
        if missed:  # before anything is trained, not after it
            raise ConfigError(
                f"peft puts no low-rank product beside {len(missed)} layers of {model.source.name}"
                f" (first: {missed[0]}); give method='full'."
            )
        for parameter in self.parameters.values():  # peft froze the classifier, too
            parameter.requires_grad_(True)
        for name, parameter in hf_model.named_parameters():
            if "lora_" in name:
                self._own(name, parameter)

    def _finish(self, result: LoadedModel) -> None:
        for name in self._names:
            layer: Any = self.model.hf_model.get_submodule(name)
            left = (layer.scaling[ADAPTER] * layer.lora_B[ADAPTER].weight).detach()
            right = layer.lora_A[ADAPTER].weight.detach()
            stored = result.weights.get(name)
            if stored is None:
                merged = result.site(name).matrix + left @ right
                result.site(name).put(self._rounded(merged, f"{name}.weight"))
                continue
            halves = left.half().cpu(), right.half().cpu()
            if not all(bool(torch.isfinite(half).all()) for half in halves):
                raise CompressionError(
                    f"After training the low-rank product of {name} does not fit into float16."
                    " Lower learning_rate."
                )
            result.set_weight(name, CorrectedWeight(stored, *halves))


def _is_fused_output(hf_model: nn.Module, name: str) -> bool:
    """Return whether a layer is the output projection of a state-space mixer."""
    owner, _, layer = name.rpartition(".")
    return layer == "out_proj" and hasattr(hf_model.get_submodule(owner), "conv1d")


class Scales(Trainable):
    """Multipliers of the scales of quantized layers; the codes stay as they are."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self._weights: dict[str, QuantizedWeight] = {}
        for name, weight in model.weights.items():
            site = self.model.site(name)
            linear = not isinstance(site.owner, nn.Embedding) and site.index is None
            if isinstance(weight, QuantizedWeight) and linear and site.owner.weight is site.whole:
                self._weights[name] = weight
        tied = {tensor_identity(p): 0 for p in self.model.hf_model.parameters()}
        for _, parameter in self.model.hf_model.named_parameters(remove_duplicate=False):
            tied[tensor_identity(parameter)] += 1
        for name, weight in list(self._weights.items()):
            site = self.model.site(name)
            if tied[tensor_identity(site.whole)] > 1:
                del self._weights[name]  # an output head that shares the table of embeddings
                continue
            scaled = _Scaled(weight, site.transposed).to(self.model.device)
            parametrize.register_parametrization(site.owner, "weight", scaled, unsafe=True)
            self._own(f"{name}.multipliers", scaled.multipliers)
        if not self._weights:
            raise ConfigError(
                f"{model.source.name} has no quantized layers whose scales could be trained: it was"
                " not loaded as codes, and no step before it quantizes. Put the training behind one"
                " such as GPTQ(4), or leave method at 'full'."
            )

    def _finish(self, result: LoadedModel) -> None:
        for name, weight in self._weights.items():
            multipliers = self.parameters[f"{name}.multipliers"].detach().cpu()
            scales = (weight.scales.float() * multipliers).half()
            if not bool(torch.isfinite(scales).all()):
                raise CompressionError(
                    f"After training the scales of {name} do not fit into float16. Lower"
                    " learning_rate."
                )
            result.set_weight(name, dataclasses.replace(weight, scales=scales))


class _Scaled(nn.Module):
    """The dense values of a quantized weight, from multipliers of its scales."""

    steps: Tensor
    scales: Tensor
    divisor: Tensor | None

    def __init__(self, weight: QuantizedWeight, transposed: bool) -> None:
        super().__init__()
        self.multipliers = nn.Parameter(torch.ones_like(weight.scales, dtype=torch.float32))
        unit = dataclasses.replace(weight, scales=torch.ones_like(weight.scales), input_scales=None)
        self.register_buffer("steps", unit.dequantize())
        self.register_buffer("scales", weight.scales.float())
        divisor = weight.input_scales
        self.register_buffer("divisor", None if divisor is None else divisor.float())
        self._scheme = weight.scheme
        self._transposed = transposed

    def forward(self, _given: Tensor) -> Tensor:
        scales = self.scales * self.multipliers
        dense = self.steps * affine.expand(scales, self._scheme, self.steps.shape[1])
        if self.divisor is not None:
            dense = dense / self.divisor
        return dense.T if self._transposed else dense


def trainable_of(model: LoadedModel, method: str, *, rank: int = 16, seed: int = 0) -> Trainable:
    """Return what a method trains of a model.

    Parameters
    ----------
    model : LoadedModel
        Bound to its task; not changed.
    method : {"full", "lora", "scales"}
    rank : int
        Of the low-rank products.
    seed : int
        Of their random halves.
    """
    if method == "lora":
        return LowRankProducts(model, rank, seed)
    return Scales(model) if method == "scales" else FullWeights(model)
