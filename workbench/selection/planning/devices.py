"""The catalogue of devices: data of the vendors, which users extend."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.fields import check_fields, option


def _field(default: Any, help: str, **about: Any) -> Any:
    return option(default, help, positional=True, **about)


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

    name: str = _field(MISSING, "For tables, and what plan(device=...) takes.")
    memory_bytes: float = _field(MISSING, "Of one of them.", unit="bytes", above=0)
    bandwidth_bytes_per_s: float = _field(
        MISSING,
        "Of one's memory, as the vendor gives it; what is reached is less.",
        unit="bytes a second",
        above=0,
    )
    usable_share: float = _field(
        0.9, "Share of the memory that a model may take.", above=0, maximum=1
    )
    count: int = _field(1, "How many work together.", minimum=1, maximum=1_000_000)
    flops: float | None = _field(
        None,
        "16-bit operations a second of one, as the vendor gives them.",
        above=0,
        none_means="not known",
    )
    runtime_bytes: float = _field(
        0.0, "What a process holds to run any model.", unit="bytes", minimum=0
    )
    source: str = _field("", "Where the numbers are from.")

    def __post_init__(self) -> None:
        check_fields(self)

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
