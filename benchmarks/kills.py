"""Kill a process at random moments, open what it left, and see that nothing is lost or left over.

    python benchmarks/kills.py [--points 100] [--seed 0] [--out FILE]

Each point starts one action on a tiny model in a process of its own, ends it by SIGKILL at a random
moment of the time that the action takes, opens the study again and goes on. It is a fault if a run
that was done before is gone or changed, the study does not open, the same action does not finish
afterwards, or a file is left that nothing needs. Ends with status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACTIONS = ("creation", "sweep", "worker", "tabulate", "training", "export", "report")
LONGEST_SECONDS = 300.0


def act(action: str, folder: Path) -> None:
    """Do one action on the study in a folder; this is what is killed."""
    from tests.toy import mean_loss, toy_study
    from workbench.recipes import GPTQ, RTN, FineTuning
    from workbench.records import RunState
    from workbench.study import Study

    warnings.simplefilter("ignore")
    path = folder / "study"
    new = action == "creation"
    study = toy_study(path) if new else Study.open(path, metric=mean_loss)
    print("ready", flush=True)
    with study:
        if action == "creation":
            study.sweep([RTN(bits, group_size=8) for bits in (3, 4)] + [GPTQ(4, group_size=8)])
        elif action == "sweep":  # of what is not there yet
            study.sweep([GPTQ(bits, group_size=8) for bits in (2, 3, 5, 6)])
        elif action == "worker":
            study.submit([RTN(bits, group_size=8) for bits in (5, 6)])
            study.wait()
        elif action == "tabulate":
            study.tabulate()
        elif action == "training":
            study.run(FineTuning(epochs=2, batch_size=8))
        elif action == "export":
            done = [run for run in study.runs if run.recipe.steps]
            done[0].export(folder / "export", overwrite=True)
        elif action == "report":
            study.report(folder / "report.html", trust=False)
        failed = [record for record in study.records if record.state is not RunState.DONE]
        if failed:
            raise SystemExit(f"{failed[0].label} is {failed[0].state.value}: {failed[0].error}")
    print("finished", flush=True)


def started(action: str, folder: Path) -> subprocess.Popen[str]:
    """Start an action in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "--act", action, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def duration(action: str, folder: Path) -> tuple[float, float]:
    """Do an action to its end and return the seconds to its beginning and from there on."""
    start = time.monotonic()
    process = started(action, folder)
    assert process.stdout is not None
    said = process.stdout.readline()
    begun = time.monotonic() - start
    rest = process.stdout.read()
    process.wait(LONGEST_SECONDS)
    if (said + rest).split() != ["ready", "finished"]:
        raise SystemExit(f"{action} does not finish even when nobody kills it")
    return begun, time.monotonic() - start - begun


def kill_at(action: str, folder: Path, moment: float, *, from_start: bool) -> bool:
    """Start an action and kill it, its worker too; return whether it was still at work."""
    process = started(action, folder)
    assert process.stdout is not None
    if not from_start:
        process.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    cut = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.2)  # a worker ends by itself when its parent is gone
    return cut


def results(path: Path) -> dict[str, str]:
    """Return what a study says of its finished runs."""
    from workbench.records import RunState
    from workbench.study import Study

    with Study.open(path) as study:
        found = {}
        for record in study.records:
            if record.state is RunState.DONE:
                evaluated = [m for m in record.measurements if m.part == "evaluation"]
                values = [
                    (m.metric, m.value, m.stderr) for m in evaluated
                ]  # an export adds its own
                found[record.id] = json.dumps([values, record.size_bytes, record.facts["artifact"]])
                study.runs[[r.id for r in study.runs].index(record.id)].outcomes()
        return found


def garbage(folder: Path) -> list[str]:
    """Return the files that nothing needs, once the study was opened again."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or ".tmp" in name or name.endswith(("-journal", "-wal", "-shm")):
            found.append(name)
    return found


def point(
    action: str,
    before: Path,
    folder: Path,
    seconds: tuple[float, float],
    chance: random.Random,
) -> tuple[bool, list[str]]:
    """Kill one action once; return whether it was cut off, and what is wrong afterwards."""
    if before.exists():
        shutil.copytree(before, folder, dirs_exist_ok=True)
    known = results(folder / "study") if (folder / "study").exists() else {}
    begun, lasts = seconds
    from_start = action == "creation"
    reach = begun + lasts if from_start else lasts
    cut = kill_at(action, folder, chance.uniform(0, 1.05 * reach), from_start=from_start)
    faults = []
    try:
        if action != "creation":
            now = results(folder / "study")
            faults += [f"run {id} is lost or changed" for id in known if now.get(id) != known[id]]
        duration(action, folder)  # the same again goes on with the rest
        now = results(folder / "study")
        faults += [f"run {id} is lost or changed" for id in known if now.get(id) != known[id]]
    except (Exception, SystemExit) as error:
        faults.append(f"{type(error).__name__}: {error}")
    faults += [f"left over: {name}" for name in garbage(folder)]
    return cut, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--act", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.act:
        act(given.act[0], Path(given.act[1]))
        return
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    chance = random.Random(given.seed)
    cut: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        times = {"creation": duration("creation", base / "whole")}
        print(f"creation and sweep take {sum(times['creation']):.1f} s", flush=True)
        for number in range(given.points):
            action = ACTIONS[number % len(ACTIONS)]
            before = base / ("none" if action == "creation" else "whole")
            if action not in times:
                shutil.copytree(base / "whole", base / f"timed-{action}")
                times[action] = duration(action, base / f"timed-{action}")
            folder = base / f"point-{number}"
            was_cut, found = point(action, before, folder, times[action], chance)
            cut[action] += was_cut
            faults += [f"{number} {action}: {fault}" for fault in found]
            print(f"{number + 1}/{given.points} {action}: {'; '.join(found) or 'well'}", flush=True)
            shutil.rmtree(folder)
    summary = {
        "points": given.points,
        "cut_off": sum(cut.values()),
        "cut_off_by_action": dict(cut),
        "faults": faults,
    }
    print(json.dumps(summary, indent=1))
    if given.out:
        given.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if faults:
        sys.exit(f"{len(faults)} faults")


if __name__ == "__main__":
    main()
