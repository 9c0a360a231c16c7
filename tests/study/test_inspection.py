"""Tests of what a study shows about single runs, on a real one of a toy model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tests.toy import toy_study
from workbench.app.history import History
from workbench.app.inspector_client import Inspector
from workbench.errors import ConfigError
from workbench.recipes import GPTQ, RTN
from workbench.records import RunState
from workbench.study import Study, inspector
from workbench.views import FlipsView, LayerErrors, WeightHistogram


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = toy_study(tmp_path_factory.mktemp("viewing") / "study")
    study.sweep([RTN(4, group_size=32), RTN(2, group_size=32)])
    study.tabulate()
    yield study
    study.close()


def ids(study):
    return [run.id for run in study.runs if run.state is RunState.DONE]


def test_fewer_bits_have_larger_errors_in_every_layer(study):
    dense, four, two = ids(study)
    table = study.layer_errors([dense, four, two]).table
    assert (table.iloc[:, 0] == 0).all()
    assert (table.iloc[:, 2] > table.iloc[:, 1]).all()
    assert (table.iloc[:, 1] > 0).all()
    assert study.layer_errors([two]).plot().data[0].z.shape == (len(table), 1)


def test_quantized_weights_lie_on_few_values(study):
    dense, _, two = ids(study)
    layer = study.layer_errors([two]).layers[0]
    view = study.weight_histogram(two, layer)
    assert sum(view.before) == sum(view.after) > 0
    assert sum(n > 0 for n in view.after) < sum(n > 0 for n in view.before)
    assert len(view.plot().data) == 2
    same = study.weight_histogram(dense, layer)
    assert same.before == same.after
    with pytest.raises(ConfigError):
        study.weight_histogram(two, "no.such.layer")


def test_flips_have_the_texts_of_their_windows(study):
    dense, _, two = ids(study)
    view = study.flips(dense, two)
    assert view.n_examples == len(view.rows) > 3
    assert any("fox" in row.text or "dog" in row.text for row in view.rows)
    assert {row.text for row in study.flips(dense, two, texts=False).rows} == {""}


def test_every_model_continues_the_same_prompt(study):
    dense, _, two = ids(study)
    texts = study.side_by_side("the quick", [dense, two], max_new_tokens=5)
    assert set(texts) == {dense, two}
    with pytest.raises(ConfigError, match="a few words to continue"):
        study.side_by_side("  ", [dense])


def test_the_tree_and_the_differences_are_of_all_runs(study):
    view = study.lineage()
    assert {node.run_id for node in view.nodes} == set(ids(study))
    assert len(view.plot().data) == 3
    table = study.differences(ids(study))
    assert list(table.columns) == [0, 1, 2, "differs"]
    assert table.index[0] == "examples, against the first run", "paired differences come first"
    better, total, worse = map(int, re.findall(r"\d+", table.iloc[0, 2]))
    n = len(study._workspace.store.outcomes(ids(study)[0]))
    assert (total, better >= 0, better + worse <= n) == (n, True, True)
    name = f"{study.metric.name.replace('_', ' ')}, minus the first run's"
    value, low, high = map(float, re.findall(r"[-+][\d.e+-]+", table.loc[name, 2]))
    assert low < value < high
    one, two = (study.table().loc[run, study.metric.name] for run in ids(study)[::2])
    assert value == pytest.approx(two - one, rel=0.01)


def test_predictions_that_are_ready_are_given_at_once_and_learn_from_runs(study, tmp_path):
    assert not study.lacks_predictions()
    found = study.predict_now(RTN(3, group_size=32))
    assert found.kl == study.predict(RTN(3, group_size=32)).kl
    kept = study._workspace.ready_forecasts["tiny"][1]
    assert study.predict_now(RTN(5)).size_bytes > found.size_bytes
    assert study._workspace.ready_forecasts["tiny"][1] is kept
    study.run(GPTQ(2, group_size=32))
    assert study.predict_now(RTN(3, group_size=32)).n_runs == found.n_runs + 1
    study.runs[-1].delete()
    with toy_study(tmp_path / "fresh") as fresh:
        assert fresh.predict_now(RTN(3)) is None  # and nothing was computed for it
        assert fresh.runs == ()
        assert fresh.lacks_predictions()


def test_what_is_recorded_of_models_and_task_is_described(study):
    about = study.describe()
    assert about["task"] == {"name": "toy", "kind": "language_modeling"}
    (model,) = about["models"].values()
    assert model["n_parameters"] > 0
    assert model["kind"] == "live"


def test_the_other_process_answers_and_refuses_in_words(study, tmp_path):
    dense, _, two = ids(study)
    layer = study.layer_errors([two]).layers[0]
    other, done = Inspector(study.path), threading.Event()
    answers, errors = [], []

    def finish(text):
        errors.append(text)
        done.set()

    other.ask("layers", answers.append, errors.append, runs=[two])
    other.ask("histogram", answers.append, errors.append, run=two, layer=layer)
    other.ask("flips", answers.append, errors.append, before=dense, after=two)
    other.ask("generate", answers.append, errors.append, prompt="a", runs=[two], tokens=3)
    other.ask("confusion", answers.append, finish, run=two)
    assert done.wait(120)
    assert LayerErrors.from_dict(answers[0]) == LayerErrors(
        study.layer_errors([two]).layers,
        study.layer_errors([two]).runs,
        study.layer_errors([two]).errors,
    )
    assert sum(WeightHistogram.from_dict(answers[1]).after) > 0
    assert FlipsView.from_dict(answers[2]) == study.flips(dense, two)
    assert set(answers[3]) == {two}
    assert "needs a classification task" in errors[0]
    assert not other.is_busy
    # an interrupt is meant for the kernel's cells, and is sent to its whole process group
    done.clear()
    os.kill(other._process.pid, signal.SIGINT)
    path = tmp_path / "report.html"
    other.ask(
        "report",
        lambda answer: (answers.append(answer), done.set()),
        finish,
        path=str(path),
        requirements={"accuracy": 0.5},
    )
    assert done.wait(60)
    assert answers[-1] == str(path)
    assert "50 %" in path.read_text(encoding="utf-8")
    other.stop()


def test_a_process_that_died_is_told_and_started_again(study):
    other, told = Inspector(study.path), threading.Event()
    errors = []
    other.ask("layers", lambda a: None, lambda e: (errors.append(e), told.set()), runs=ids(study))
    other._process.kill()
    assert told.wait(30)
    assert "Ask again" in errors[0]
    other.stop()


def test_questions_about_exports_are_those_of_a_run(study, tmp_path):
    _, four, _ = ids(study)
    offers = inspector.offers(study, lambda p: None, run=four)
    assert any(offer["format"] == "hf" and not offer["refusal"] for offer in offers)
    told = []
    path = tmp_path / "exported"
    done = inspector.export(study, told.append, run=four, path=str(path), format="hf")
    assert json.loads(json.dumps(done))["bytes_on_disk"] > 0
    assert path.is_dir()


@pytest.mark.slow
def test_the_script_of_a_session_has_equal_metrics(study, tmp_path):
    from tests.toy import toy_model, toy_task
    from workbench.models.load import save_model

    save_model(toy_model(), tmp_path / "model")
    documents = [row.text for row in toy_task().documents["evaluation"]]
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents * 8))
    setup = (
        f"model = wb.load_model({str(tmp_path / 'model')!r})\n"
        f"task = wb.LanguageModeling({str(tmp_path / 'corpus.txt')!r}, sequence_length=32,"
        " max_evaluation_tokens=400)"
    )
    names: dict[str, object] = {}
    exec(f"import workbench as wb\n{setup}", names)
    first = Study(names["model"], names["task"], path=tmp_path / "first")
    first.run(RTN(3, group_size=32))
    history = History()
    history.setup = setup
    script = tmp_path / "session.py"
    script.write_text(history.code(first, str(tmp_path / "second")))
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, capture_output=True)
    second = Study.open(tmp_path / "second")
    measured = [
        [(r.label, r.size_bytes, [(m.metric, m.value) for m in r.measurements]) for r in s.records]
        for s in (first, second)
    ]
    assert measured[0] == measured[1]
    assert len(measured[0]) == 2
