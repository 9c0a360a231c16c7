"""Text classification: heads found and trained, parts, metrics, and known answers."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError, DataError
from workbench.models.load import ClassificationHead, LoadedModel, load_model, save_model
from workbench.tasks import TextClassification, task_from_dict
from workbench.tasks.base import Example, batch_of
from workbench.tasks.head import pooled_features, train_head
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.splits import PARTS

COLOURS = ("blue", "green", "red")


def frame(n: int = 150, labels: tuple[object, ...] = COLOURS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, n)
    noise = ["".join(rng.choice(list("abcdef"), rng.integers(3, 20))) for _ in range(n)]
    texts = [
        f"{COLOURS[c]} {COLOURS[c]} {x} {i}"
        for i, (c, x) in enumerate(zip(codes, noise, strict=True))
    ]
    return pd.DataFrame({"text": texts, "label": [labels[c] for c in codes]})


def encoder(architecture: str = "BertModel") -> LoadedModel:
    return load_model(tiny_model(architecture), tiny_tokenizer())


@pytest.fixture(scope="module")
def task() -> TextClassification:
    return TextClassification(frame())


@pytest.fixture(scope="module")
def bound(task: TextClassification) -> LoadedModel:
    return task.bind(encoder())


def share_of_reds(labels: np.ndarray, predictions: np.ndarray, which: str = "red") -> float:
    return float((predictions[labels == which] == which).mean())


share_of_reds.higher_is_better = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "architecture", ["BertModel", "LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM"]
)
def test_a_model_without_a_head_gets_one_and_is_not_changed(
    task: TextClassification, architecture: str
) -> None:
    model = encoder(architecture)
    before = model.fingerprint
    bound = task.bind(model)
    assert model.head is None
    assert model.fingerprint == before != bound.fingerprint
    assert bound.head is not None
    assert bound.head.labels == COLOURS
    assert task.bind(bound).head is bound.head
    assert task.estimate("accuracy", task.evaluate(bound)).value > 0.7


def test_the_head_is_saved_with_the_model(
    task: TextClassification, bound: LoadedModel, tmp_path: Path
) -> None:
    save_model(bound, tmp_path)
    back = task.bind(load_model(tmp_path))
    assert back.fingerprint == bound.fingerprint
    assert np.array_equal(task.evaluate(back)["prediction"], task.evaluate(bound)["prediction"])


def test_new_texts_get_the_labels_that_evaluated_ones_get(
    task: TextClassification, bound: LoadedModel
) -> None:
    texts = [row.text for row in task.rows["evaluation"]]
    codes = task.evaluate(bound)["prediction"]
    assert task.classify(bound, texts) == [task.labels[code] for code in codes]
    assert task.classify(bound, []) == []
    with pytest.raises(ConfigError, match="give a list of texts"):
        task.classify(bound, "one text")
    with pytest.raises(ConfigError, match="has no head"):
        task.classify(encoder(), texts)


def test_an_own_head_with_these_labels_is_used_whatever_their_order(
    task: TextClassification,
) -> None:
    hf_model = tiny_model("RobertaForSequenceClassification")
    hf_model.config.id2label = {0: "RED", 1: "Blue", 2: "green"}
    model = load_model(hf_model, tiny_tokenizer())
    bound = task.bind(model)
    assert bound.head is None
    batch = batch_of(model, "evaluation", [Example(0, 0, [5, 6, 7])])
    own = model.hf_model(input_ids=batch.input_ids).logits
    assert torch.equal(task.logits(bound, batch), own[:, [1, 2, 0]])


def test_an_own_head_with_other_labels_is_replaced(task: TextClassification) -> None:
    bound = task.bind(encoder("RobertaForSequenceClassification"))  # LABEL_0, LABEL_1, LABEL_2
    assert bound.head is not None
    numbers = TextClassification(frame(labels=(0, 1, 2)))
    assert numbers.labels == ("0", "1", "2")
    assert numbers.bind(encoder("RobertaForSequenceClassification")).head is None


def test_classes_that_the_task_does_not_have_come_last_and_count_as_wrong(
    bound: LoadedModel,
) -> None:
    two = TextClassification(frame(300).query("label != 'blue'"))
    assert two.bind(bound) is bound
    batch = batch_of(bound, "evaluation", [Example(0, 0, [5, 6, 7])])
    assert two.logits(bound, batch).shape == (1, 3)
    labels, predictions = np.array([0, 1]), np.array([0, 2])
    outcomes = Outcomes(
        {"label": labels, "prediction": predictions, "document": np.arange(2)}  # type: ignore[dict-item]
    )
    assert two.estimate("accuracy", outcomes).value == 0.5


def test_an_unbound_model_is_refused(task: TextClassification) -> None:
    with pytest.raises(ConfigError, match=r"task\.bind\(model\)"):
        task.evaluate(encoder())


def test_pooling_leaves_padding_out() -> None:
    model = encoder()
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        a, b = pooled_features(model, short), pooled_features(model, padded, mask)
    assert torch.allclose(a, b, atol=1e-5)


def test_the_head_does_not_depend_on_the_features_scale_and_offset() -> None:
    torch.manual_seed(0)
    labels = torch.arange(120) % 3
    features = torch.randn(120, 4) + 3 * torch.nn.functional.one_hot(labels, 4)
    validation = (features[:40], labels[:40])
    head = train_head(features[40:], labels[40:], COLOURS, validation=validation)
    moved = features * torch.tensor([1.0, 100.0, 0.01, 7.0]) + 50
    other = train_head(moved[40:], labels[40:], COLOURS, validation=(moved[:40], labels[:40]))
    assert isinstance(head, ClassificationHead)
    a = features @ head.weight.T + head.bias
    b = moved @ other.weight.T + other.bias
    assert torch.allclose(a.softmax(-1), b.softmax(-1), atol=0.02)
    assert float((a.argmax(-1) == labels).float().mean()) > 0.9


def test_a_constant_feature_and_a_label_without_rows_do_no_harm() -> None:
    features = torch.cat([torch.randn(30, 2), torch.ones(30, 1)], 1)
    labels = (features[:, 0] > 0).long()
    head = train_head(features, labels, COLOURS, validation=(features, labels))
    assert bool(torch.isfinite(head.weight).all() and torch.isfinite(head.bias).all())
    assert int((features @ head.weight.T + head.bias).argmax(-1).max()) <= 1


def test_a_feature_that_hardly_varies_gets_no_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    features = torch.randn(120, 6, generator=generator) + torch.nn.functional.one_hot(labels, 6)
    features[:, 5] = 1e-7 + 2e-9 * features[:, 0]
    head = train_head(features, labels, COLOURS, validation=(features, labels))
    norms = head.weight.norm(dim=0)
    assert norms[5] < 1e-2 * norms[:5].max()


def test_outcomes_have_labels_predictions_and_confidence(
    task: TextClassification, bound: LoadedModel
) -> None:
    outcomes = task.evaluate(bound)
    rows = task.rows["evaluation"]
    assert [task.labels[code] for code in outcomes["label"]] == [row.label for row in rows]
    confidence = outcomes["confidence"].astype(float)
    assert ((confidence >= 1 / 3 - 1e-6) & (confidence <= 1)).all()
    right = outcomes["label"] == outcomes["prediction"]
    assert np.allclose(confidence[right], np.exp(-outcomes["loss"].astype(float))[right], atol=1e-5)
    measured = {m.metric: m.value for m in task.measure(outcomes)}
    assert list(measured) == ["accuracy", "macro_f1"]
    assert measured["accuracy"] == pytest.approx(right.mean())


def test_rows_of_one_document_stay_in_one_part_and_one_cluster() -> None:
    data = frame().assign(ticket=[f"t{i // 5}" for i in range(150)])
    task = TextClassification(data, document="ticket")
    tickets = [{row.document for row in task.rows[part]} for part in PARTS]
    assert len(set.union(*tickets)) == sum(map(len, tickets))
    documents = [e.document for e in task.examples(encoder())]
    assert len(set(documents)) == len(tickets[2])


def test_parts_are_split_by_label_and_seed() -> None:
    task = TextClassification(frame(300))
    shares = [len(task.rows[part]) / 300 for part in PARTS]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    for part in PARTS:
        assert {row.label for row in task.rows[part]} == set(COLOURS)
    assert task.fingerprint == TextClassification(frame(300)).fingerprint
    assert task.fingerprint != TextClassification(frame(300), seed=1).fingerprint


def test_parts_given_as_files_and_as_a_dataset_dict(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = frame()
    data[:100].to_csv(tmp_path / "train.csv", index=False)
    data[100:].to_csv(tmp_path / "test.csv", index=False)
    task = TextClassification(tmp_path / "train.csv", evaluation=str(tmp_path / "test.csv"))
    assert task.name == "train"
    assert [row.text for row in task.rows["evaluation"]] == data["text"][100:].tolist()
    assert len(task.rows["calibration"]) + len(task.rows["validation"]) == 100
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_pandas(data[:100], preserve_index=False),
        test=datasets.Dataset.from_pandas(data[100:], preserve_index=False),
    )
    assert TextClassification(both).fingerprint == task.fingerprint
    by_part = TextClassification(calibration=data[:100], evaluation=data[100:])
    assert by_part.fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frame(3), "3 labelled rows are too few"),
        (frame().assign(label="same"), "All 150 rows have the label 'same'"),
        (frame().assign(label=range(150)), "150 different values in 150 rows"),
    ],
)
def test_unusable_tables(data: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextClassification(data)


def test_missing_parts_and_one_sided_parts() -> None:
    with pytest.raises(DataError, match="for the parts calibration, evaluation, validation"):
        TextClassification()
    data = frame()
    with pytest.raises(DataError, match="calibration part have one label"):
        TextClassification(
            calibration=data[data["label"] == "red"], validation=data[:50], evaluation=data[50:]
        )


def test_unseen_labels_few_rows_and_copies_are_warned_about() -> None:
    data = frame(100)
    with pytest.warns(UserWarning, match="part") as caught:
        task = TextClassification(
            calibration=data[data["label"] != "red"], evaluation=data[:20], validation=data[20:]
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    text = " ".join(task.warnings)
    assert "labels have no row in the calibration part ('red')" in text
    assert "has only 20 rows" in text
    assert "identical" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextClassification(frame()).warnings == ()


def test_at_most_so_many_rows_are_evaluated() -> None:
    task = TextClassification(frame(), max_evaluation_examples=11)
    model = encoder()
    examples = task.examples(model)
    assert len(examples) == 11
    assert len(task.examples(model, "calibration")) > 11
    assert len({e.index for e in examples}) == 11
    with pytest.raises(ConfigError, match="max_evaluation_examples=0"):
        TextClassification(frame(), max_evaluation_examples=0)


def test_calibration_rows_are_truncated_and_shuffled(task: TextClassification) -> None:
    model = encoder()
    windows = task.calibration_windows(model, sequence_length=10, seed=0)
    assert len(windows) == len(task.rows["calibration"])
    assert max(map(len, windows)) == 10
    assert windows == task.calibration_windows(model, sequence_length=10, seed=0)
    assert windows != task.calibration_windows(model, sequence_length=10, seed=1)


def test_an_own_metric_gets_names_or_numbers(bound: LoadedModel) -> None:
    task = TextClassification(frame(), metric=share_of_reds)
    assert task.primary.name == "share_of_reds"
    outcomes = task.evaluate(bound)
    red = outcomes["label"] == COLOURS.index("red")
    assert task.measure(outcomes)[0].value == pytest.approx(
        (outcomes["prediction"] == outcomes["label"])[red].mean()
    )
    assert task.measure(outcomes)[0].stderr is not None
    blue = TextClassification(frame(), metric=partial(share_of_reds, which="blue"))
    assert blue.primary.name == "share_of_reds"
    seen = []

    def remember(labels: np.ndarray, predictions: np.ndarray) -> float:
        seen.append(labels.dtype.kind)
        return 0.0

    numbers = TextClassification(frame(labels=(0, 1, 2)), metric=remember, higher_is_better=False)
    assert not numbers.primary.higher_is_better
    numbers.measure(outcomes)
    assert set(seen) == {"i"}


def test_a_saved_task_comes_back(tmp_path: Path, bound: LoadedModel) -> None:
    data = frame()
    task = TextClassification(data, metric=share_of_reds)
    back = task_from_dict(task.save(tmp_path), tmp_path)
    assert isinstance(back, TextClassification)
    assert back.fingerprint == task.fingerprint
    assert back.metrics == task.metrics
    a, b = task.evaluate(bound), back.evaluate(bound)
    assert all(np.array_equal(a[name], b[name], equal_nan=name == "kl") for name in a.columns)
