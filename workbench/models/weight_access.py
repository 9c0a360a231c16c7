"""Where a layer's weight matrix lies: in a module of its own, or in a slice of fused experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.errors import ConfigError

SUPPLY = "_workbench_supply"
"""Attribute of a module whose dense weight is made when it is needed: returns it, float32."""


@dataclass(frozen=True)
class WeightSite:
    """A weight matrix of a model, to read and to write, whatever holds it.

    Attributes
    ----------
    name : str
        The module's name; for an expert its parameter's name and number, such as
        ``"model.layers.0.mlp.experts.gate_up_proj.3"``.
    owner : Module
        What holds the parameter.
    parameter : str
        Attribute of the owner.
    index : int or None
        The expert, where the parameter is a stack (experts, …, …); else None.
    transposed : bool
        Whether it is stored as (in_features, out_features), as in GPT-2's ``Conv1D``.
    """

    name: str
    owner: nn.Module
    parameter: str = "weight"
    index: int | None = None
    transposed: bool = False

    @property
    def whole(self) -> Tensor:
        """The parameter that the matrix is, or is a slice of."""
        tensor = getattr(self.owner, self.parameter)
        assert isinstance(tensor, Tensor)
        return tensor

    @property
    def stored(self) -> Tensor:
        """The matrix as it is stored, a view of :attr:`whole`."""
        whole = self.whole.detach()
        return whole if self.index is None else whole[self.index]

    @property
    def matrix(self) -> Tensor:
        """The matrix as (out_features, in_features), float32; a view or a copy."""
        supply = getattr(self.owner, SUPPLY, None)
        if supply is not None:
            dense: Tensor = supply()
            return dense
        return (self.stored.T if self.transposed else self.stored).float()

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        rows, columns = self.stored.shape
        return (columns, rows) if self.transposed else (rows, columns)

    def put(self, weight: Tensor) -> None:
        """Write a dense weight of shape (out_features, in_features) in place.

        The parameter stays the same object, so tied modules see the change.

        Raises
        ------
        ConfigError
            If the shapes differ.
        """
        if tuple(weight.shape) != self.shape:
            raise ConfigError(
                f"A weight of shape {tuple(weight.shape)} does not fit the module's {self.shape}."
            )
        with torch.no_grad():
            self.stored.copy_(weight.T if self.transposed else weight)


def module_site(name: str, module: nn.Module) -> WeightSite:
    """Return the site of a linear layer's or an embedding's weight."""
    return WeightSite(name, module, transposed=type(module).__name__ == "Conv1D")


def find_site(hf_model: nn.Module, name: str) -> WeightSite:
    """Return where the weight of a module, or of one expert, lies.

    Raises
    ------
    ConfigError
        If there is no such module or expert.
    """
    module = _submodule(hf_model, name)
    if module is not None and isinstance(getattr(module, "weight", None), Tensor):
        return module_site(name, module)
    stack, _, number = name.rpartition(".")
    owner_name, _, parameter = stack.rpartition(".")
    owner = _submodule(hf_model, owner_name)
    if owner is not None and number.isdecimal() and parameter in _stacks(owner):
        site = _expert_site(owner_name, owner, parameter, int(number))
        if site.name == name and int(number) < len(site.whole):
            return site
    raise ConfigError(f"{type(hf_model).__name__} has no module {name!r} with a weight.")


def _submodule(hf_model: nn.Module, name: str) -> nn.Module | None:
    try:
        return hf_model.get_submodule(name)
    except AttributeError:
        return None


def is_fused_experts(module: nn.Module) -> bool:
    """Return whether a module is transformers' stack of experts: 3-D parameters, known layout."""
    return all(hasattr(module, a) for a in ("num_experts", "has_gate", "has_bias", "is_transposed"))


def _stacks(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's stacks of experts' matrices; none for other modules."""
    if not is_fused_experts(module):
        return ()
    return ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")


def _expert_site(name: str, module: nn.Module, stack: str, index: int) -> WeightSite:
    return WeightSite(f"{name}.{stack}.{index}", module, stack, index, bool(module.is_transposed))


def expert_sites(name: str, module: nn.Module) -> list[WeightSite]:
    """Return the matrices of a stack of experts, expert by expert; none for other modules."""
    stacks = _stacks(module)
    count = len(getattr(module, stacks[0])) if stacks else 0
    return [_expert_site(name, module, stack, i) for i in range(count) for stack in stacks]
