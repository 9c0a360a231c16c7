"""A text in a batch is read as it is read alone, whatever tokenizer and configuration say."""

from __future__ import annotations

import copy
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError, StudyError
from workbench.models.load import LoadedModel, load_model
from workbench.recipes import RTN
from workbench.storage.store import JOURNAL_NAME
from workbench.study import Study
from workbench.tasks import TextClassification
from workbench.tasks.base import Example, batch_of
from workbench.tasks.head import pooled_features

COMMON: dict[str, Any] = {
    "vocab_size": 260,
    "num_labels": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "id2label": {0: "a", 1: "b", 2: "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
}
_DECODER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_ENCODER = {k: v for k, v in _DECODER.items() if k != "num_key_value_heads"}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "Llama": _DECODER,
    "Qwen2": _DECODER,
    "Mistral": {**_DECODER, "sliding_window": 8},
    "GPTNeoX": _ENCODER,
    "OPT": {
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "Bert": _ENCODER,
    "Roberta": {**_ENCODER, "max_position_embeddings": 66},
}
LENGTHS = (9, 3, 14, 1, 6, 9)


def classifier(name: str, pad: int | None) -> LoadedModel:
    config = getattr(transformers, f"{name}Config")(**COMMON, **CLASSIFIERS[name], pad_token_id=pad)
    torch.manual_seed(0)
    kind = getattr(transformers, f"{name}ForSequenceClassification")
    return load_model(kind(config).eval(), tiny_tokenizer())


def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    found = [torch.randint(4, 260, (n,), generator=generator).tolist() for n in LENGTHS]
    found[0][-1] = 2  # a text that ends with what padding may be
    found[2][-1] = 0
    return found


# RoBERTa's positions begin behind its padding, and only GPT-2 and GPT-NeoX can be built with -1.
PADDINGS = [(name, pad) for name in CLASSIFIERS for pad in (None, 0, 2, 5) if name != "Roberta"]
PADDINGS += [("Roberta", 0), ("Roberta", 1), ("GPT2", -1), ("GPTNeoX", -1)]


@pytest.mark.parametrize(("name", "pad"), PADDINGS)
def test_a_batch_gives_what_transformers_gives_alone(name: str, pad: int | None) -> None:
    model = classifier(name, pad)
    task = TextClassification({"text": [f"t {i}" for i in range(30)], "label": list("abc") * 10})
    tokens = rows()
    with torch.no_grad():
        alone = torch.cat([model.hf_model(input_ids=torch.tensor([row])).logits for row in tokens])
        batch = batch_of(model, "evaluation", [Example(i, i, row) for i, row in enumerate(tokens)])
        together = task.logits(task.bind(model), batch)
    assert model.hf_model.config.pad_token_id == pad
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["BertModel", "LlamaForCausalLM", "GPT2LMHeadModel", "T5EncoderModel"]
)
def test_features_of_a_padded_text_are_those_of_the_text(architecture: str) -> None:
    if architecture == "T5EncoderModel":
        config = transformers.T5Config(vocab_size=260, d_model=16, d_kv=8, d_ff=24, num_layers=2)
        hf_model: Any = transformers.T5EncoderModel(config)
    else:
        hf_model = tiny_model(architecture)
    hf_model.config.pad_token_id = 7
    model = load_model(hf_model, tiny_tokenizer())
    batch = batch_of(model, "evaluation", [Example(i, i, row) for i, row in enumerate(rows())])
    with torch.no_grad():
        together = pooled_features(model, batch.input_ids, batch.attention_mask)
        alone = [pooled_features(model, torch.tensor([row])) for row in rows()]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_labels_do_not_depend_on_the_batch_where_the_tokenizer_pads_otherwise() -> None:
    model = classifier("GPT2", 5)  # the tokenizer's is 0
    texts = [f"{'word ' * (i % 7)}number {i}" for i in range(24)]
    task = TextClassification({"text": texts, "label": list("abc") * 8})
    together = task.classify(model, texts)
    assert together == [task.classify(model, [text])[0] for text in texts]


@pytest.mark.parametrize("architecture", ["BertModel", "LlamaForCausalLM"])
def test_a_padding_that_was_added_to_the_tokenizer_alone_is_not_read(architecture: str) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 260
    hf_model = tiny_model(architecture)
    hf_model.config.pad_token_id = None
    model = load_model(hf_model, tokenizer)
    assert model.pad_token_id == tokenizer.eos_token_id
    texts = [f"text {'x' * (i % 9)}" for i in range(30)]
    task = TextClassification({"text": texts, "label": list("abc") * 10})
    assert len(task.evaluate(task.bind(model))) > 0
    with pytest.raises(ConfigError, match=r"token '\[PAD\]' \(260\).*embeds only 260.*resize"):
        task.classify(task.bind(model), ["a text with [PAD] in it", "another"])


def test_a_decoder_goes_on_after_its_end_without_reading_what_it_does_not_embed() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = load_model(tiny_model("GPT2LMHeadModel"), tokenizer)
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    written = model.write(ids, torch.ones_like(ids), max_new_tokens=8)
    assert int(written.max()) < 260


@pytest.mark.parametrize(("name", "marked"), [("GPT2", True), ("Bert", False)])
def test_runs_of_the_earlier_rule_are_marked_and_measured_again(
    name: str, marked: bool, tmp_path: Path
) -> None:
    texts = [f"{'word ' * (i % 7)}number {i}" for i in range(60)]
    task = TextClassification({"text": texts, "label": list("abc") * 20})
    with Study(classifier(name, 5), task, tmp_path / "study") as study:
        run = study.run(RTN(4, group_size=8))
        expected, id = run.metrics, run.id
    with sqlite3.connect(tmp_path / "study" / JOURNAL_NAME) as db:  # as a version before wrote it
        db.execute("UPDATE runs SET facts = json_remove(facts, '$.evaluation_version')")
        db.execute("UPDATE runs SET digest = NULL")
    db.close()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        study = Study.open(tmp_path / "study")
    assert any("2 runs of" in str(w.message) for w in said) == marked
    found = next(run for run in study.runs if run.id == id)
    assert all(np.isnan(value) == marked for value in found.metrics.values())
    if marked:
        assert "run the recipe again" in found.measurements[-1].how
        with pytest.raises(StudyError, match="is not a number"):
            study.choose(0.5)
    assert study.run(RTN(4, group_size=8)).metrics == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Study.open(tmp_path / "study").run(RTN(4, group_size=8)).metrics == expected
