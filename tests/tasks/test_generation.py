"""Tests of extraction and summarization: prompts, targets, scores, and a study end to end."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench import Requirements
from workbench.calibration.calibrate import CalibrationOptions
from workbench.errors import ConfigError, DataError, UnsupportedArchitectureError
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.recipes import GPTQ, RTN, FineTuning
from workbench.records import Metric
from workbench.study import Study
from workbench.tasks import Extraction, Summarization, task_from_dict
from workbench.tasks.base import batch_of
from workbench.tasks.generation import answer_in
from workbench.tasks.metrics import estimate
from workbench.tasks.outcomes import Outcomes

NAMES = ("Ada", "Grace", "Alan", "Edsger", "Barbara")


def table(n=60):
    rng = np.random.default_rng(0)
    who = rng.choice(NAMES, n)
    sums = rng.integers(1, 99, n)
    return {
        "text": [
            f"{w} owes {s} to row {i}." for i, (w, s) in enumerate(zip(who, sums, strict=True))
        ],
        "name": list(who),
        "amount": [str(s) for s in sums],
    }


def extraction(**options):
    options = {"fields": "name", "shots": 1, "sequence_length": 160, "max_new_tokens": 8} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Extraction(table(), **options)


def decoder(architecture="LlamaForCausalLM"):
    hf_model = tiny_model(architecture)
    hf_model.config.max_position_embeddings = 512
    return load_model(hf_model.eval(), tiny_tokenizer())


def test_a_prompt_has_solved_examples_of_the_calibration_part_and_ends_with_the_text():
    task = extraction(shots=2)
    text = task.rows["evaluation"][0].text
    prompt = task.prompt(text)
    assert prompt.endswith(f"Text: {text}\nAnswer:")
    solved = prompt.split("\n\n")[:-1]
    known = {f"Text: {r.text}\nAnswer: {r.target}" for r in task.rows["calibration"]}
    assert len(solved) == 2
    assert set(solved) <= known
    assert extraction(shots=0).prompt("x") == "Text: x\nAnswer:"


def test_tokens_are_the_prompt_then_the_target_and_fit():
    task, model = extraction(), decoder()
    tokenizer = model.tokenizer
    for example in task.examples(model):
        row = task.rows["evaluation"][example.index]
        prompt = tokenizer.decode(example.tokens[1 : example.n_given])
        assert prompt == task.prompt(row.text)
        assert tokenizer.decode(example.tokens[example.n_given :]).strip() in f"{row.target}\n"
        assert len(example.tokens) <= 160
    cut = extraction(sequence_length=80)
    assert all(len(e.tokens) <= 80 for e in cut.examples(model))
    assert {e.n_given for e in cut.examples(model)} == {72}


def test_only_the_target_is_scored():
    task, model = extraction(), decoder()
    found = task.evaluate(model)
    one = task.examples(model)[0]
    logs = task.logits(model, batch_of(model, "evaluation", [one]))[0].float().log_softmax(-1)
    places = range(one.n_given, len(one.tokens))
    loss = -sum(float(logs[i - 1, one.tokens[i]].detach()) for i in places)
    assert found["loss"][0] == pytest.approx(loss, rel=1e-4)
    assert found["n_predictions"][0] == len(places)


def test_answers_are_those_of_one_text_alone_whatever_the_batch():
    task, model = extraction(), decoder()
    together = task.answers(model, batch_size=8)
    alone = task.answers(model, batch_size=1)
    assert len(together) == len(task.rows["evaluation"])
    assert np.mean([a == b for a, b in zip(together, alone, strict=True)]) > 0.9
    row = task.rows["evaluation"][0]
    said = model.generate(model.tokenizer.bos_token + task.prompt(row.text), max_new_tokens=8)
    assert alone[0] == answer_in(said, may_be_empty=True)


def test_a_line_that_ends_at_once_is_an_empty_answer():
    assert answer_in(" Ada \n\nText: more", may_be_empty=True) == "Ada"
    assert answer_in("\n\nText: the model's own next example", may_be_empty=True) == ""
    assert answer_in("\n\nAda\nand more", may_be_empty=False) == "Ada"


def test_an_older_study_keeps_the_words_that_it_was_scored_by(tmp_path):
    task = extraction()
    saved = task.save(tmp_path)
    assert saved["options"]["words"] == 2
    assert task.scores("-12", "12")["exact_match"] == 0.0
    options = {name: value for name, value in task.options.items() if name != "words"}
    old = type(task).__new__(type(task))
    old._set(task.rows, task.name, options, task._metrics())
    described = old.save(tmp_path)
    assert old.fingerprint != task.fingerprint  # so a study of it takes no new numbers in
    described.pop("reading")  # which earlier versions did not write
    back = task_from_dict(described, tmp_path)
    assert back.fingerprint == old.fingerprint
    assert back.scores("-12", "12")["exact_match"] == 1.0


def test_scores_of_one_field_and_of_several():
    one = extraction()
    assert one.scores("ada!", "Ada") == {"exact_match": 1.0, "f1": 1.0}
    assert one.scores("Ada Lovelace", "Ada") == {"exact_match": 0.0, "f1": pytest.approx(2 / 3)}
    several = extraction(fields=("name", "amount"))
    target = several.rows["evaluation"][0].target
    assert target.startswith("name: ")
    assert " | amount: " in target
    assert several.scores(target, target)["exact_match"] == 1.0
    assert several.scores("amount: 5 | name: Ada", "name: Ada | amount: 5")["exact_match"] == 1.0
    assert several.scores("name: Ada | amount: 6", "name: Ada | amount: 5") == {
        "exact_match": 0.0,
        "f1": 0.5,
    }
    assert several.scores("name: Ada", "name: Ada | amount: 5")["f1"] == 0.5  # one of two is there
    assert one.scores("Ada", "Ada")["f1"] == one.scores("a | b", "a / b")["f1"] == 1.0
    assert several.scores("nonsense", "name: Ada | amount: 5")["f1"] == 0.0
    assert several.scores("name: Ada", "name: Ada | amount: 5")["f1"] == 0.5
    assert one.scores("Ada | 5", "Ada")["f1"] == pytest.approx(2 / 3)


def test_a_value_that_is_missing_is_an_empty_one():
    rows = table(20)
    rows["amount"][0] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Extraction(rows, fields="amount", shots=0)
    targets = [r.target for part in task.rows.values() for r in part]
    assert targets.count("") == 1
    assert task.scores("", "") == {"exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize(("missing", "answer"), [(True, ""), (False, "17")])
def test_an_empty_line_is_an_answer_where_a_value_may_be_missing(missing, answer):
    rows = table(20)
    if missing:
        rows["amount"][0] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Extraction(rows, fields="amount", shots=0)
    model = decoder()
    said = torch.tensor([model.tokenizer("\n17\n", add_special_tokens=False)["input_ids"]])
    model.hf_model.generate = lambda input_ids, **_: torch.cat(
        [input_ids, said.expand(len(input_ids), -1)], 1
    )
    assert set(task.answers(model)) == {answer}


def test_summaries_are_scored_by_rouge_and_length():
    rows = {
        "text": [f"A long text number {i}\nin two lines." for i in range(40)],
        "summary": [f"text {i}" for i in range(40)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Summarization(rows, shots=0, sequence_length=96, max_new_tokens=8)
    found = task.scores("text 7 again", "text 7")
    assert found["rouge_1"] == pytest.approx(0.8)
    assert found["length_ratio"] == 1.5
    assert [m.name for m in task.metrics][-1] == "kl"
    outcomes = task.evaluate(decoder())
    assert {"rouge_l", "rouge_1", "rouge_2", "length_ratio", "answer"} <= set(outcomes.columns)
    # Too long and too short are equally wrong, and do not make up for each other.
    told = Outcomes({**outcomes.columns, "length_ratio": np.resize([0.5, 1.5], len(outcomes))})
    assert task.estimate("length_error", told).value == 0.5
    before = estimate(Metric("length_ratio"), told)  # a metric in studies of earlier versions
    assert before.value == pytest.approx(np.mean(told["length_ratio"]))
    assert not task.metric("length_error").higher_is_better


@pytest.mark.parametrize(
    "step", [RTN(2, group_size=8), GPTQ(4, group_size=8), FineTuning(epochs=1, learning_rate=1e-3)]
)
def test_a_study_compresses_judges_and_decides(tmp_path, step):
    few = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=64)
    with Study(decoder(), extraction(), tmp_path / "study", calibration=few) as study:
        run = study.run(step)
        assert {m.metric for m in run.measurements} == {"exact_match", "f1", "kl"}
        assert run.outcomes()["answer"].dtype.kind == "U"
        assert run.record.measurement("kl").value > 0
        assert study.baseline().record.measurement("kl").value == 0
        decision = study.choose(Requirements(-1.0, relative=False), metric="f1")
        assert decision.nearest_run == run
    again = Study.open(tmp_path / "study")
    assert again.task.fingerprint == extraction().fingerprint
    assert len(again.table()) == 2


def test_it_comes_back_from_what_was_saved(tmp_path):
    task = extraction(fields=("name", "amount"))
    again = task_from_dict(task.save(tmp_path), tmp_path)
    assert type(again) is Extraction
    assert again.rows == task.rows
    assert again.prompt("x") == task.prompt("x")


def test_writing_reports_progress_and_stops():
    seen = []
    extraction().answers(decoder(), monitor=Monitor(lambda p: seen.append((p.stage, p.done))))
    assert seen
    assert {stage for stage, _ in seen} == {"generate"}


def test_refusals():
    with pytest.raises(ConfigError, match=r"no \{text\}"):
        extraction(template="Answer:")
    with pytest.raises(ConfigError, match="no room"):
        extraction(max_new_tokens=160)
    with pytest.raises(ConfigError, match="shots"):
        extraction(shots=33)
    with pytest.raises(ConfigError, match="fewer shots"):
        extraction(shots=5, sequence_length=40).examples(decoder())
    with pytest.raises(DataError, match="too few"):
        Extraction({"text": ["a", "b"], "answer": ["1", "2"]})
    with pytest.raises(DataError, match="no column 'amounts'"):
        Extraction(table(), fields="amounts")
    with pytest.raises(UnsupportedArchitectureError, match="TextClassification"):
        extraction().bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
