"""Run ``workbench demo`` in an empty folder as a user does, and hold it to what it promises.

    python .ci/check_demo.py PATH/TO/workbench FOLDER

Ends with status 1 and a list of what is missing: the whole command in 180 seconds, the first point
in 60, measured runs of every method, the dense model, a Pareto front, and a plot in HTML.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

SLACK = float(os.environ.get("WORKBENCH_CEILINGS", "1"))
"""How many times as long as on the machine that the ceilings are of."""

MOST_SECONDS = 180 * SLACK
GIVE_UP_SECONDS = 900
FIRST_POINT_SECONDS = 60 * SLACK
LEAST_RUNS = 3
METHODS = ("RTN", "GPTQ", "AWQ", "Magnitude")
POINT = re.compile(r"\[\d+/\d+\] (?!dense)(.+): done")
ROW = re.compile(r"\s*[0-9a-f]{12} +(dense|RTN|GPTQ|AWQ|Magnitude)\b( \S+)*  .*\d.* done\s*")
FRONT = "★"


def run(command: Path, folder: Path) -> tuple[list[tuple[float, str]], float]:
    """Return every line that the demo printed with its second, and the seconds of the whole."""
    folder.mkdir(parents=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [command.absolute(), "demo"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "COLUMNS": "160"},
    )
    assert process.stdout is not None
    watchdog = threading.Timer(GIVE_UP_SECONDS, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append((time.monotonic() - started, line.rstrip()))
        print(f"{lines[-1][0]:6.1f} s | {lines[-1][1]}", flush=True)
    status = process.wait()
    watchdog.cancel()
    if status:
        sys.exit(f"workbench demo ended with status {status}")
    return lines, time.monotonic() - started


def complaints(lines: list[tuple[float, str]], seconds: float, folder: Path) -> list[str]:
    """Return what the demo did not keep, empty if all is well."""
    found = []
    if seconds > MOST_SECONDS:
        found.append(f"it took {seconds:.0f} s; at most {MOST_SECONDS} s are allowed")
    points = [second for second, line in lines if POINT.fullmatch(line)]
    first = min(points, default=float("inf"))
    if first > FIRST_POINT_SECONDS:
        found.append(f"the first point came after {first:.0f} s, not {FIRST_POINT_SECONDS} s")
    rows = [(match.group(1), line) for _, line in lines if (match := ROW.fullmatch(line))]
    for method in METHODS:
        count = sum(name == method for name, _ in rows)
        if count < LEAST_RUNS:
            found.append(f"{count} measured runs of {method} in the table, not {LEAST_RUNS}")
    if not any(name == "dense" for name, _ in rows):
        found.append("the dense model is not in the table")
    if not any(FRONT in line for _, line in rows):
        found.append("no row of the table is marked as on the Pareto front")
    plots = [path for path in folder.rglob("*.html") if "Plotly" in path.read_text("utf-8")]
    if not plots:
        found.append("there is no HTML plot")
    if not found:
        print(
            f"== The demo took {seconds:.1f} s, its first point {first:.1f} s,"
            f" {len(plots[0].read_text('utf-8')) / 1e6:.1f} MB of plot"
        )
    return found


def main() -> None:
    command, folder = Path(sys.argv[1]), Path(sys.argv[2])
    lines, seconds = run(command, folder)
    if found := complaints(lines, seconds, folder):
        sys.exit("workbench demo: " + "; ".join(found))


if __name__ == "__main__":
    main()
