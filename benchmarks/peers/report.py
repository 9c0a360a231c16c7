"""What a comparison prints and records: times, totals and the hardware they depend on."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Timing:
    """Seconds of every repeat."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, wall: float, cpu: float) -> None:
        self.wall.append(round(wall, 4))
        self.cpu.append(round(cpu, 4))


def totals(
    calibration: Timing, ours: list[Timing], peer: list[Timing], failed: set[int]
) -> list[dict[str, float]]:
    """Return, per repeat, the whole sweep's seconds on both sides and their ratios.

    Ours are always those of all configurations, the peer's those of the ones that it could do.
    """
    found = []
    for repeat in range(len(ours[0].wall)):
        entry: dict[str, float] = {"peer_configurations": len(peer) - len(failed)}
        for kind in ("wall", "cpu"):
            once = getattr(calibration, kind)
            own = sum(getattr(t, kind)[repeat] for t in ours) + (once[repeat] if once else 0.0)
            their = sum(getattr(t, kind)[repeat] for i, t in enumerate(peer) if i not in failed)
            entry |= {f"ours_{kind}": own, f"peer_{kind}": their, f"{kind}_ratio": their / own}
        found.append(entry)
    return found


def print_row(
    label: str,
    ours: Timing,
    value: float,
    peers: dict[str, list[Timing]],
    index: int,
    quality: dict[str, dict[str, float]],
) -> None:
    print(f"{label:26} {'ours':15} {ours.wall[0]:8.2f} {value:10.4f}")
    for name, rows in peers.items():
        if name not in quality:
            print(f"{'':26} {name:15}   cannot do this")
            continue
        q = quality[name]
        low, high = 100 * (q["ratio_low"] - 1), 100 * (q["ratio_high"] - 1)
        print(
            f"{'':26} {name:15} {rows[index].wall[0]:8.2f} {q['theirs']:10.4f}"
            f"  {100 * (q['ratio'] - 1):+.2f} %"
            + (f" [{low:+.2f}, {high:+.2f}]" if low < high else ""),
            flush=True,
        )


def print_totals(method: str, result: dict[str, Any]) -> None:
    for name, repeats in result["totals"].items():
        for kind in ("wall", "cpu"):
            ours, peer, ratio = (
                statistics.median(t[who] for t in repeats)
                for who in (f"ours_{kind}", f"peer_{kind}", f"{kind}_ratio")
            )
            once = result["calibration"][kind]
            calibrated = f", calibration {statistics.median(once):.1f} s of it" if once else ""
            count = repeats[0]["peer_configurations"]
            print(
                f"{method.upper()} sweep, {kind} time: ours {ours:.1f} s{calibrated}; {name}"
                f" {peer:.1f} s for {count} of {len(result['configurations'])} configurations;"
                f" {ratio:.1f} times"
            )


def hardware(threads: int) -> dict[str, Any]:
    """Return what the numbers depend on, without the machine's name or paths."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def load_average() -> list[float] | None:
    """Return the mean number of busy processes over 1, 5 and 15 minutes, if the system tells."""
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None
