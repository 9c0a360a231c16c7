"""The catalogue of devices: data of the vendors, which users extend."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from numbers import Integral, Real
from pathlib import Path

from workbench.errors import ConfigError, DataError


@dataclass(frozen=True)
class Device:
    """Something that a model runs on.

    Attributes
    ----------
    name : str
        For tables, and what ``plan(device=...)`` takes.
    memory_bytes : float
        Of one of them.
    bandwidth_bytes_per_s : float
        Of one's memory, as the vendor gives it; what is reached is less.
    usable_share : float
        Share of the memory that a model may take: the rest is the system's.
    count : int
        How many work together, each with its part of every layer.
    flops : float or None
        16-bit operations a second of one, as the vendor gives them; None where not known.
    runtime_bytes : float
        What a process holds to run any model, however small, of one of them.
    source : str
        Where the numbers are from.
    """

    name: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    usable_share: float = 0.9
    count: int = 1
    flops: float | None = None
    runtime_bytes: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        numbers = (self.memory_bytes, self.bandwidth_bytes_per_s, self.usable_share, self.count)
        if not all(isinstance(x, Real) and math.isfinite(x) and x > 0 for x in numbers):
            raise ConfigError(
                f"The device {self.name!r} is not accepted: memory_bytes, bandwidth_bytes_per_s,"
                f" usable_share and count are numbers above 0, not {numbers}."
            )
        if self.usable_share > 1 or not isinstance(self.count, Integral):
            raise ConfigError(
                f"The device {self.name!r} is not accepted: usable_share is at most 1 and count a"
                f" whole number, not {self.usable_share} and {self.count!r}."
            )

    @property
    def usable_bytes(self) -> float:
        """What a model may take, of all of them together."""
        return self.memory_bytes * self.usable_share * self.count


def known_devices(path: str | Path | None = None) -> tuple[Device, ...]:
    """Return the devices of a catalogue, smallest memory first.

    Parameters
    ----------
    path : str or Path, optional
        A JSON file of your own: a list of objects with the attributes of :class:`Device`.
        Default: the catalogue of the package.

    Raises
    ------
    DataError
        If the file cannot be read, or an entry is no device.
    """
    where = (
        resources.files("workbench.selection.planning") / "devices.json"
        if path is None
        else Path(path)
    )
    try:
        rows = json.loads(where.read_text(encoding="utf-8"))
        found = [Device(**row) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{where} is no catalogue of devices: {error}. Give a JSON list such as"
            ' [{"name": "my card", "memory_bytes": 24e9, "bandwidth_bytes_per_s": 1e12}].'
        ) from error
    return tuple(sorted(found, key=lambda device: device.usable_bytes))
