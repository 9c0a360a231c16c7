"""A classifier's own head: used where its classes are the labels, else said to be replaced."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.errors import ConfigError
from workbench.models.load import LoadedModel, load_model, save_model
from workbench.models.sources import read_headers
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.records import NOTES_FACT
from workbench.selection.cascades import Router
from workbench.study import Study
from workbench.tasks import TextClassification, task_from_dict
from workbench.tasks.base import Example, batch_of


def classifier(*names: str, **fields: Any) -> LoadedModel:
    hf_model = tiny_model("RobertaForSequenceClassification")
    if len(names) == 2:
        torch.nn.init.normal_(hf_model.classifier.out_proj.weight)
        hf_model.classifier.out_proj.weight.data = hf_model.classifier.out_proj.weight.data[:2]
        hf_model.classifier.out_proj.bias.data = hf_model.classifier.out_proj.bias.data[:2]
        hf_model.num_labels = 2
    hf_model.config.id2label = dict(enumerate(names))
    hf_model.config.label2id = {name: code for code, name in enumerate(names)}
    for name, value in fields.items():
        setattr(hf_model.config, name, value)
    return load_model(hf_model, tiny_tokenizer())


def made(labels: tuple[object, ...], n: int = 60, **options: Any) -> TextClassification:
    data = {
        "text": [f"some words and number {i}" for i in range(n)],
        "label": [labels[i % len(labels)] for i in range(n)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(data, **options)


def logits(task: TextClassification, model: LoadedModel) -> torch.Tensor:
    return task.logits(model, batch_of(model, "evaluation", [Example(0, 0, [5, 6, 7])]))


def own_logits(model: LoadedModel) -> torch.Tensor:
    return model.hf_model(input_ids=torch.tensor([[5, 6, 7]])).logits


@pytest.mark.parametrize(
    ("names", "labels", "label_map", "columns"),
    [
        (("NEGATIVE", "POSITIVE"), ("negative", "positive"), None, [0, 1]),
        (("POSITIVE", "NEGATIVE"), ("Negative", "Positive"), None, [1, 0]),
        (("LABEL_0", "LABEL_1"), (0, 1), None, [0, 1]),
        (("NEGATIVE", "POSITIVE"), (0, 1), "index", [0, 1]),
        (("POSITIVE", "NEGATIVE"), (0, 1), {0: "negative", 1: "positive"}, [1, 0]),
        (("LABEL_0", "LABEL_1"), ("bad", "good"), {"good": 0, "bad": "LABEL_1"}, [1, 0]),
        (("LABEL_0", "LABEL_1"), (0, 1), {"0": "LABEL_1", "1": "LABEL_0"}, [1, 0]),
    ],
)
def test_classes_that_are_the_labels(
    names: tuple[str, ...], labels: tuple[object, ...], label_map: Any, columns: list[int]
) -> None:
    model, task = classifier(*names), made(labels, label_map=label_map)
    before = model.fingerprint
    bound = task.bind(model)
    assert bound.head is None
    assert torch.equal(logits(task, bound), own_logits(model)[:, columns])
    assert task.notes(model, bound) == []
    assert model.fingerprint == before
    again = task.bind(bound)
    assert torch.equal(logits(task, again), own_logits(model)[:, columns])
    if label_map is not None:  # what is exported is called as it was measured
        names_now = bound.hf_model.config.id2label
        assert [names_now[code] for code in columns] == list(task.labels)


def test_fewer_labels_than_classes_leave_the_others_as_mistakes() -> None:
    model = classifier("a", "b", "c")
    task = made(("0", "1"), label_map={"0": "c", "1": "a"})
    bound = task.bind(model)
    assert torch.equal(logits(task, bound), own_logits(model)[:, [2, 0, 1]])
    assert bound.hf_model.config.id2label == {0: "1", 1: "b", 2: "0"}


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ("indices", "label_map='indices' is not accepted; give a mapping"),
        ({"0": "a"}, "label_map lacks the labels '1'"),
    ],
)
def test_a_map_that_cannot_be_one(label_map: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made((0, 1), label_map=label_map)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ("index", "as many labels as classes: the table has 2.*has 3"),
        ({0: "x", 1: "b"}, "'0' is the class 'x', which .* does not have; it has 0: 'a'"),
        ({0: "b", 1: "B"}, "gives the class 'b' to more than one label"),
    ],
)
def test_a_map_that_does_not_fit_the_model(label_map: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made((0, 1), label_map=label_map).bind(classifier("a", "b", "c"))


def test_the_map_is_stored_with_the_task(tmp_path: Path) -> None:
    task = made((0, 1), label_map={0: "NEGATIVE", 1: "POSITIVE"})
    back = task_from_dict(task.save(tmp_path), tmp_path)
    assert back.options["label_map"] == {"0": "NEGATIVE", "1": "POSITIVE"}
    assert back.fingerprint == task.fingerprint != made((0, 1)).fingerprint


def test_a_classifier_of_several_labels_per_text_is_refused() -> None:
    model = classifier("a", "b", "c", problem_type="multi_label_classification")
    with pytest.raises(ConfigError, match="several labels per text"):
        made(("a", "b", "c")).bind(model)


def test_a_replaced_head_is_said_in_run_and_table_and_is_not_exported(tmp_path: Path) -> None:
    model, task = classifier("NEGATIVE", "POSITIVE"), made((0, 1))
    study = Study(model, task, path=tmp_path / "study")
    with pytest.warns(UserWarning, match="is not used: its 2 classes .'NEGATIVE', 'POSITIVE'"):
        run = study.run([])
    (note,) = run.record.facts[NOTES_FACT]
    assert 'label_map="index"' in note
    assert "A new head on mean-pooled features was trained in its place" in note
    assert note in study.table()["notes"].iloc[0]
    exported = run.export(tmp_path / "out", "hf")
    back = load_model(exported.path)
    assert type(back.hf_model).__name__ == "RobertaModel"
    assert back.head is not None
    texts = ["one text", "another"]
    assert task.classify(back, texts) == task.classify(study.model(run), texts)


def test_a_replaced_head_is_not_saved_with_the_model(tmp_path: Path) -> None:
    task = made((0, 1))
    bound = task.bind(classifier("NEGATIVE", "POSITIVE"))
    small = compress(bound, Recipe.of(RTN(4, group_size=8))).model
    texts = ["one text", "another", "some words and number 7"]
    folder = save_model(bound, tmp_path / "model")
    assert not [
        name for name in read_headers([folder / "model.safetensors"]) if "classifier" in name
    ]
    assert task.classify(load_model(folder), texts) == task.classify(bound, texts)
    router = Router([small, bound], ("0", "1"), [0.5], bases=[bound, bound], sequence_length=64)
    router.save(tmp_path / "router")
    back = Router.load(tmp_path / "router")
    assert {type(model.hf_model).__name__ for model in back.models} == {"RobertaModel"}
    assert back.models[0].weights.keys() == {n.removeprefix("roberta.") for n in small.weights}
    for model, other in zip(back.models, router.models, strict=True):
        assert task.classify(model, texts) == task.classify(other, texts)
    assert back(texts) == router(texts)
    whole = load_model(save_model(bound, tmp_path / "whole", whole=True))
    assert whole.fingerprint == bound.fingerprint


def test_texts_that_are_cut_are_said() -> None:
    model, task = classifier("0", "1"), made((0, 1), sequence_length=10)
    (note,) = task.notes(model, task.bind(model))
    assert "60 of 60 texts (100 %) are cut at 10 tokens; they have 23 to 24" in note
    assert "give a larger sequence_length" in note
    assert made((0, 1), sequence_length=64).notes(model, model) == []
