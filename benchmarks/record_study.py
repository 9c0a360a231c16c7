"""Record the study that ships with the package: ``python benchmarks/record_study.py``.

A classroom sees a whole frontier of the bundled model at once with it. What is kept is the journal,
the per-example outcomes, the task's texts and the table of predictions; compressed weights and
calibration statistics are left out, as they are large and can be computed again.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
from pathlib import Path

import workbench as wb

FOLDER = Path(__file__).parents[1] / "workbench" / "demo" / "study"
RECIPES = (
    wb.RTN(8),
    wb.RTN(4),
    wb.RTN(3),
    wb.RTN(2, group_size=32),
    wb.GPTQ(4),
    wb.GPTQ(3),
    wb.GPTQ(3, group_size=64),
    wb.GPTQ(2, group_size=32),
    wb.AWQ(4),
    wb.AWQ(3),
    wb.MagnitudePruning(0.3),
    wb.Wanda(0.5),
    [wb.SparseGPT(0.3), wb.GPTQ(4)],
    [wb.GPTQ(4), wb.QuantizeEmbeddings(8)],
    [wb.GPTQ(3, group_size=64), wb.QuantizeEmbeddings(8)],
    wb.DepthPruning(1),
)
KEPT = ("study.sqlite", "outcomes", "predictions", "task")
MOST_BYTES = 2_000_000


def main() -> None:
    """Compute every recipe, and replace the recorded study by what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep the whole study here, and go on with it")
    work = parser.parse_args().work
    with tempfile.TemporaryDirectory() as temporary:
        path = work or Path(temporary) / "study"
        with wb.Study("demo", "demo", path=path) as study:
            study.tabulate()
            study.sweep(
                RECIPES, on_event=lambda e: print(e.kind, e.label, e.error or "", flush=True)
            )
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        for name in KEPT:
            source = path / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, FOLDER / name)
    with sqlite3.connect(FOLDER / "study.sqlite") as journal:
        journal.execute("DELETE FROM artifacts")
        journal.execute("UPDATE runs SET host = '', pid = 0, pid_started = 0")  # of this machine
    journal.execute("VACUUM")
    journal.close()
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    print(f"{FOLDER}: {size / 1e6:.2f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"The recording has {size:,} bytes; {MOST_BYTES:,} are the most.")


if __name__ == "__main__":
    main()
