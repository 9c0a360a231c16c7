"""The store: claims, interruptions, content addressing, deletion, and folders it must refuse."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from workbench.errors import StudyError
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunState
from workbench.storage import journal as journal_module
from workbench.storage import store as store_module
from workbench.storage.journal import LOST_SECONDS, SCHEMA_VERSION, STALE_SECONDS
from workbench.storage.store import JOURNAL_NAME, Claim, Store
from workbench.tasks.outcomes import Outcomes

RECIPE = Recipe.of(RTN(4))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "study")


def outcomes(value: float = 1.0) -> Outcomes:
    return Outcomes({"example": np.arange(3), "loss": np.full(3, value)})


def claim(store: Store, run: str = "a", recipe: Recipe = RECIPE) -> Claim:
    made = store.claim(run, model="m", recipe=recipe)
    assert made is not None
    return made


def finish(store: Store, run: str = "a", content: str = "", recipe: Recipe = RECIPE) -> None:
    with claim(store, run, recipe) as made:
        artifact = store.keep_artifact(lambda p: p.write_text(content)) if content else None
        made.finish(
            size_bytes=10,
            measurements=[Measurement("perplexity", 5.0, n=3, stderr=0.1)],
            outcomes=outcomes(),
            artifact=artifact,
            facts={"share": 0.9},
            seconds={"compress": 1.0},
        )


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    root = Path(store_module.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


CLAIM_AND_WAIT = """
import sys
from workbench.storage.store import Store
from workbench.recipes.recipe import Recipe
from workbench.recipes import RTN
store = Store.open(sys.argv[1])
with store.claim("a", model="m", recipe=Recipe.of(RTN(4))):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_a_finished_run_is_read_back_in_full(store: Store) -> None:
    finish(store, content="codes")
    record = Store.open(store.path).record("a")
    assert record is not None
    assert record.state is RunState.DONE
    assert record.recipe == RECIPE
    assert record.size_bytes == 10
    assert record.facts["share"] == 0.9
    assert record.seconds == {"compress": 1.0}
    assert record.measurement("perplexity") == Measurement("perplexity", 5.0, n=3, stderr=0.1)
    artifact = store.artifact(record.facts["artifact"])
    assert artifact is not None
    assert artifact.read_text() == "codes"
    assert store.outcomes("a")["loss"].tolist() == [1.0, 1.0, 1.0]
    assert store.record("b") is None


def test_a_claim_excludes_others_until_it_ends(store: Store) -> None:
    made = claim(store)
    running = store.record("a")
    assert running is not None
    assert running.state is RunState.RUNNING
    assert store.claim("a", model="m", recipe=RECIPE) is None
    made.fail(RunState.FAILED, "ValueError: no")
    failed = store.record("a")
    assert failed is not None
    assert (failed.state, failed.error) == (RunState.FAILED, "ValueError: no")
    finish(store)  # a failed run can be tried again
    done = store.record("a")
    assert done is not None
    assert (done.state, done.error) == (RunState.DONE, None)
    assert store.claim("a", model="m", recipe=RECIPE) is None


def test_an_exception_in_a_claim_is_recorded(store: Store) -> None:
    with pytest.raises(MemoryError), claim(store):
        raise MemoryError("too large")
    record = store.record("a")
    assert record is not None
    assert (record.state, record.error) == (RunState.FAILED, "MemoryError: too large")


def test_a_finish_that_cannot_be_written_leaves_a_failed_run(store: Store) -> None:
    with pytest.raises(TypeError), claim(store) as made:
        made.finish(
            size_bytes=1,
            measurements=[],
            outcomes=outcomes(),
            artifact=None,
            facts={"not json": object()},
            seconds={},
        )
    record = store.record("a")
    assert record is not None
    assert record.state is RunState.FAILED
    assert not list(store.path.rglob("*.tmp"))


def test_a_run_that_was_taken_over_is_not_overwritten(store: Store) -> None:
    first = claim(store)
    first.fail(RunState.INTERRUPTED, "gone")
    second = claim(store)
    with pytest.raises(StudyError, match="taken over"):
        first.finish(
            size_bytes=1, measurements=[], outcomes=outcomes(9), artifact=None, facts={}, seconds={}
        )
    record = store.record("a")
    assert record is not None
    assert record.state is RunState.RUNNING
    second.fail(RunState.CANCELLED, "stop")
    with pytest.raises(StudyError, match="no outcomes"):
        store.outcomes("a")


def test_a_run_whose_process_was_killed_becomes_interrupted(store: Store) -> None:
    process = python(CLAIM_AND_WAIT, store.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    running = store.record("a")
    assert running is not None
    assert running.state is RunState.RUNNING
    assert store.claim("a", model="m", recipe=RECIPE) is None
    with pytest.raises(StudyError, match="cancel it"):
        store.delete("a")
    process.kill()
    process.wait()
    (interrupted,) = store.records()
    assert interrupted.state is RunState.INTERRUPTED
    assert "Run the same recipe again" in (interrupted.error or "")
    finish(store)


def test_a_run_of_another_computer_lives_by_its_heartbeat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store)
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("UPDATE runs SET host = 'elsewhere', pid = 999999999")
    assert store.records()[0].state is RunState.RUNNING
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:  # the clocks differ by ten minutes
        db.execute("UPDATE runs SET heartbeat = ?", (time.time() - 600,))
    assert store.records()[0].state is RunState.RUNNING
    later = time.monotonic() + STALE_SECONDS + 1
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: later)
    assert store.records()[0].state is RunState.INTERRUPTED


def test_a_run_of_another_computer_that_is_a_day_old_is_given_up_at_sight(store: Store) -> None:
    claim(store)
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        old = time.time() - LOST_SECONDS - 1
        db.execute("UPDATE runs SET host = 'elsewhere', heartbeat = ?", (old,))
    assert store.records()[0].state is RunState.INTERRUPTED


def test_a_reused_process_id_is_not_taken_for_the_owner(store: Store) -> None:
    claim(store)
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("UPDATE runs SET process = 'another boot:17'")
    assert store.records()[0].state is RunState.INTERRUPTED


def test_a_row_of_an_earlier_version_says_the_process_by_its_creation_time(store: Store) -> None:
    claim(store)
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("UPDATE runs SET process = NULL")
    assert store.records()[0].state is RunState.RUNNING
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("UPDATE runs SET pid_started = pid_started - 3600")
    assert store.records()[0].state is RunState.INTERRUPTED


@pytest.mark.parametrize("step", [-600.0, 600.0, 1e8])
def test_a_step_of_the_clock_leaves_a_living_run_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    made = claim(store)
    true_time, true_creation = time.time, psutil.Process.create_time
    monkeypatch.setattr(time, "time", lambda: true_time() + step)
    monkeypatch.setattr(
        psutil.Process, "create_time", lambda self, **how: true_creation(self, **how) + step
    )
    assert Store.open(store.path).records()[0].state is RunState.RUNNING
    assert store.claim("a", model="m", recipe=RECIPE) is None
    made.fail(RunState.CANCELLED, "")


def test_a_run_that_was_given_up_by_mistake_is_finished_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HEARTBEAT_SECONDS", 0.02)
    with claim(store) as made:
        with sqlite3.connect(store.path / JOURNAL_NAME) as db:
            db.execute("UPDATE runs SET state = 'interrupted', error = 'gone'")
        deadline = time.monotonic() + 5
        while store.records()[0].state is not RunState.RUNNING:  # its heartbeat takes it back
            assert time.monotonic() < deadline
            time.sleep(0.02)
        made.finish(
            size_bytes=1, measurements=[], outcomes=outcomes(), artifact=None, facts={}, seconds={}
        )
    record = store.records()[0]
    assert (record.state, record.error) == (RunState.DONE, None)


def test_the_heartbeat_keeps_a_claim_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "HEARTBEAT_SECONDS", 0.02)
    with claim(store) as made, sqlite3.connect(store.path / JOURNAL_NAME) as db:
        first = db.execute("SELECT heartbeat FROM runs").fetchone()
        deadline = time.monotonic() + 5
        while db.execute("SELECT heartbeat FROM runs").fetchone() == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        made.fail(RunState.CANCELLED, "")


CONTEND = """
import sys
from workbench.storage.store import Store
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.recipes import RTN
store = Store.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
won = []
for number in range(40):
    claim = store.claim(f"run{number}", model="m", recipe=Recipe.of(RTN(4)))
    if claim is not None:
        won.append(number)
print(*won, flush=True)
sys.stdin.readline()
"""


def test_two_processes_never_win_the_same_run(store: Store) -> None:
    processes = [python(CONTEND, store.path) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    won = [list(map(int, p.stdout.readline().split())) for p in processes]  # type: ignore[union-attr]
    for process in processes:
        process.communicate("\n")
    assert sorted(won[0] + won[1]) == list(range(40))
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_equal_weights_are_stored_once_and_go_with_their_last_run(store: Store) -> None:
    for run in "ab":
        finish(store, run, content="same")
    (file,) = store._artifacts.iterdir()
    store.delete("a")
    assert file.exists()
    assert not (store._outcomes / "a.npz").exists()
    store.delete("b")
    assert not file.exists()
    assert store.records() == ()
    with pytest.raises(StudyError, match="deleted before"):
        store.delete("a")


def test_the_base_model_cannot_be_deleted_before_what_is_compared_to_it(store: Store) -> None:
    finish(store, "base", recipe=Recipe())
    finish(store, "a")
    with pytest.raises(StudyError, match="Delete those first"):
        store.delete("base")
    store.delete("a")
    store.delete("base")


def test_the_least_recently_used_weights_are_evicted(tmp_path: Path) -> None:
    store = Store.create(tmp_path, disk_budget_bytes=250)
    digests = []
    for name in "abc":
        digests.append(store.keep_artifact(lambda p, name=name: p.write_text(name * 100)))
        time.sleep(0.01)
        store.artifact(digests[0])  # the first is used all the time
        time.sleep(0.01)
    assert [store.artifact(d) is not None for d in digests] == [True, False, True]
    large = store.keep_artifact(lambda p: p.write_text("d" * 1000))
    assert store.artifact(large) is not None  # what was just made is kept, whatever its size
    assert len(list(store._artifacts.iterdir())) == 1


def test_damaged_weights_are_treated_as_evicted(store: Store) -> None:
    digest = store.keep_artifact(lambda p: p.write_text("codes"))
    store._artifact_path(digest).write_text("c0des")
    assert store.artifact(digest) is None
    assert store.keep_artifact(lambda p: p.write_text("codes")) == digest
    assert store.artifact(digest) is not None


def test_a_write_that_fails_leaves_no_file(store: Store) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.keep_artifact(write)
    assert list(store._artifacts.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed_and_of_living_ones_kept(store: Store) -> None:
    mine = store_module._temporary(store._artifacts / "weights")
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-999999999-"))
    for path in (mine, theirs):
        path.touch()
    store.recover()
    assert mine.exists()
    assert not theirs.exists()


def test_what_a_killed_calibration_left_is_removed_after_a_day(store: Store) -> None:
    old, new = (store.statistics_folder / f".key-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "0000.solve.f32").touch()
    yesterday = time.time() - 25 * 3600
    for path in (old / "0000.solve.f32", old):
        os.utime(path, (yesterday, yesterday))
    store.recover()
    assert not old.exists()
    assert new.exists()


def test_later_measurements_are_rows_of_their_own(store: Store) -> None:
    finish(store)
    store.add_measurements(
        "a", [Measurement("latency", np.float32(2.5), "ms", np.int64(9), None, "")]
    )
    store.add_measurements("a", [Measurement("perplexity", math.nan)])
    record = store.record("a")
    assert record is not None
    assert [m.metric for m in record.measurements] == ["perplexity", "latency", "perplexity"]
    latency = record.measurement("latency")
    assert latency is not None
    assert (latency.value, latency.n, latency.stderr) == (2.5, 9, None)
    newest = record.measurement("perplexity")
    assert newest is not None
    assert math.isnan(newest.value)
    with pytest.raises(StudyError, match="no run b"):
        store.add_measurements("b", [])


def test_models_and_meta(store: Store) -> None:
    store.add_model("small", {"fingerprint": "1"})
    store.add_model("large", {"fingerprint": "2"})
    with pytest.raises(StudyError, match="already"):
        store.add_model("small", {})
    store.set_meta("task", {"kind": "x"})
    again = Store.open(store.path)
    assert list(again.models().items()) == [
        ("small", {"fingerprint": "1"}),
        ("large", {"fingerprint": "2"}),
    ]
    assert again.meta("task") == {"kind": "x"}
    assert again.meta("nothing") is None


def test_model_folders_are_distinct_and_safe_on_windows(store: Store) -> None:
    names = ["org/model", "org:model", "con", "a" * 300, "Ω"]
    folders = [store.model_folder(name).name for name in names]
    assert len(set(folders)) == len(names)
    assert all(len(f) < 60 and not set(f) & set('<>:"/\\|?* .') for f in folders)


def test_empty_folders_may_be_lost_in_a_copy(store: Store) -> None:
    for folder in store.path.iterdir():
        assert not folder.is_dir(), "made before they are needed"
    finish(store, content="codes")
    store.delete("a")
    for folder in (store._artifacts, store._outcomes):
        folder.rmdir()
    finish(store, content="codes")
    assert store.outcomes("a")["loss"].tolist() == [1.0, 1.0, 1.0]


def test_the_journal_uses_no_write_ahead_log(store: Store) -> None:
    finish(store)
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_the_version_of_a_metric_is_kept(store: Store) -> None:
    finish(store)
    store.add_measurements("a", [Measurement("macro_f1", 0.5, n=3, version=2)])
    record = Store.open(store.path).record("a")
    assert record is not None
    found = record.measurement("macro_f1")
    assert found is not None
    assert found.version == 2


def test_a_journal_that_another_process_has_upgraded_stays_as_it_is(store: Store) -> None:
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("PRAGMA user_version = 9")
    store._journal._upgrade()
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (9,)


class TestRefusals:
    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        for make in (Store.create, Store.open):
            with pytest.raises(StudyError, match="a study is a folder"):
                make(path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match="There is no folder"):
            Store.open(tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(StudyError, match="not a study and not empty"):
            Store.create(tmp_path)
        with pytest.raises(StudyError, match="is not a study"):
            Store.open(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_another_database(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / JOURNAL_NAME) as db:
            db.execute("CREATE TABLE cats (name TEXT)")
        for make in (Store.create, Store.open):
            with pytest.raises(StudyError, match="not a study"):
                make(tmp_path)

    @pytest.mark.parametrize(
        "program",
        [
            "CREATE VIEW cats AS SELECT 1",
            "CREATE TRIGGER more AFTER UPDATE ON runs BEGIN DELETE FROM meta; END",
            "CREATE TRIGGER run_deleted AFTER DELETE ON runs BEGIN DELETE FROM meta; END",
        ],
    )
    def test_a_program_in_the_journal(self, store: Store, program: str) -> None:
        with sqlite3.connect(store.path / JOURNAL_NAME) as db:
            db.execute("DROP TRIGGER run_deleted")
            db.execute(program)
        with pytest.raises(StudyError, match=r"holds a (view|trigger)"):
            Store.open(store.path)

    def test_a_newer_version(self, store: Store) -> None:
        with sqlite3.connect(store.path / JOURNAL_NAME) as db:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        for make in (Store.create, Store.open):
            with pytest.raises(StudyError, match="Upgrade compression-workbench"):
                make(store.path)

    @pytest.mark.parametrize("where", [0, 4096])
    def test_a_damaged_journal(self, store: Store, where: int) -> None:
        finish(store)
        with (store.path / JOURNAL_NAME).open("r+b") as file:
            file.seek(where)
            file.write(b"\xff" * 40_000)
        with pytest.raises(StudyError, match="damaged"):
            Store.open(store.path).records()

    def test_a_study_killed_at_its_creation_can_be_started_again(self, tmp_path: Path) -> None:
        (tmp_path / JOURNAL_NAME).touch()
        with pytest.raises(StudyError, match="unfinished study"):
            Store.open(tmp_path)
        assert Store.create(tmp_path).records() == ()

    def test_hidden_files_do_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / ".ipynb_checkpoints").mkdir()
        assert Store.create(tmp_path).records() == ()

    def test_an_unknown_step(self, store: Store) -> None:
        finish(store)
        with sqlite3.connect(store.path / JOURNAL_NAME) as db:
            db.execute("UPDATE runs SET recipe = replace(recipe, 'RTN', 'Telepathy')")
        with pytest.raises(StudyError, match=r"Telepathy.*Upgrade"):
            store.records()

    @pytest.mark.skipif(os.name == "nt", reason="folder permissions differ")
    def test_a_read_only_folder(self) -> None:
        code = (
            "import os, sys\n"
            "from workbench.storage.store import Store\n"
            "from workbench.errors import StudyError\n"
            "path = sys.argv[1]\n"
            "if os.getuid() == 0: os.setuid(65534)\n"  # root may write everywhere
            "store = Store.open(path)\n"
            "print(len(store.records()))\n"
            "for act in (lambda: store.set_meta('a', 1), lambda: store.add_measurements('a', ()),\n"
            "            lambda: Store.create(path),\n"
            "            lambda: Store.create(path + '/deeper')):\n"
            "    try: act()\n"
            "    except StudyError as error: print(error)\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            finish(Store.create(Path(folder) / "study"))
            Path(folder).chmod(0o755)
            paths = list(Path(folder).rglob("*"))
            for path in paths:
                path.chmod(0o555 if path.is_dir() else 0o444)
            process = python(code, Path(folder) / "study")
            lines = process.communicate()[0].splitlines()
            for path in paths:
                path.chmod(0o755)
        assert lines[0] == "1"  # it can be looked at
        assert len(lines) == 5
        assert "read-only" in lines[1]
        assert "read-only" in lines[2]  # said before minutes are spent on measuring
        assert "can write to" in lines[3]
        assert "can write to" in lines[4]
