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


def totals(calibration: Timing, rows: list[dict[str, Timing]]) -> list[dict[str, float]]:
    """Return, per repeat, the whole sweep's seconds on both sides and their ratios."""
    found = []
    for repeat in range(len(rows[0]["ours"].wall)):
        entry: dict[str, float] = {}
        for kind in ("wall", "cpu"):
            once = getattr(calibration, kind)
            ours = sum(getattr(r["ours"], kind)[repeat] for r in rows) + (
                once[repeat] if once else 0.0
            )
            peer = sum(getattr(r["peer"], kind)[repeat] for r in rows)
            entry |= {f"ours_{kind}": ours, f"peer_{kind}": peer, f"{kind}_ratio": peer / ours}
        found.append(entry)
    return found


def print_row(label: str, row: dict[str, Timing], q: dict[str, Any]) -> None:
    low, high = 100 * (q["ratio_low"] - 1), 100 * (q["ratio_high"] - 1)
    print(
        f"{label:26} {row['ours'].wall[0]:8.2f} {row['peer'].wall[0]:8.2f}"
        f" {q['ours_perplexity']:10.3f} {q['peer_perplexity']:10.3f}"
        f"  {100 * (q['ratio'] - 1):+7.2f} % [{low:+.2f}, {high:+.2f}]",
        flush=True,
    )


def print_totals(method: str, result: dict[str, Any]) -> None:
    for kind in ("wall", "cpu"):
        ours, peer, ratio = (
            statistics.median(t[f"{who}"] for t in result["totals"])
            for who in (f"ours_{kind}", f"peer_{kind}", f"{kind}_ratio")
        )
        once = result["calibration"][kind]
        calibrated = f", calibration {statistics.median(once):.1f} s of it" if once else ""
        print(
            f"{method.upper()} sweep, {kind} time: ours {ours:.1f} s{calibrated}; llm-compressor"
            f" {peer:.1f} s; {ratio:.1f} times"
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
