"""Models whose weights stay in their files: a block is in memory only while it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.models.weight_access import SUPPLY, WeightSite, module_site

if TYPE_CHECKING:
    from workbench.tensors.weights import CompressedWeight

_CHUNK = 2**24
"""Numbers of a large matrix that are converted at a time."""

_SMALL = 2**22
"""Parameters outside of the blocks of up to so many numbers are simply kept in memory."""


class Streaming:
    """Keeps the weights of one model in their files, and a block in memory while it runs.

    The parameters are mapped from the checkpoint, in the dtype that it is stored in. A block is
    converted to the dtype to compute in when it is called or opened, and released afterwards; the
    dense values of compressed weights are made of their codes then. So every forward pass is
    right, and reads each block once.

    Parameters
    ----------
    dtype : torch.dtype
        What to compute in.
    blocks : sequence of str
        Names of the blocks.
    weights : dict of str to CompressedWeight
        The model's compressed weights.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        blocks: tuple[str, ...],
        weights: dict[str, CompressedWeight],
    ) -> None:
        self.dtype = dtype
        self.blocks = blocks
        self.weights = weights
        self.reads = 0
        """How often a block was read since the model was loaded."""
        self._open: dict[str, list[tuple[nn.Module, str, nn.Parameter]]] = {}

    def copied(self, weights: dict[str, CompressedWeight]) -> Streaming:
        """Return the same for a copy of the model, with no block open."""
        return Streaming(self.dtype, self.blocks, weights)

    def install(self, hf_model: nn.Module) -> None:
        """Let a model that is mapped compute as if it were in memory."""
        for name in self.blocks:
            block = hf_model.get_submodule(name)
            block.register_forward_pre_hook(partial(self._enter, name))
            block.register_forward_hook(partial(self._leave, name), always_call=True)
        inside = tuple(f"{name}." for name in self.blocks)
        for name, module in hf_model.named_modules():
            if name in self.blocks or name.startswith(inside):
                continue
            own = dict(module.named_parameters(recurse=False))
            if type(module) is nn.Embedding:
                module.register_forward_hook(self._converted)
            elif type(module) is nn.Linear and module.weight.numel() > _SMALL:
                module.forward = partial(self._product, module)  # type: ignore[method-assign]
            elif any(parameter.numel() > _SMALL for parameter in own.values()):
                module.register_forward_pre_hook(partial(self._enter, name))
                module.register_forward_hook(partial(self._leave, name), always_call=True)
            else:
                for parameter in own.values():
                    parameter.data = parameter.data.to(self.dtype)

    @contextmanager
    def opened(self, hf_model: nn.Module, name: str) -> Iterator[nn.Module]:
        """Keep a block in memory while the context is open, however often it is called."""
        module = hf_model.get_submodule(name)
        if name in self._open:
            yield module
            return
        self._read(name, module)
        try:
            yield module
        finally:
            self._release(name)

    def is_open(self, name: str) -> bool:
        """Return whether the block that a module lies in is in memory now."""
        return any(name.startswith(f"{block}.") for block in self._open)

    def supply(self, site: WeightSite) -> None:
        """Have the matrix at a site be made of its codes from now on."""
        setattr(site.owner, SUPPLY, partial(self._dense, site.name))

    def _dense(self, name: str) -> Tensor:
        return self.weights[name].dequantize()

    def _read(self, name: str, module: nn.Module) -> None:
        self.reads += 1
        mapped = []
        for inner in module.modules():
            codes = getattr(inner, SUPPLY, None)
            for attribute, parameter in list(inner.named_parameters(recurse=False)):
                if codes is not None and attribute == "weight":
                    dense = codes().to(self.dtype)
                    values = dense.T.contiguous() if module_site("", inner).transposed else dense
                elif parameter.dtype == self.dtype or not parameter.is_floating_point():
                    continue
                else:
                    values = parameter.detach().to(self.dtype)
                mapped.append((inner, attribute, parameter))
                setattr(inner, attribute, nn.Parameter(values, requires_grad=False))
        self._open[name] = mapped

    def _release(self, name: str) -> None:
        for module, attribute, parameter in self._open.pop(name, ()):
            setattr(module, attribute, parameter)

    def _enter(self, name: str, module: nn.Module, _args: Any) -> None:
        if name not in self._open:
            self._read(name, module)
            setattr(module, _BY_CALL, True)

    def _leave(self, name: str, module: nn.Module, _args: Any, _output: Any) -> None:
        if getattr(module, _BY_CALL, False):
            setattr(module, _BY_CALL, False)
            self._release(name)

    def _converted(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output.to(self.dtype)

    def _product(self, module: nn.Linear, x: Tensor) -> Tensor:
        """Return a linear layer's output, some rows of its weight at a time."""
        weight, bias = module.weight, module.bias
        if weight.dtype == self.dtype:
            return nn.functional.linear(x, weight, None if bias is None else bias.to(self.dtype))
        rows = max(1, _CHUNK // weight.shape[1])
        output = x.new_empty(*x.shape[:-1], len(weight))
        for start in range(0, len(weight), rows):
            part = weight[start : start + rows].to(self.dtype)
            output[..., start : start + rows] = x @ part.T
        return output if bias is None else output + bias.to(self.dtype)


_BY_CALL = "_workbench_read_by_call"


def computed_parts(tensor: Tensor, dtype: torch.dtype | None) -> Iterator[Tensor]:
    """Yield a tensor in the dtype that is computed in, flat and on the CPU, part by part."""
    flat = tensor.detach().reshape(-1)
    if dtype is None or not flat.is_floating_point() or flat.dtype == dtype:
        yield flat.cpu().contiguous()
        return
    for part in flat.split(_CHUNK):
        yield part.to(dtype).cpu()
