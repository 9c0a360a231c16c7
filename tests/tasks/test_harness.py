"""Tasks of the lm-evaluation-harness: our numbers are the harness's, and a study works on them."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import yaml

from tests import harnessed
from tests.harnessed import write_task
from tests.tiny import tiny_model, tiny_tokenizer
from workbench import Requirements
from workbench.calibration.calibrate import CalibrationOptions
from workbench.errors import (
    CalibrationError,
    ConfigError,
    DataError,
    UnsupportedArchitectureError,
)
from workbench.models.load import load_model
from workbench.recipes import GPTQ, RTN, FineTuning
from workbench.runtime.measure.evaluate import Reference
from workbench.study import Study
from workbench.tasks import HarnessTask, LanguageModeling, load_task, task_from_dict

lm_eval = pytest.importorskip("lm_eval")


@pytest.fixture(autouse=True)
def _here(tmp_path_factory, monkeypatch):
    """Keep what ``datasets`` caches apart, and refuse any connection."""
    import socket

    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))

    def refuse(*_):
        raise AssertionError("a local task must not need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def model():
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    generator = torch.Generator().manual_seed(0)
    for parameter in hf_model.parameters():
        parameter.data = 0.25 * torch.randn(parameter.shape, generator=generator)
    return load_model(hf_model.eval(), tiny_tokenizer())


def make(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HarnessTask(path, **options)


def by_the_harness(model, folder, name, shots):
    """Return the harness's own results, without the names of its filters where there is one."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        HFLM(pretrained=model.hf_model, tokenizer=model.tokenizer, batch_size=3),
        tasks=[name],
        num_fewshot=shots,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )["results"][name]
    return {k.removesuffix(",none"): v for k, v in found.items() if "," in k and "stderr" not in k}


def ours(task, model):
    outcomes = task.evaluate(model)
    measured = {m.metric: m.value for m in task.measure(outcomes)}
    return {k.replace("target_perplexity", "perplexity"): v for k, v in measured.items()}


# -- the same numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("kind", ["MULTIPLE_CHOICE", "LETTERS", "INPUTS", "LOGLIKELIHOOD"])
def test_our_numbers_are_the_harness_own(tmp_path, monkeypatch, model, kind, shots):
    path = write_task(tmp_path, "own", getattr(harnessed, kind))
    monkeypatch.chdir(tmp_path)
    expected = by_the_harness(model, tmp_path, "own", shots)
    assert ours(make(path, shots=shots), model) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert len(expected) >= 1


def test_plain_text_is_read_in_the_harness_windows(tmp_path, monkeypatch, model):
    path = write_task(tmp_path, "own", harnessed.ROLLING)
    monkeypatch.chdir(tmp_path)
    expected = by_the_harness(model, tmp_path, "own", 0)
    task = make(path)
    assert set(expected) == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
    assert ours(task, model) == pytest.approx(expected, rel=1e-6)
    windows = task.examples(model)
    assert len(windows) > len(task.rows["evaluation"])  # some are longer than the model takes
    assert max(len(window.tokens) for window in windows) == 129


def test_an_empty_text_is_one_word_as_in_the_harness(tmp_path, monkeypatch, model):
    path = write_task(tmp_path, "own", harnessed.ROLLING, counts=(4, 2, 6))
    with_documents(path, lambda i, doc: {"question": "" if i == 2 else doc["question"]})
    with_documents(path, lambda i, doc: {}, doc_to_target="{{question}}")
    monkeypatch.chdir(tmp_path)
    expected = by_the_harness(model, tmp_path, "own", 0)
    assert ours(make(path), model) == pytest.approx(expected, rel=1e-6)


def test_written_answers_are_filtered_and_scored_by_the_harness(tmp_path, monkeypatch, model):
    path = write_task(tmp_path, "own", harnessed.GENERATION)
    monkeypatch.chdir(tmp_path)
    answers = make(path).evaluate(model)["answer"]
    data = tmp_path / "own-test.jsonl"
    docs = [json.loads(line) for line in data.read_text().splitlines()]
    for doc, answer in list(zip(docs, answers, strict=True))[::2]:
        doc["name"] = str(answer).upper()  # so that half of the answers are right, but for the case
    data.write_text("\n".join(map(json.dumps, docs)) + "\n")
    expected = by_the_harness(model, tmp_path, "own", 0)
    task = make(path)
    found = ours(task, model)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["exact_match,whole"] == pytest.approx(0.5, abs=0.05)
    assert {"chrf,word", "exact_match,word"} <= set(found)
    errors = {m.metric: m.stderr for m in task.measure(task.evaluate(model))}
    assert errors["exact_match,whole"] == pytest.approx(0.08, abs=0.01)
    assert errors["chrf,word"] > 0


# -- examples, parts and shots ----------------------------------------------------------------


@pytest.fixture
def choices(tmp_path):
    return write_task(tmp_path, "choices", harnessed.MULTIPLE_CHOICE)


def test_outcomes_are_those_of_a_classifier(choices, model):
    task = make(choices)
    dense = Reference(model, task)
    outcomes = task.evaluate(model, reference=dense)
    assert np.all(np.asarray(outcomes["kl"]) == 0)
    right = np.asarray(outcomes["label"]) == np.asarray(outcomes["prediction"])
    assert right.tolist() == np.asarray(outcomes["acc"]).astype(bool).tolist()
    chances = np.exp(np.asarray(outcomes["log_probabilities"], dtype=np.float64))
    assert chances.sum(1) == pytest.approx(np.ones(40), abs=1e-3)
    assert chances.max(1) == pytest.approx(np.asarray(outcomes["confidence"]), abs=1e-3)
    second = np.sort(chances)[:, -2]
    assert np.asarray(outcomes["margin"]) == pytest.approx(chances.max(1) - second, abs=1e-3)
    assert task.labels == ("A", "B", "C", "D")


def test_the_first_metric_says_which_answer_is_given(choices, model):
    outcomes = make(choices, metric="acc_norm").evaluate(model)
    right = np.asarray(outcomes["label"]) == np.asarray(outcomes["prediction"])
    assert right.tolist() == np.asarray(outcomes["acc_norm"]).astype(bool).tolist()
    assert right.tolist() != np.asarray(outcomes["acc"]).astype(bool).tolist()
    with pytest.raises(ConfigError, match="no metric 'f2'; it has acc, acc_norm"):
        make(choices, metric="f2")


def test_answers_of_one_token_cost_one_pass(tmp_path, model):
    task = make(write_task(tmp_path, "letters", harnessed.LETTERS))
    questions = task.examples(model)
    assert all(len(q.ends) == 4 for q in questions)  # " A" to " D", after the same context
    assert all(len(q.others) <= 4 for q in questions)  # and those without a context


def test_evaluated_documents_are_in_no_other_part(choices):
    task = make(choices)
    texts = {part: {row.text for row in rows} for part, rows in task.rows.items()}
    assert (len(texts["calibration"]), len(texts["validation"])) == (60, 20)
    assert not texts["evaluation"] & (texts["calibration"] | texts["validation"])


def test_without_a_test_split_the_validation_split_is_evaluated(tmp_path):
    path = write_task(tmp_path, "own", harnessed.MULTIPLE_CHOICE, counts=(50, 40, 0))
    task = make(path)
    assert {part: len(rows) for part, rows in task.rows.items()} == {
        "evaluation": 40,
        "calibration": 40,
        "validation": 10,
    }


def test_shots_are_drawn_by_seed_and_from_the_training_split(choices):
    first, again, other = (make(choices, shots=2, seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    train = {f"Q: {doc['question']}\nA:" for doc in harnessed.documents(60)}
    for part in ("evaluation", "validation", "calibration"):
        for row in first.rows[part]:
            solved = [piece.rpartition(" ")[0] for piece in row.contexts[0].split("\n\n")[:-1]]
            assert len(solved) == 2
            assert all(any(piece.startswith(q) for q in train) for piece in solved)
            assert not any(piece.startswith(row.text) for piece in solved)


def test_shots_from_the_evaluated_documents_are_a_finding(tmp_path):
    path = write_task(tmp_path, "only", harnessed.MULTIPLE_CHOICE, counts=(0, 0, 40))
    with pytest.warns(UserWarning, match="come from the evaluated split 'test' itself"):
        HarnessTask(path, shots=1)


def test_what_has_no_documents_to_calibrate_with_asks_for_them(tmp_path, model):
    path = write_task(tmp_path, "only", harnessed.MULTIPLE_CHOICE, counts=(0, 0, 40))
    with pytest.warns(UserWarning, match="give calibration="):
        task = HarnessTask(path)
    assert len(task.evaluate(model)) == 40
    with pytest.raises(CalibrationError, match=r'calibration="texts.txt"'):
        task.calibration_windows(model, sequence_length=32, seed=0)
    with pytest.raises(DataError, match="no validation documents"):
        task.evaluate(model, "validation")
    texts = LanguageModeling([f"A text about {i}. " * 30 for i in range(20)], name="texts")
    for given in (["Some words. " * 50, "Other words. " * 50], texts):
        windows = make(path, calibration=given).calibration_windows(
            model, sequence_length=32, seed=0
        )
        assert max(map(len, windows)) == 32
    other = make(write_task(tmp_path, "more", harnessed.MULTIPLE_CHOICE))
    borrowed = make(path, calibration=other, validation=other)
    assert borrowed.rows["calibration"] == other.rows["calibration"]
    assert {"label", "acc"} <= set(borrowed.evaluate(model, "validation").columns)


@pytest.mark.parametrize("architecture", ["T5", "BertModel"])
def test_other_models_than_decoders_are_refused(choices, architecture):
    hf_model = tiny_model(architecture)
    with pytest.raises(UnsupportedArchitectureError, match=r"decoder-only|causal"):
        make(choices).bind(load_model(hf_model.eval(), tiny_tokenizer()))


def test_an_evaluation_can_be_limited(choices, model):
    task = make(choices, max_evaluation_examples=12)
    assert len(task.evaluate(model)) == 12
    assert len(make(choices).evaluate(model, limit=5)) == 5


# -- odd documents ----------------------------------------------------------------------------


def with_documents(path, change, split="test", **keys):
    """Write one split of a task file's data again, and further keys into the file."""
    data = path.with_name(f"{path.stem}-{split}.jsonl")
    docs = [json.loads(line) for line in data.read_text().splitlines()]
    for number, doc in enumerate(docs):
        doc.update(change(number, doc))
    data.write_text("\n".join(map(json.dumps, docs)) + "\n")
    if keys:
        config = yaml.safe_load(path.read_text()) | keys
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def test_what_no_model_can_choose_among_is_refused(choices):
    with_documents(choices, lambda i, doc: {"choices": [] if i == 2 else doc["choices"]})
    with pytest.raises(DataError, match=r"Document 2 .* no answers to choose from"):
        make(choices)


def test_a_list_that_is_one_text_is_no_list_of_answers(tmp_path):
    """As in a table; the harness takes its letters for answers."""
    path = write_task(tmp_path, "own", harnessed.MULTIPLE_CHOICE)
    for split in ("train", "validation", "test"):
        with_documents(path, lambda i, doc: {"choices": str(doc["choices"])}, split)
    with pytest.raises(DataError, match=r'one text, "\[\'red\'.*"\{\{column\}\}"'):
        make(path)
    with_documents(path, lambda i, doc: {}, doc_to_choice="{{choices}}")
    assert make(path).rows["evaluation"][0].choices == harnessed.COLOURS


@pytest.mark.parametrize("missing", [None, -1, 9])
def test_documents_without_a_right_answer_are_told_and_teach_nothing(choices, model, missing):
    for split in ("train", "test"):
        with_documents(
            choices, lambda i, doc: {"answer": missing if i == 2 else doc["answer"]}, split
        )
    with pytest.warns(UserWarning, match="1 of 40 evaluated documents have no right answer"):
        task = HarnessTask(choices)
    assert len(task.rows["calibration"]) == 59
    outcomes = task.evaluate(model)
    assert outcomes["acc"][2] == 0
    assert outcomes["label"][2] == 4


def test_an_answer_that_does_not_fit_is_not_scored_in_part(choices, model):
    change = {"choices": ["long " * 100, "b", "c", "d"]}
    with_documents(choices, lambda i, doc: change if i == 2 else {})
    with pytest.raises(DataError, match=r"501 tokens .* only 128 are read at once"):
        make(choices).evaluate(model)


def test_nothing_is_written_after_nothing(tmp_path, model):
    path = write_task(tmp_path, "own", harnessed.GENERATION, counts=(4, 2, 6))
    with_documents(path, lambda i, doc: {"question": ""}, doc_to_text="{{question}}")
    with pytest.raises(DataError, match="empty prompt"):
        make(path).evaluate(model)


def test_labels_stay_the_answers_beside_a_wider_part(tmp_path):
    narrow = {**harnessed.MULTIPLE_CHOICE, "doc_to_choice": ["no", "yes"], "doc_to_target": 1}
    wide = make(write_task(tmp_path, "wide", harnessed.MULTIPLE_CHOICE))
    task = make(write_task(tmp_path, "narrow", narrow), calibration=wide)
    assert task.labels == ("no", "yes", "C", "D")


# -- studies ----------------------------------------------------------------------------------


def test_a_snapshot_needs_neither_the_files_nor_the_harness(tmp_path, model, monkeypatch):
    path = write_task(tmp_path / "files", "choices", harnessed.MULTIPLE_CHOICE)
    task = make(path, shots=1)
    saved = json.loads(json.dumps(task.save(tmp_path)))
    assert saved["harness"]["version"] == lm_eval.__version__
    assert saved["harness"]["config"]["doc_to_text"] == "Q: {{question}}\nA:"
    shutil.rmtree(tmp_path / "files")
    before = task.evaluate(model)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    again = task_from_dict(saved, tmp_path)
    assert again.fingerprint == task.fingerprint
    after = again.evaluate(model)
    assert {k: v.tolist() for k, v in after.columns.items() if k != "kl"} == {
        k: v.tolist() for k, v in before.columns.items() if k != "kl"
    }


def test_answers_are_scored_from_the_snapshot_too(tmp_path, model, monkeypatch):
    path = write_task(tmp_path / "files", "own", harnessed.GENERATION, counts=(8, 4, 6))
    task = make(path)
    saved = json.loads(json.dumps(task.save(tmp_path)))
    shutil.rmtree(tmp_path / "files")
    again = task_from_dict(saved, tmp_path)
    assert ours(again, model) == ours(task, model)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    without = task_from_dict(saved, tmp_path)
    with pytest.raises(ConfigError, match=r'pip install "compression-workbench\[lm-eval\]"'):
        without.evaluate(model)


def test_other_data_have_another_fingerprint(tmp_path):
    path = write_task(tmp_path, "choices", harnessed.MULTIPLE_CHOICE)
    first = make(path).fingerprint
    data = tmp_path / "choices-train.jsonl"
    data.write_text(data.read_text().replace("number 3?", "number three?"))
    assert make(path).fingerprint != first


def test_a_task_moved_elsewhere_is_the_same(tmp_path):
    one = make(write_task(tmp_path / "a", "own", harnessed.GENERATION))
    two = make(write_task(tmp_path / "b", "own", harnessed.GENERATION))
    assert one.fingerprint == two.fingerprint


@pytest.fixture
def study(tmp_path, model):
    task = make(write_task(tmp_path, "choices", harnessed.MULTIPLE_CHOICE), shots=1)
    options = CalibrationOptions(solve_tokens=1024, judge_tokens=512, sequence_length=64)
    return Study(model, task, tmp_path / "study", calibration=options)


def test_calibrate_sweep_choose_and_trust(study):
    study.sweep([RTN(4, group_size=8), GPTQ(4, group_size=8), GPTQ(2, group_size=8)])
    table = study.table()
    assert {"acc", "acc_norm", "kl"} <= set(table.columns)
    assert table["acc_stderr"].notna().all()
    decision = study.choose(Requirements(0.5))
    assert [v.method for v in decision.verdicts] == ["paired"] * 3
    coarse = study.runs[-1]
    assert study.baseline().record.measurement("acc").n == 40
    assert coarse.record.measurement("kl").value > 0
    trust = study.trust(coarse)
    assert set(trust.flipped["dense"]) <= {"A", "B", "C", "D"}
    assert len(trust.flipped) == trust.flips.rate * 40
    cascade = study.cascade([coarse, study.baseline()], signal="margin", cost="size")
    assert 0 <= cascade.kept <= 1
    with pytest.raises(ConfigError, match="prompts of 'choices' are the harness's"):
        cascade.router()
    with pytest.raises(ConfigError, match="prompts of 'choices' are the harness's"):
        study.consistency(coarse)
    assert sum(map(sum, study.confusion(coarse).counts)) == 40


def test_plain_texts_as_validation_documents_set_no_trust(tmp_path, model):
    path = write_task(tmp_path, "only", harnessed.MULTIPLE_CHOICE, counts=(0, 0, 12))
    task = make(path, validation=["Some words. " * 50, "Other words. " * 50])
    study = Study(model, task, tmp_path / "study")
    run = study.run(RTN(2, group_size=8))
    with pytest.raises(ConfigError, match="'only' was given are not scored as the evaluated"):
        study.trust(run)
    with pytest.raises(ConfigError, match="validation or training split of its own"):
        study.cascade([run, study.baseline()], signal="margin", cost="size")
    other = make(write_task(tmp_path, "more", harnessed.MULTIPLE_CHOICE))
    scored = Study(model, make(path, validation=other), tmp_path / "scored")
    assert scored.trust(scored.run(RTN(2, group_size=8))).flips.rate >= 0


def test_right_answers_are_trained_on(study):
    before = study.run([]).record.measurement("acc").value
    run = study.run(FineTuning(epochs=3, learning_rate=0.01, batch_size=16))
    assert run.state.value == "done", run.record.error
    assert run.record.measurement("kl").value > 0
    assert run.record.measurement("acc").value >= before - 0.2


def test_a_reopened_study_goes_on_without_the_task_file(study, tmp_path):
    first = study.run(RTN(4, group_size=8))
    study.close()
    for file in tmp_path.glob("choices*"):
        file.unlink()
    again = Study.open(tmp_path / "study")
    assert again.task.recorded["version"] == lm_eval.__version__
    assert again.run(RTN(4, group_size=8)).id == first.id
    assert again.run(RTN(3, group_size=8)).state.value == "done"


def test_a_name_or_a_path_is_a_task(choices):
    assert load_task(choices).name == "choices"
    assert load_task(str(choices)).fingerprint == make(choices).fingerprint


@pytest.mark.slow
def test_the_bundled_model_from_calibration_to_choice(tmp_path):
    path = write_task(tmp_path, "choices", harnessed.MULTIPLE_CHOICE, counts=(200, 40, 120))
    study = Study("demo", make(path, shots=1), tmp_path / "study")
    guess = study.predict(GPTQ(3, group_size=64))
    assert guess.metric == "acc"
    assert guess.interval[0] <= guess.value <= guess.interval[1]
    runs = study.sweep([RTN(4, group_size=64), GPTQ(4, group_size=64), GPTQ(2, group_size=64)])
    assert all(run.state.value == "done" for run in runs)
    kl = [run.record.measurement("kl").value for run in runs]
    assert kl[1] < kl[0] < kl[2]  # 4 bits by GPTQ, by rounding, and 2 bits
    low, high = study.predict(GPTQ(2, group_size=64)).kl_interval
    assert low <= kl[2] <= high or kl[2] > 0.3
    decision = study.choose(Requirements(0.8), metric="acc_norm")
    assert {v.method for v in decision.verdicts} == {"paired"}
