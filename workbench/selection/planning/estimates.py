"""Will it fit, and about how fast at most: models by precisions by devices."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError
from workbench.fields import listed, number, shown, whole
from workbench.selection.planning.devices import Device, known_devices
from workbench.selection.planning.footprint import Footprint, footprint_of
from workbench.selection.planning.precisions import PRECISIONS, Precision
from workbench.selection.planning.references import config_of

MARGIN = 0.05
"""Share of weights and cache that is added for what no arithmetic knows: allocator, libraries."""


@dataclass(frozen=True)
class PlanRow:
    """One model at one precision on one device. Every number is an estimate.

    Attributes
    ----------
    model, precision : str
    device : Device
    weights_bytes, cache_bytes, working_bytes, runtime_bytes, margin_bytes : int
        Weights; keys and values of all sequences at full context; activations; what a process
        takes without a model; what is added.
    tokens_per_s : float or None
        The roofline of decoding, of all sequences together: as fast as the memory can be read (or
        the arithmetic done) at the vendor's rates. Real decoding is slower. None if it does not
        fit.
    context : int
        Tokens of each sequence that are counted: what was asked, or what the model allows if that
        is less.
    longest_context : int
        The most tokens of each sequence that fit, 0 if the weights alone do not; not more than
        the model allows.
    """

    model: str
    precision: str
    device: Device
    weights_bytes: int
    cache_bytes: int
    working_bytes: int
    runtime_bytes: int
    margin_bytes: int
    tokens_per_s: float | None
    context: int
    longest_context: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.held_bytes + self.cache_bytes + self.working_bytes + self.margin_bytes

    @property
    def held_bytes(self) -> int:
        """What stays when nothing is being read or written: weights, and the process itself."""
        return self.weights_bytes + self.runtime_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits into what the device has for a model."""
        return self.total_bytes <= self.device.usable_bytes

    @property
    def share(self) -> float:
        """Share of the device's usable memory; above 1 it does not fit."""
        return self.total_bytes / self.device.usable_bytes


def plan_rows(
    ref: Any,
    device: str | Device | Iterable[str | Device] | None = None,
    *,
    precisions: Iterable[str | Precision] | None = None,
    context: int = 4096,
    batch: int = 1,
    margin: float = MARGIN,
) -> tuple[PlanRow, ...]:
    """Return the estimates of models by precisions by devices.

    Parameters are those of :func:`workbench.plan`; what is wrong with them raises ConfigError.
    """
    context = whole("plan", "context", context, maximum=10**9, unit="tokens")
    batch = whole("plan", "batch", batch, maximum=10**9)
    margin = number("plan", "margin", margin, minimum=0, below=1)
    devices, forms = _devices(device), _precisions(precisions)
    rows = []
    names: set[str] = set()
    for one in ref if isinstance(ref, (list, tuple)) else [ref]:
        name, config = config_of(one)
        if name in names:  # such as folders of one name: table and figure go by names
            name = f"{name} ({one if isinstance(one, (str, os.PathLike)) else len(names) + 1})"
        names.add(name)
        counted = footprint_of(config)
        for form in forms:
            rows += [_row(name, counted, form, d, context, batch, margin) for d in devices]
    return tuple(rows)


def _row(
    name: str,
    counted: Footprint,
    form: Precision,
    device: Device,
    context: int,
    batch: int,
    margin: float,
) -> PlanRow:
    context = min(context, counted.max_context or context)
    weights = counted.weight_bytes(form)
    runtime = round(device.runtime_bytes * device.count)

    def needed(tokens: int) -> float:
        cache = counted.cache_bytes(tokens, batch)
        working = counted.working_bytes(tokens, batch)
        return (weights + cache) * (1 + margin) + working + runtime

    cache = counted.cache_bytes(context, batch)
    fits = needed(context) <= device.usable_bytes
    return PlanRow(
        model=name,
        precision=form.name,
        device=device,
        weights_bytes=weights,
        cache_bytes=cache,
        working_bytes=counted.working_bytes(context, batch),
        runtime_bytes=runtime,
        margin_bytes=round((weights + cache) * margin),
        tokens_per_s=_tokens_per_s(counted, form, device, context, batch) if fits else None,
        context=context,
        longest_context=_longest(needed, device.usable_bytes, counted.max_context or 2**20),
    )


def _tokens_per_s(
    counted: Footprint, form: Precision, device: Device, context: int, batch: int
) -> float:
    """Return the roofline: each step reads the weights in use and the whole cache once."""
    read = counted.read_bytes(form, batch) + counted.cache_bytes(context, batch)
    seconds = read / (device.bandwidth_bytes_per_s * device.count)
    if device.flops is not None:
        work = 2.0 * (counted.n_active - counted.n_looked_up) * batch
        seconds = max(seconds, work / (device.flops * device.count))
    return batch / seconds


def _longest(needed: Any, usable: float, most: int) -> int:
    if needed(1) > usable:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= usable else (low, middle - 1)
    return low


def _devices(given: str | Device | Iterable[str | Device] | None) -> Sequence[Device]:
    known = {device.name: device for device in known_devices()}
    if given is None:
        return tuple(known.values())
    found = []
    single = isinstance(given, (str, Device))
    for one in [given] if single else listed("plan", "device", given, "devices or their names"):
        if not isinstance(one, Device) and not (isinstance(one, str) and one in known):
            names = ", ".join(map(repr, known))
            raise ConfigError(
                f"device={shown(one)} is not known; there are {names}. Give one of them, or your"
                " own: Device(name, memory_bytes, bandwidth_bytes_per_s)."
            )
        found.append(one if isinstance(one, Device) else known[one])
    return found


def _precisions(given: Iterable[str | Precision] | None) -> Sequence[Precision]:
    if given is None:
        return tuple(PRECISIONS.values())
    found = []
    single = isinstance(given, (str, Precision))
    for one in [given] if single else listed("plan", "precisions", given, "names of precisions"):
        if not isinstance(one, Precision) and not (isinstance(one, str) and one in PRECISIONS):
            raise ConfigError(
                f"precision {shown(one)} is not known; there are"
                f" {', '.join(map(repr, PRECISIONS))}."
            )
        found.append(one if isinstance(one, Precision) else PRECISIONS[one])
    return found
