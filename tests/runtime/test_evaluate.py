"""Evaluation: the KL to the dense model, what is kept of it, progress and cancelling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import CancelledError
from workbench.models.load import LoadedModel, load_model
from workbench.progress import Monitor, Progress
from workbench.runtime.measure.evaluate import Reference, evaluate
from workbench.tasks import LanguageModeling, TextClassification, scoring
from workbench.tasks.base import batch_of
from workbench.tasks.scoring import score


def disturbed(model: LoadedModel, amount: float) -> LoadedModel:
    other = model.copy()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.hf_model.parameters():
            parameter.add_(torch.randn_like(parameter) * amount)
    return other


@pytest.fixture(scope="module")
def task() -> LanguageModeling:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["fox", "dog", "quick"], 60)) + f" {i}" for i in range(30)]
    return LanguageModeling(texts, sequence_length=32, max_evaluation_tokens=None)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    hf_model = tiny_model()
    with torch.no_grad():  # sharpen: a random model predicts almost uniformly
        hf_model.get_input_embeddings().weight.mul_(40)
    return load_model(hf_model, tiny_tokenizer())


def test_kl_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    scores = score(q.log() + 3, torch.tensor([2]), p.log())
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    assert float(scores.kl) == pytest.approx(expected, rel=1e-5)
    assert float(scores.loss) == pytest.approx(np.log(2), rel=1e-5)
    assert int(scores.prediction) == 2
    assert float(scores.confidence) == pytest.approx(0.5)


def test_impossible_classes_and_broken_logits() -> None:
    p = torch.tensor([[0.0, -torch.inf]])
    scores = score(torch.tensor([[1.0, -torch.inf]]), torch.tensor([0]), p)
    assert float(scores.kl) == 0
    assert float(score(torch.zeros(1, 2), torch.tensor([-1])).loss) == np.inf


def test_rows_are_scored_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = torch.randn(50, 7), torch.arange(50) % 7
    whole = score(logits, targets, torch.randn(50, 7).log_softmax(-1))
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 4 * 7 * 8)
    torch.manual_seed(0)
    pieces = score(logits, targets)
    assert torch.allclose(whole.loss, pieces.loss)
    assert torch.equal(whole.prediction, pieces.prediction)


def test_the_dense_model_is_no_distance_from_itself(
    task: LanguageModeling, model: LoadedModel
) -> None:
    reference = Reference(model, task)
    own = evaluate(model, task, reference=reference)
    assert own.outcomes["kl"].tolist() == [0.0] * len(own.outcomes)
    predictions = int(own.outcomes["n_predictions"].astype(int).sum())
    assert reference.stored_bytes == 2 * 260 * predictions  # kept on the way
    copied = evaluate(model.copy(), task, reference=reference)
    kl = {m.metric: m.value for m in copied.measurements}["kl"]
    assert kl < 1e-6


def test_keeping_float16_changes_kl_by_less_than_a_ten_thousandth(
    task: LanguageModeling, model: LoadedModel
) -> None:
    for amount in (0.003, 0.03, 0.3):
        other = disturbed(model, amount)
        kept = evaluate(other, task, reference=Reference(model, task))
        again = evaluate(other, task, reference=Reference(model, task, byte_budget=0))
        a, b = (e.measurements[-1] for e in (kept, again))
        assert a.metric == b.metric == "kl"
        assert a.value > 0
        assert a.value == pytest.approx(b.value, abs=1e-4)


def test_kl_is_that_of_the_definition(task: LanguageModeling, model: LoadedModel) -> None:
    other = disturbed(model, 0.03)
    outcomes = evaluate(other, task, reference=Reference(model, task, byte_budget=0)).outcomes
    example = task.examples(model)[3]
    ids = torch.tensor([example.tokens])
    with torch.no_grad():
        log_p = model.hf_model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        log_q = other.hf_model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    expected = float((log_p.exp() * (log_p - log_q)).sum())
    assert float(outcomes["kl"][3]) == pytest.approx(expected, rel=1e-3)


def test_a_budget_is_kept_and_the_rest_computed_again(
    task: LanguageModeling, model: LoadedModel
) -> None:
    budget = 20_000
    reference = Reference(model, task, byte_budget=budget)
    other = disturbed(model, 0.03)
    first = evaluate(other, task, reference=reference).measurements[-1]
    assert 0 < reference.stored_bytes <= budget
    second = evaluate(other, task, reference=reference).measurements[-1]
    assert first.value == pytest.approx(second.value, abs=1e-4)


def test_parts_are_kept_apart(task: LanguageModeling, model: LoadedModel) -> None:
    reference = Reference(model, task)
    other = disturbed(model, 0.03)
    for part in ("evaluation", "validation"):
        evaluation = evaluate(other, task, part=part, reference=reference)
        fresh = evaluate(other, task, part=part, reference=Reference(model, task))
        assert evaluation.measurements == fresh.measurements
        assert {m.part for m in evaluation.measurements} == {part}


def test_classification_has_a_kl_too() -> None:
    rows = {"text": [f"{'ab'[i % 2] * 5} {i}" for i in range(200)], "label": list("xy") * 100}
    task = TextClassification(rows)
    model = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    reference = Reference(model, task)
    other = disturbed(model, 0.05)
    evaluation = evaluate(other, task, reference=reference)
    assert [m.metric for m in evaluation.measurements] == ["accuracy", "macro_f1", "kl"]
    example = task.examples(model)[5]
    batch = batch_of(model, "evaluation", [example])
    with torch.no_grad():
        log_p = task.logits(model, batch).log_softmax(-1)
        log_q = task.logits(other, batch).log_softmax(-1)
    expected = float((log_p.exp() * (log_p - log_q)).sum())
    assert float(evaluation.outcomes["kl"][5]) == pytest.approx(expected, rel=1e-2, abs=1e-5)


def test_progress_is_reported_and_cancelling_stops_between_batches(
    task: LanguageModeling, model: LoadedModel
) -> None:
    seen: list[Progress] = []
    evaluate(model, task, limit=20, monitor=Monitor(seen.append))
    assert seen[-1].done == seen[-1].total == len(seen)
    assert {p.stage for p in seen} == {"evaluate"}
    started: list[Progress] = []
    monitor = Monitor(started.append, lambda: len(started) >= 1)
    with pytest.raises(CancelledError):
        task.evaluate(model, batch_size=1, monitor=monitor)
    assert len(started) == 1
