from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.classes import decoder
from workbench.errors import ConfigError, DataError
from workbench.recipes import RTN, FineTuning
from workbench.runtime.measure.evaluate import Reference
from workbench.study import Study
from workbench.tasks import PromptAnswers, task_from_dict
from workbench.training.losses import Labels

ROWS = {
    "prompt": [f"{['fox', 'dog', 'cow'][i % 3]} {i}" for i in range(60)],
    "answer": [["no", "yes", "ok"][i % 3] for i in range(60)],
}


def pairs(**options: Any) -> PromptAnswers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PromptAnswers(ROWS, **({"sequence_length": 24} | options))


def test_an_example_is_prompt_answer_and_end():
    task, model = pairs(), decoder()
    for example in task.examples(model, "validation"):
        row = task.rows["validation"][example.index]
        end = model.tokenizer.eos_token_id
        given, answer = example.tokens[: example.n_given], example.tokens[example.n_given :]
        assert model.tokenizer.decode(given[1:]) == row.text + "\n"
        assert (model.tokenizer.decode(answer[:-1]), answer[-1]) == (row.label, end)


def test_a_long_prompt_loses_its_beginning_and_never_the_answer():
    task, model = pairs(sequence_length=8), decoder()
    for example in task.examples(model, "evaluation"):
        assert len(example.tokens) <= 8
        text = model.tokenizer.decode(example.tokens[example.n_given :])
        assert text.startswith(task.rows["evaluation"][example.index].label)


def test_only_answers_count():
    task, model = pairs(), decoder()
    batch = task.batches(model, "calibration")[0]
    targets = task.targets(batch)
    answers = [t for e in batch.examples for t in e.tokens[e.n_given :]]
    assert targets.tolist() == answers
    outcomes = task.evaluate(model, "calibration")
    total = float(outcomes["loss"].sum())
    losses = [float(Labels(task).loss(model, b)) for b in task.batches(model, "calibration")]
    assert sum(losses) == pytest.approx(total, rel=1e-4)
    before = batch.input_ids.clone()
    for row, example in enumerate(batch.examples):
        before[row, 1 : example.n_given] = 9  # other prompts, other logits, but equal targets
    assert torch.equal(task.targets(batch), targets)


def test_exact_match_is_what_greedy_generation_gives():
    task, model = pairs(), decoder()
    study_model = _taught(task, model)
    outcomes = task.evaluate(study_model)
    found = {}
    for example in task.examples(study_model):
        given = torch.tensor([example.tokens[: example.n_given]])
        answer = example.tokens[example.n_given :]
        output = study_model.hf_model.generate(
            input_ids=given, max_new_tokens=len(answer), do_sample=False, pad_token_id=0
        )
        found[example.index] = output[0, given.shape[1] :].tolist() == answer
    exact = dict(zip(outcomes["example"].tolist(), outcomes["exact"].tolist(), strict=True))
    assert exact == {index: float(equal) for index, equal in found.items()}


def _taught(task: PromptAnswers, model: Any) -> Any:
    from workbench.training import Settings, train, trainable_of

    settings = Settings(epochs=25, learning_rate=2e-2, batch_size=8, patience=None, seed=0)
    return train(trainable_of(model, "full"), task, Labels(task), settings).model


def test_a_study_fine_tunes_on_pairs_and_quantizes_what_came_of_it(tmp_path: Path):
    study = Study(decoder(), pairs(), tmp_path / "study")
    run = study.run([FineTuning(epochs=4, learning_rate=1e-2), RTN(8, group_size=8)])
    dense, tuned = (
        r.record.measurement("answer_perplexity").value for r in (study.baseline(), run)
    )
    assert tuned < dense / 2
    assert 0 <= run.record.measurement("exact_match").value <= 1
    assert study.baseline().record.measurement("kl").value == 0


def test_the_dense_models_own_answers_are_the_reference():
    task, model = pairs(), decoder()
    reference = Reference(model, task)
    task.evaluate(model, reference=reference)
    again = task.evaluate(model.copy(), reference=reference)
    assert abs(again["kl"]).max() < 1e-3


def test_it_comes_back_from_its_snapshot(tmp_path: Path):
    task = pairs()
    saved = task.save(tmp_path)
    assert task_from_dict(saved, tmp_path).fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: PromptAnswers({"prompt": ["a"], "answer": ["b"]}), DataError, "too few"),
        (lambda: PromptAnswers(ROWS, prompt="question"), DataError, "no column 'question'"),
        (lambda: PromptAnswers(ROWS, sequence_length=2), ConfigError, "from 4 to"),
        (lambda: PromptAnswers(ROWS, max_evaluation_examples=0), ConfigError, "at least 1"),
        (lambda: PromptAnswers(evaluation=ROWS), DataError, "every part by name"),
    ],
)
def test_what_is_wrong_is_said(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_without_a_validation_part_some_of_the_calibration_part_is_taken():
    given = {"prompt": ["a", "b"], "answer": ["1", "2"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = PromptAnswers(calibration=ROWS, evaluation=given)
    counts = {part: len(rows) for part, rows in task.rows.items()}
    assert counts["evaluation"] == 2
    assert counts["calibration"] + counts["validation"] == 60
    assert counts["calibration"] > counts["validation"] > 0
