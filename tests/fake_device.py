"""A device that this machine lacks, played by the CPU: what code does there, at any speed.

Tensors of it say that they are on ``mps`` or ``cuda:1`` and hold a tensor of the CPU, on which
torch really computes. As on the device itself, tensors of two devices do not mix, and ``mps`` has
no float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CROSSING = {"aten.copy_.default", "aten._to_copy.default"}
"""Operations that take tensors from one device to another."""

INDEXING = {"aten.index.Tensor", "aten.index_put_.default"}
"""Operations that accept indices on the CPU."""


class FakeTensor(torch.Tensor):
    """A tensor that says it is on another device than the one that it holds."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> FakeTensor:
        made: FakeTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeTensor({self.held!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = str(func)
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    fakes = [x for x in given if isinstance(x, FakeTensor)]
    places = {x.device for x in given if x.ndim > 0}
    if len(places) > 1 and name not in CROSSING | INDEXING:
        raise RuntimeError(f"{name}: tensors on several devices, {sorted(map(str, places))}")
    target = fakes[0].device if fakes else torch.device("cpu")
    if kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu") if target.type != "meta" else target}

    def held(x: Any) -> Any:
        return x.held if isinstance(x, FakeTensor) else x

    results = func(*tree_map(held, args), **tree_map(held, kwargs))
    known = {id(x.held): x for x in fakes}

    def placed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in known:  # it was changed in place
            return known[id(x)]
        return x if target.type in ("cpu", "meta") else _on(x, target)

    return args[0] if name == "aten.copy_.default" else tree_map(placed, results)


def _on(held: torch.Tensor, device: torch.device) -> FakeTensor:
    if device.type == "mps" and held.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype.")
    return FakeTensor(held, device)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Answers what torch would look for the device for, before it does."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to:
            wanted = [_device(x) for x in (*args[1:], kwargs.get("device"))]
            target = next((device for device in wanted if device is not None), args[0].device)
            dtypes = [x for x in (*args[1:], kwargs.get("dtype")) if isinstance(x, torch.dtype)]
            if target == args[0].device:
                return args[0].to(*dtypes) if dtypes else args[0]
            if target.type != "cpu":
                held = args[0].to(*dtypes) if dtypes else args[0].clone()
                return _on(held.detach(), target).requires_grad_(args[0].requires_grad)
        elif _device(kwargs.get("device")) == self.device:
            kwargs["device"] = "cpu"
            made = func(*args, **kwargs)
            return _on(made, self.device) if isinstance(made, torch.Tensor) else made
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "not linked" not in str(error):
                raise
            return _held(func, args, kwargs)  # torch looked for the device before it computed


def _held(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    place = args[0].device
    given = [x for x in tree_flatten(args)[0] if isinstance(x, torch.Tensor)]
    if any(x.device not in (place, torch.device("cpu")) for x in given):
        raise RuntimeError(f"indices on another device than {place}")
    found = func(*tree_map(lambda x: x.held if isinstance(x, FakeTensor) else x, args), **kwargs)
    return _on(found, place) if isinstance(found, torch.Tensor) else found


def _device(x: Any) -> torch.device | None:
    if isinstance(x, torch.device):
        return x
    if isinstance(x, torch.Tensor):
        return x.device
    return torch.device(x) if isinstance(x, str) else None


@contextlib.contextmanager
def fake_device(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[torch.device]:
    """Let torch believe in a device while the block runs."""
    device = torch.device(name)
    with monkeypatch.context() as patch:
        if device.type == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
            patch.setattr(torch.mps, "recommended_max_memory", lambda: 8 * 1024**3)
            patch.setattr(torch.mps, "driver_allocated_memory", lambda: 0)
            patch.setattr(torch.mps, "synchronize", lambda: None)
        else:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: (device.index or 0) + 1)
            patch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 1024**3, 8 * 1024**3))
            patch.setattr(torch.cuda, "get_device_name", lambda _: "Fake GPU")
            patch.setattr(torch.cuda, "synchronize", lambda _: None)
        with _Dispatch(), _Functions(device):
            yield device
