"""Encoder-decoders on tasks of prompts and answers: tokens, scores, answers, refusals."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import transformers

from tests.tasks.test_generation import extraction, table
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import UnsupportedArchitectureError
from workbench.export.proof import prove
from workbench.models.load import load_model
from workbench.tasks import Extraction, LanguageModeling, PromptAnswers, TextClassification
from workbench.tasks.answering import answer_tokens, around_input
from workbench.tasks.base import batch_of
from workbench.tasks.generation import answer_in
from workbench.views.inspecting import example_texts


@pytest.fixture(scope="module", params=["T5", "BartForConditionalGeneration"])
def model(request):
    return load_model(tiny_model(request.param).eval(), tiny_tokenizer(), device="cpu")


def t5():
    return load_model(tiny_model("T5").eval(), tiny_tokenizer(), device="cpu")


def test_the_encoder_reads_the_prompt_and_the_decoder_predicts_the_target(model):
    task, tokenizer = extraction(shots=0), model.tokenizer
    examples = sorted(task.examples(model), key=lambda e: len(e.tokens))[::5]
    batch = batch_of(model, "evaluation", examples)
    start = model.hf_model.config.decoder_start_token_id
    for i, example in enumerate(examples):
        row = task.rows["evaluation"][example.index]
        given = batch.input_ids[i, : len(example.given)]
        assert tokenizer.decode(given) == task.prompt(row.text)
        assert tokenizer.decode(example.target) == f"{row.target}<eos>"
        assert batch.decoder_input_ids[i, : len(example.target)].tolist() == [
            start,
            *example.target[:-1],
        ]
    assert batch.attention_mask.sum(1).tolist() == [len(e.given) for e in examples]
    assert batch.decoder_attention_mask.sum(1).tolist() == [len(e.target) for e in examples]


def test_the_loss_is_that_of_transformers_and_of_the_target_alone(model):
    task = extraction(shots=0)
    outcomes = task.evaluate(model, limit=5)
    for row, example in enumerate(task.examples(model, limit=5)):
        labels = torch.tensor([example.target])
        with torch.no_grad():
            loss = model.hf_model(input_ids=torch.tensor([example.given]), labels=labels).loss
        assert outcomes["loss"][row] / outcomes["n_predictions"][row] == pytest.approx(
            float(loss), rel=1e-4
        )
        assert outcomes["n_predictions"][row] == len(example.target)


def test_what_is_written_is_what_one_text_alone_gets_whatever_the_batch(model):
    task = extraction(shots=0)
    together = task.answers(model, batch_size=4, limit=6)
    alone = task.answers(model, batch_size=1, limit=6)
    assert together == alone
    example = task.examples(model, limit=6)[0]
    said = model.generate(
        task.prompt(task.rows["evaluation"][example.index].text), max_new_tokens=8
    )
    assert alone[0] == answer_in(said, may_be_empty=False)


def test_padding_of_a_batch_does_not_move_the_positions_of_a_prompt(model, monkeypatch):
    task, seen = extraction(shots=0), []
    monkeypatch.setattr(
        type(model),
        "write",
        lambda _self, ids, mask, **_: seen.append((ids, mask)) or torch.full((len(ids), 1), 2),
    )
    task.answers(model)
    assert any(not mask.all() for _, mask in seen)
    for ids, mask in seen:
        assert (mask[:, 0] == 1).all()
        assert (mask.diff(dim=1) <= 0).all()
        assert ids.shape == mask.shape


def test_a_tokenizers_own_special_tokens_stand_around_the_prompt():
    from tokenizers.processors import TemplateProcessing

    model = t5()
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    assert around_input(model) == ([], [2])
    example = extraction(shots=0).examples(model)[0]
    assert example.given[-1] == 2
    assert example.target.count(2) == 1


def test_the_language_behind_the_end_of_a_target_is_no_answer():
    """mBART's targets are "text </s> language"; the language is what its decoder starts with."""
    from transformers import MBartTokenizer

    pieces = ("<s>", "<pad>", "</s>", "<unk>", "\u2581", "a", "\u2581a", "b")
    tokenizer = MBartTokenizer(vocab=[(piece, -1.0) for piece in pieces])
    model = dataclasses.replace(t5(), tokenizer=tokenizer)
    assert len(around_input(model)[1]) == 2
    tokens = answer_tokens(model, "a")
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokens[:-1] == tokenizer("a", add_special_tokens=False)["input_ids"]


def test_texts_that_do_not_fit_are_cut_and_the_answer_keeps_its_room():
    examples = extraction(shots=0, sequence_length=24).examples(t5())
    assert {len(e.given) for e in examples} == {24 - 8}
    assert all(0 < len(e.target) <= 8 for e in examples)


def test_prompts_with_answers():
    model = t5()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = PromptAnswers({"prompt": table()["text"], "answer": table()["name"]})
    assert task.bind(model) is model
    example = task.examples(model)[0]
    row = task.rows["evaluation"][example.index]
    assert model.tokenizer.decode(example.given) == row.text
    assert model.tokenizer.decode(example.target) == f"{row.label}<eos>"
    assert set(np.unique(task.evaluate(model)["exact"])) <= {0.0, 1.0}
    given = {e.n_given for e in task.calibration_examples(model, sequence_length=64, seed=0)}
    assert min(given) > 0


def test_a_prompt_and_its_answer_are_shown_as_two_texts():
    task, model = extraction(shots=0), t5()
    row = task.rows["evaluation"][0]
    texts = example_texts(task, model, [0])
    assert texts == {0: f"Text: {row.text} Answer: {row.target}"}


def test_refusals_name_what_works():
    model = t5()
    with pytest.raises(
        UnsupportedArchitectureError, match="Use Extraction, Summarization or PromptAnswers"
    ):
        LanguageModeling(["one two three " * 50] * 20).bind(model)
    labels = {"text": table()["text"], "label": table()["name"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = TextClassification(labels)
    with pytest.raises(UnsupportedArchitectureError, match="fields= the column of labels, or load"):
        task.bind(model)
    bart = load_model(tiny_model("BartForConditionalGeneration"), tiny_tokenizer(), device="cpu")
    with pytest.raises(UnsupportedArchitectureError, match=r"fields= the column of labels\."):
        task.bind(bart)


def test_a_model_without_a_head_that_writes_is_refused():
    config = tiny_model("BartForConditionalGeneration").config
    for kind in (transformers.BartModel, transformers.BartForSequenceClassification):
        model = load_model(kind(config).eval(), tiny_tokenizer(), device="cpu")
        with pytest.raises(UnsupportedArchitectureError, match="does not predict next tokens"):
            extraction(shots=0).bind(model)


def test_an_answer_of_no_tokens_is_no_obstacle():
    """Where a tokenizer has no end of text, the target of an empty field is empty."""
    model = t5()
    model.tokenizer.eos_token = None
    rows = table(12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Extraction({**rows, "name": [""] * 12}, fields="name", shots=0, max_new_tokens=2)
    outcomes = task.evaluate(model)
    assert set(outcomes["n_predictions"]) == {0}
    assert set(outcomes["loss"]) == {0.0}
    assert prove(model, model, task).n_logits == 0


def test_the_encoder_alone_classifies():
    whole = tiny_model("T5")
    encoder = transformers.T5EncoderModel(whole.config)
    encoder.load_state_dict(whole.state_dict(), strict=False)
    model = load_model(encoder, tiny_tokenizer(), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = TextClassification({"text": table()["text"], "label": table()["name"]})
    bound = task.bind(model)
    assert bound.head is not None
    assert len(task.evaluate(bound)) > 0
