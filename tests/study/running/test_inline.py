"""Runs in this process: order of events, failures, cancelling, and what a sweep costs."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.toy import toy_study
from workbench.recipes import GPTQ, RTN
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study.running.inline import InlineRunner
from workbench.study.running.runner import MOST_UPCOMING, Event, with_baselines

RECIPES = [Recipe.of(RTN(bits, group_size=8)) for bits in (2, 3, 4, 5, 6, 8)]


def jobs(*recipes: Recipe) -> list[tuple[str, Recipe]]:
    return [("tiny", recipe) for recipe in recipes]


def test_the_baseline_comes_first_and_once(tmp_path: Path) -> None:
    store = toy_study(tmp_path / "s")._workspace.store
    dense = Recipe()
    assert with_baselines(store, jobs(*RECIPES[:2])) == jobs(dense, *RECIPES[:2])
    assert with_baselines(store, jobs(dense, RECIPES[0])) == jobs(dense, RECIPES[0])
    two = [("tiny", RECIPES[0]), ("other", RECIPES[0])]
    assert [model for model, _ in with_baselines(store, two)] == ["tiny", "tiny", "other", "other"]


def test_events_in_order(tmp_path: Path) -> None:
    events: list[Event] = []
    study = toy_study(tmp_path / "s")
    numbers = InlineRunner(study._workspace.engine).submit(jobs(*RECIPES[:2]), events.append)
    assert numbers == [1, 2, 3]
    kinds = [e.kind for e in events if e.kind != "progress"]
    assert kinds == ["queued"] * 3 + ["started", "finished"] * 3 + ["idle"]
    assert [e.label for e in events if e.kind == "finished"] == [
        "dense",
        "RTN 2-bit g8",
        "RTN 3-bit g8",
    ]
    assert [e.waiting for e in events if e.kind == "started"] == [2, 1, 0]
    assert {"rtn", "evaluate"} <= {e.stage for e in events}
    assert all(e.run for e in events if e.kind in ("started", "progress", "finished"))


def test_cancel_stops_one_and_cancel_all_the_rest(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "s")
    runner = InlineRunner(study._workspace.engine)
    ends: list[tuple[int, str]] = []

    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.stage == "rtn":
            if event.job == 2:
                runner.cancel()
            if event.job == 4:
                runner.cancel_all()
        if event.kind in ("finished", "failed", "cancelled"):
            ends.append((event.job, event.kind))

    runner.submit(jobs(*RECIPES[:5]), on_event)
    assert [kind for _, kind in ends] == [
        "finished",
        "cancelled",
        "finished",
        "cancelled",
        "cancelled",
        "cancelled",
    ]
    states = [run.state for run in study.runs]
    assert states.count(RunState.CANCELLED) == 2  # those that had not started are no runs
    runner.submit(jobs(*RECIPES[:5]))
    assert {run.state for run in study.runs} == {RunState.DONE}


def test_predictions_are_a_job_that_can_be_cancelled_and_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = (RTN(4, group_size=8), RTN(3, group_size=8))
    monkeypatch.setattr("workbench.prediction.tabulate.GRID", grid)
    study = toy_study(tmp_path / "s")
    runner = InlineRunner(study._workspace.engine)
    ends: list[tuple[str, str, str]] = []

    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.stage == "predict" and not ends[1:]:
            runner.cancel()
        if event.kind in ("finished", "failed", "cancelled"):
            ends.append((event.label, event.kind, event.recipe))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("cannot allocate 3 TB")

    runner.submit([("tiny", None)], on_event)
    assert ends.pop()[:2] == ("predictions", "cancelled")
    assert study.plot().view.predicted  # what was tabulated by then
    ends.append(ends[0])
    runner.submit([("tiny", None)], on_event)
    assert ends.pop() == ("predictions", "finished", "")
    assert len(study.runs) == 1
    monkeypatch.setattr("workbench.study.running.engine.Engine.tabulate", fail)
    runner.submit([("tiny", None), *jobs(RECIPES[0])], on_event)
    assert [kind for _, kind, _ in ends[2:]] == ["failed", "finished"]


def test_a_sweep_solves_what_it_can_together(tmp_path: Path) -> None:
    recipes = [Recipe.of(GPTQ(bits, group_size=8)) for bits in (2, 3, 4)]
    swept, alone = toy_study(tmp_path / "swept"), toy_study(tmp_path / "alone")
    swept.run(recipes[1])  # what is done already is not solved again
    runs = swept.sweep([RECIPES[0], *recipes])
    together = [run.record.facts.get("solved_together") for run in runs]
    assert together == [None, 2, None, 2]
    for recipe, run in zip(recipes, runs[1:], strict=True):
        expected = alone.run(recipe).record.facts["weights_digest"]
        assert run.record.facts["weights_digest"] == expected


def test_what_a_recipe_asks_the_journal_does_not_grow_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = 0

    def count(statement: str) -> None:
        nonlocal statements
        # A run's heartbeat, which follows the clock, is another thread's.
        statements += threading.current_thread() is threading.main_thread()

    def connect(*args: object, **options: object) -> sqlite3.Connection:
        db = opened(*args, **options)
        db.set_trace_callback(count)
        return db

    opened = sqlite3.connect
    monkeypatch.setattr("workbench.storage.journal.sqlite3.connect", connect)

    def asked(n_recipes: int) -> list[int]:
        """Return the statements between the ends of the first recipes of a sweep."""
        study = toy_study(tmp_path / str(n_recipes))
        study.run([])
        seen: list[int] = []

        def on_event(event: Event) -> None:
            if event.kind == "finished":
                seen.append(statements)
            if len(seen) == 6:
                study.cancel()

        recipes = [Recipe.of(RTN(4, group_size=8 + n)) for n in range(n_recipes)]
        study.sweep(recipes, on_event=on_event)
        assert len(seen) == 6
        return [after - before for before, after in itertools.pairwise(seen)]

    few, many = asked(8), asked(3 * MOST_UPCOMING)
    assert many == few
    assert len(set(few)) == 1
