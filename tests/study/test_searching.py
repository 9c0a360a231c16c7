"""The search: predictions order what is tried, runs verify it, and `choose` decides."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.toy import toy_study
from workbench import Requirements, Study
from workbench.errors import ConfigError
from workbench.prediction import tabulate as module
from workbench.recipes import GPTQ, RTN, Distillation, QuantizeEmbeddings
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.selection.decision import decide
from workbench.study import proposals
from workbench.study.proposals import with_training

GRID = tuple(method(bits, group_size=8) for method in (GPTQ, RTN) for bits in (8, 4, 3, 2))


@pytest.fixture(scope="module")
def tabulated(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GRID", GRID)
        study = toy_study(tmp_path_factory.mktemp("search") / "study")
        study.tabulate()
        yield study


@pytest.fixture
def study(tabulated, tmp_path):
    with Study.open(shutil.copytree(tabulated.path, tmp_path / "study")) as study:
        yield study


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    monkeypatch.setattr(proposals, "_TRAININGS", ())


def test_it_ends_with_what_choose_says_and_nothing_smaller_is_left(study):
    wanted = Requirements(0.999, confidence=None)
    found = study.search(wanted, budget_minutes=5, metric="perplexity")
    assert found.ended == "exhausted"
    assert found.decision == study.choose(wanted, metric="perplexity")
    assert 0 < len(found.trials) < 30, "of some 80 recipes, on a random model that hardly differs"
    assert found.run is not None
    sizes = [run.size_bytes for run in study.runs if run.size_bytes < found.run.size_bytes]
    passing = [v.run.size_bytes for v in found.decision.verdicts if v.answer == "passes"]
    assert min(passing) == found.run.size_bytes
    assert all(size not in passing for size in sizes)
    assert "Nothing that is 1% smaller" in str(found)
    assert len(found.table()) == len(found.trials)
    # Every recipe of the grid that is smaller fails, which the search did not compute.
    for step in GRID:
        run = study.run(step)
        if run.size_bytes < 0.99 * found.run.size_bytes:
            verdict = next(
                v for v in study.choose(wanted, metric="perplexity").verdicts if v.run.id == run.id
            )
            assert verdict.answer == "fails", run.label


def test_a_second_search_computes_nothing_again(study):
    wanted = Requirements(0.999, confidence=None)
    first = study.search(wanted, budget_minutes=5, metric="perplexity")
    second = study.search(wanted, budget_minutes=5, metric="perplexity")
    assert second.trials == ()
    assert (second.run.id, second.ended) == (first.run.id, "exhausted")


def test_one_that_is_cancelled_keeps_its_runs_and_goes_on(study):
    wanted = Requirements(0.999, confidence=None)

    def stop(progress):
        if progress.detail.startswith("trial 2"):
            study.cancel()

    first = study.search(wanted, budget_minutes=5, metric="perplexity", on_progress=stop)
    assert first.ended == "cancelled"
    kept = {run.id for run in study.runs if run.state is RunState.DONE}
    assert first.trials[0].run in kept
    second = study.search(wanted, budget_minutes=5, metric="perplexity")
    assert second.ended == "exhausted"
    assert first.trials[0].run not in [trial.run for trial in second.trials]


def test_the_time_is_kept_to(study, monkeypatch):
    began = time.monotonic()
    found = study.search(0.999, budget_minutes=1e-6, metric="perplexity")
    assert time.monotonic() - began < 30
    assert (found.ended, found.trials) == ("budget", ())
    assert "goes on from here" in str(found)


def test_an_unreachable_bar_names_the_nearest(study):
    found = study.search(1.9, budget_minutes=5, metric="perplexity")
    assert found.run is None
    assert "Nearest is" in str(found) or "No run can be chosen" in str(found)


def test_the_worker_computes_where_it_is_asked_to(study):
    events = []
    found = study.search(
        Requirements(0.999, confidence=None), budget_minutes=5, metric="perplexity",
        on_event=events.append, in_worker=True,
    )  # fmt: skip
    assert found.ended == "exhausted"
    ended = [event.run for event in events if event.kind == "finished" and event.run]
    assert [trial.run for trial in found.trials] == ended[1:], "after the base model"
    with pytest.raises(ConfigError, match="background"):
        study.search(Requirements(0.9, latency_ms=5), in_worker=True)


def test_without_a_bar_for_quality_it_says_what_to_use(study):
    with pytest.raises(ConfigError, match=r"study\.fit"):
        study.search(Requirements(size_bytes=1e6))
    with pytest.raises(ConfigError, match="budget_minutes"):
        study.search(0.9, budget_minutes=0)


def test_a_training_goes_behind_the_quantization():
    scales = Distillation("scales")
    made = with_training(Recipe.of([GPTQ(4), QuantizeEmbeddings(8)]), scales)
    assert made == Recipe.of([GPTQ(4), scales, QuantizeEmbeddings(8)])
    assert with_training(Recipe.of(QuantizeEmbeddings(8)), scales) is None
    assert with_training(made, scales) is None


def test_recovery_is_proposed_where_nothing_else_is_left(study, monkeypatch):
    scales = Distillation("scales", epochs=0.5)
    monkeypatch.setattr(proposals, "_TRAININGS", (scales,))
    wanted = Requirements(0.99999, confidence=None)
    found = study.search(wanted, budget_minutes=5, metric="perplexity")
    trained = [t for t in found.trials if "scales" in t.label]
    plain = [t for t in found.trials if "scales" not in t.label]
    assert trained, "the front stops short"
    assert list(found.trials[: len(plain)]) == plain, "training comes last"
    assert all(study[t.run].state is RunState.DONE for t in trained)


def test_the_next_step_is_what_a_search_would_try_and_then_what_to_keep(study, tmp_path):
    wanted = Requirements(0.999, confidence=None)
    first = study.next_step(wanted, metric="perplexity")
    assert first.kind == "run"
    assert first.recipe.label in str(first)
    found = study.search(wanted, budget_minutes=5, metric="perplexity")
    assert found.trials[0].label == first.recipe.label
    assert found.trials[0].predicted_bytes < study.baseline().size_bytes
    last = study.next_step(wanted, metric="perplexity")
    assert (last.kind, last.run) == ("keep", found.run.id)
    hopeless = study.next_step(Requirements(1.99, confidence=None), metric="perplexity")
    assert hopeless.kind == "nothing"
    with toy_study(tmp_path / "empty") as empty:
        assert empty.next_step().kind == "base"
        empty.run([])
        assert empty.next_step().kind == "predict"


def test_the_next_step_says_how_many_examples_would_decide(monkeypatch):
    import numpy as np

    from tests.app.fake import record
    from workbench.records import Metric
    from workbench.study.next_step import _nearly_told
    from workbench.tasks.outcomes import Outcomes

    rng = np.random.default_rng(0)

    def answered(share):
        right = (rng.random(200) < share).astype(float)
        ones = np.ones(200, dtype=np.int64)
        columns = {"example": np.arange(200), "document": np.arange(200), "n_predictions": ones}
        return Outcomes({**columns, "n_correct": right, "loss": 1 - right})

    tables = {"dense": answered(0.8), "a": answered(0.8)}
    runs = [
        record(name, 2_000_000 if name == "dense" else 1_000_000, float(t["n_correct"].mean()),
               () if name == "dense" else GPTQ(4))
        for name, t in tables.items()
    ]  # fmt: skip
    bar = runs[1].measurements[0].value / runs[0].measurements[0].value - 0.05
    decision = decide(
        runs, runs[0], Metric("accuracy"), Requirements(bar), outcomes=lambda r: tables[r.id]
    )
    found = _nearly_told(decision.verdicts, None)
    assert found is not None
    assert found.run.id == "a"
    assert found.enough_examples > 200
    assert _nearly_told(decision.verdicts, found) is None, "it is not smaller than itself"
