"""The snapshot: one reading for all views, what changed is read anew, damage stays where it is."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.storage.test_store import CLAIM_AND_WAIT, RECIPE, claim, finish, outcomes, python
from workbench.errors import StudyError
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunRecord, RunState
from workbench.storage import snapshot as snapshot_module
from workbench.storage import store as store_module
from workbench.storage.journal import DAMAGED
from workbench.storage.store import JOURNAL_NAME, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "study")
    finish(made, "base", recipe=Recipe())
    for run in "abc":
        finish(made, run)
    return made


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the rows that are parsed from now on."""
    seen: list[str] = []
    parse = snapshot_module.record_of

    def counting(row: sqlite3.Row, *more: object) -> RunRecord:
        seen.append(row["id"])
        return parse(row, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot_module, "record_of", counting)
    return seen


@pytest.fixture
def read(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the runs whose outcomes are read from now on."""
    seen: list[str] = []
    load = store.read_outcomes

    def counting(run: str) -> object:
        seen.append(run)
        return load(run)

    monkeypatch.setattr(store, "read_outcomes", counting)
    return seen


def ids(store: Store) -> list[str]:
    return [record.id for record in store.snapshot().records]


def test_it_is_the_same_while_nothing_changes(store: Store, parsed: list[str]) -> None:
    first = store.snapshot()
    assert parsed == ["base", "a", "b", "c"]
    assert store.snapshot() is first
    assert store.records() is first.records
    assert parsed == ["base", "a", "b", "c"]
    assert first.by_id["a"] is first.records[1]
    assert first.by_model["m"] == first.records == first.done
    assert first.baselines["m"].id == "base"
    assert first.records == tuple(Store.open(store.path).record(id) for id in first.by_id)


def test_after_one_more_run_one_row_is_parsed(store: Store, parsed: list[str]) -> None:
    first = store.snapshot()
    finish(Store.open(store.path), "d")  # another store, as another process would
    parsed.clear()
    second = store.snapshot()
    assert second is not first
    assert parsed == ["d"]
    assert second.records[:4] == first.records
    assert all(one is other for one, other in zip(first.records, second.records, strict=False))
    assert len(first.records) == 4, "a snapshot that was handed out stays as it was"


def test_what_was_measured_later_is_seen(store: Store, parsed: list[str]) -> None:
    store.snapshot()
    parsed.clear()
    Store.open(store.path).add_measurements("b", [Measurement("latency_ms", 2.0, part="")])
    found = store.snapshot().by_id["b"].measurement("latency_ms")
    assert found is not None
    assert found.value == 2.0
    assert parsed == ["b"]


def test_a_heartbeat_changes_nothing(store: Store) -> None:
    made = claim(store, "d")
    first = store.snapshot()
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        db.execute("UPDATE runs SET heartbeat = heartbeat + 5, state = 'running' WHERE id = 'd'")
    assert store.snapshot() is first
    made.fail(RunState.FAILED, "no")
    assert store.snapshot().by_id["d"].state is RunState.FAILED


def test_deleted_runs_go_and_one_that_is_computed_again_comes_last(store: Store) -> None:
    store.snapshot()
    other = Store.open(store.path)
    other.delete("a")
    assert ids(store) == ["base", "b", "c"]
    other.delete("c")
    finish(other, "d")
    assert ids(store) == ["base", "b", "d"]
    other.delete("b")
    finish(other, "b")
    assert ids(store) == ["base", "d", "b"] == ids(Store.open(store.path))


def test_what_describes_the_study_counts_as_a_change(store: Store) -> None:
    first = store.snapshot()
    store.set_meta("calibration", {"seed": 1})
    second = store.snapshot()
    assert second is not first
    store.add_model("other", {})
    assert store.snapshot() is not second


def test_a_running_run_that_is_abandoned_becomes_interrupted(store: Store) -> None:
    process = python(CLAIM_AND_WAIT.replace('"a"', '"d"'), store.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    assert store.snapshot().by_id["d"].state is RunState.RUNNING
    process.kill()
    process.communicate()
    found = store.snapshot().by_id["d"]
    assert found.state is RunState.INTERRUPTED
    assert "Run the same recipe again" in str(found.error)
    finish(store, "d")
    assert store.snapshot().by_id["d"].state is RunState.DONE


def test_outcomes_are_read_once_and_by_those_who_come_after(store: Store, read: list[str]) -> None:
    first = store.snapshot()
    for record in first.records * 2:
        found = first.outcomes(record)
        assert found is not None
        assert found["loss"].tolist() == [1.0, 1.0, 1.0]
    assert read == ["base", "a", "b", "c"]
    finish(store, "d")
    read.clear()
    second = store.snapshot()
    assert all(second.outcomes(record) is not None for record in second.records)
    assert read == ["d"]


def test_only_so_much_is_kept_in_memory(
    store: Store, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "OUTCOME_BYTES", 100)  # each takes 48
    found = store.snapshot()
    for record in found.records * 2:
        assert found.outcomes(record) is not None
    assert read == ["base", "a", "b", "c", "b", "c"]


def test_a_file_that_was_replaced_is_read_again(store: Store, read: list[str]) -> None:
    found = store.snapshot()
    record = found.by_id["a"]
    assert found.outcomes(record) is found.outcomes(record) is store.outcomes("a")
    outcomes(7.0).save(store.outcomes_path("a"))
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:  # as in a study without digests
        db.execute("DELETE FROM files")
    again = found.outcomes(record)
    assert again is not None
    assert again["loss"][0] == 7.0
    assert read == ["a", "a"]


def test_a_missing_file_is_missed_once_and_found_when_it_is_there(
    store: Store, read: list[str]
) -> None:
    content = store.outcomes_path("a").read_bytes()
    store.outcomes_path("a").unlink()
    for _ in range(2):
        with pytest.raises(StudyError, match="Run the same recipe again"):
            store.outcomes("a")
    assert read == ["a"]
    store.outcomes_path("a").write_bytes(content)
    assert store.outcomes("a")["loss"].tolist() == [1.0, 1.0, 1.0]


def test_what_is_derived_is_computed_once_for_what_it_depends_on() -> None:
    run, base, other = outcomes(1.0), outcomes(2.0), outcomes(3.0)
    count = iter(range(10))
    asked = [("interval", base), ("interval", base), ("p", base), ("interval", other)]
    assert [run.derived(what, lambda: next(count), of) for what, of in asked] == [0, 0, 1, 2]
    assert base.derived("interval", lambda: next(count)) == 3


def test_a_damaged_file_is_named_and_the_others_are_read(store: Store) -> None:
    path = store.outcomes_path("b")
    path.write_bytes(b"no zip file")
    found = store.snapshot()
    assert [found.outcomes(record) is None for record in found.records] == [
        False,
        False,
        True,
        False,
    ]
    assert list(found.damaged) == ["b"]
    assert str(path) in found.damaged["b"]
    assert "Run the same recipe again" in found.damaged["b"]
    finish(store, "b")  # which a damaged file does not keep from being computed again
    again = store.snapshot()
    assert again.outcomes(again.by_id["b"]) is not None
    assert not again.damaged


@pytest.mark.parametrize("has_digest", [True, False])
def test_no_flipped_byte_of_outcomes_gives_other_numbers(store: Store, has_digest: bool) -> None:
    path = store.outcomes_path("a")
    whole, was = path.read_bytes(), store.read_outcomes("a")
    if not has_digest:
        with sqlite3.connect(store.path / JOURNAL_NAME) as db:
            db.execute("DELETE FROM files")
    for place in random.Random(0).sample(range(len(whole)), 120):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        if has_digest:
            with pytest.raises(StudyError, match="outcomes of run a are damaged"):
                store.read_outcomes("a")
            continue
        with contextlib.suppress(StudyError):
            for name, column in store.read_outcomes("a").columns.items():
                if name in was.columns:  # what a name was changed to is no metric's column
                    assert np.array_equal(column, was[name])


def test_no_flipped_byte_of_the_journal_gives_other_numbers(tmp_path: Path, store: Store) -> None:
    store.set_meta("task", {"name": "t", "metrics": []})
    store.add_model("m", {"fingerprint": "1"})
    content = (store.path / JOURNAL_NAME).read_bytes()
    was = {record.id: record for record in store.records()}
    described = store.meta("task"), store.models()
    rng = random.Random(0)
    answers = {"same": 0, "error": 0, "marked": 0}
    for turn in range(250):
        place = rng.randrange(len(content))
        folder = tmp_path / f"turn-{turn}"
        folder.mkdir()
        changed = content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))])
        (folder / JOURNAL_NAME).write_bytes(changed + content[place + 1 :])
        shutil.copytree(store.path / "outcomes", folder / "outcomes")
        try:
            opened = Store.open(folder)
            records = opened.records()
            found = opened.meta("task"), opened.models()
        except StudyError:
            answers["error"] += 1
            continue
        assert found == described
        assert [record.id for record in records] == list(was) or any(
            record.error == DAMAGED for record in records
        )
        marked = [record for record in records if record.error == DAMAGED]
        answers["marked" if marked else "same"] += 1
        for record in records:
            assert record in marked or record == was[record.id]
    assert answers["error"] > 5
    assert answers["marked"] > 0


def test_a_damaged_row_is_a_failed_run_that_can_be_computed_again(store: Store) -> None:
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        (digest,) = db.execute("SELECT digest FROM runs WHERE id = 'a'").fetchone()
        db.execute("UPDATE measurements SET value = 4.0 WHERE run = 'a'")
        db.execute("UPDATE runs SET digest = ? WHERE id = 'a'", (digest,))
    found = store.snapshot().by_id["a"]
    assert (found.state, found.error, found.measurements) == (RunState.FAILED, DAMAGED, ())
    assert store.snapshot().by_id["b"].state is RunState.DONE
    finish(store, "a")
    again = store.snapshot().by_id["a"]
    assert again.state is RunState.DONE
    assert again.measurements == (Measurement("perplexity", 5.0, n=3, stderr=0.1),)


def test_a_row_without_a_readable_recipe_is_named_and_can_be_deleted(store: Store) -> None:
    with sqlite3.connect(store.path / JOURNAL_NAME) as db:
        (digest,) = db.execute("SELECT digest FROM runs WHERE id = 'a'").fetchone()
        db.execute("UPDATE runs SET recipe = 'no' WHERE id = 'a'")
        db.execute("UPDATE runs SET digest = ? WHERE id = 'a'", (digest,))
    with pytest.raises(StudyError, match=r"run 'a'.*damaged.*study\.delete"):
        store.snapshot()
    store.delete("a")
    assert ids(store) == ["base", "b", "c"]


def test_validation_outcomes_that_are_damaged_are_evaluated_again(store: Store) -> None:
    store.keep_outcomes("a", "validation", outcomes(2.0))
    found = store.outcomes_of("a", "validation")
    assert found is not None
    assert found["loss"][0] == 2.0
    outcomes(3.0).save(store.outcomes_path("a", "validation"))
    assert store.outcomes_of("a", "validation") is None
    assert not store.outcomes_path("a", "validation").exists()


def test_files_of_a_deleted_run_are_forgotten(store: Store) -> None:
    path = store.outcomes_path("a")
    assert store.sealed(path) == store_module.digest_of_file(path)
    store.delete("a")
    assert store.sealed(path) is None


def test_other_recipes_are_other_runs(store: Store) -> None:
    finish(store, "d", recipe=Recipe.of(RTN(3)))
    assert store.snapshot().by_id["d"].recipe != RECIPE
