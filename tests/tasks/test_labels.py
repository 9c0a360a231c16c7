"""Labels, ids and targets are text as written, in an order that is stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import DataError
from workbench.models.load import load_model
from workbench.tasks import Extraction, TextClassification, task_from_dict
from workbench.tasks.data import read_rows
from workbench.tasks.labels import UNORDERED
from workbench.tasks.splits import PARTS


def made(source: Any, **options: Any) -> TextClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(source, **options)


def table(labels: tuple[str, ...], n: int = 60) -> dict[str, list[str]]:
    return {
        "text": [f"text number {i}" for i in range(n)],
        "label": [labels[i % len(labels)] for i in range(n)],
    }


ORDERS = {
    "('007', '7')": {"7", "007"},
    "('01', '1', '2')": {"2", "1", "01"},
    "('B', 'a', 'b')": {"a", "b", "B"},
    "('-1', '9', '10')": {"10", "9", "-1"},
}


def test_the_order_of_labels_is_no_matter_of_hashes() -> None:
    code = "from workbench.tasks.labels import ordered_labels as order\n" + "\n".join(
        f"print(order({labels!r}))" for labels in ORDERS.values()
    )
    for seed in ("0", "1", "2", "3", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines() == list(ORDERS)
    for order, labels in ORDERS.items():
        assert str(made(table(tuple(labels))).labels) == order


def test_the_order_is_stored_and_older_studies_are_marked(tmp_path: Path) -> None:
    task = made(table(("7", "007")))
    saved = task.save(tmp_path)
    assert saved["labels"] == ["007", "7"]
    assert task_from_dict({**saved, "labels": ["7", "007"]}, tmp_path).labels == ("7", "007")
    old = {name: value for name, value in saved.items() if name not in ("labels", "reading")}
    assert UNORDERED in task_from_dict(old, tmp_path).warnings
    plain = made(table(("7", "8")))
    old = {k: v for k, v in plain.save(tmp_path).items() if k not in ("labels", "reading")}
    assert UNORDERED not in task_from_dict(old, tmp_path).warnings


@pytest.mark.parametrize(
    ("labels", "kind"), [(("007", "7"), "U"), (("0", "1"), "i"), (("+1", "-1"), "U")]
)
def test_an_own_metric_gets_labels_as_written(labels: tuple[str, ...], kind: str) -> None:
    seen: list[np.ndarray] = []

    def remember(wanted: np.ndarray, found: np.ndarray) -> float:
        seen.append(wanted)
        return float((wanted == found).mean())

    task = made(table(labels), metric=remember, higher_is_better=True)
    bound = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    outcomes = task.evaluate(bound)
    own = task.measure(outcomes)[0].value
    assert own == task.estimate("accuracy", outcomes).value
    assert {array.dtype.kind for array in seen} == {kind}
    if kind == "U":
        assert set(seen[0]) == set(labels)


def test_an_integer_beside_a_missing_value_stays_one(tmp_path: Path) -> None:
    ids = [2**60 + i for i in range(40)]
    rows = [
        {"text": f"t {i}", "label": "ab"[i % 2], "customer": None if i == 7 else ids[i]}
        for i in range(40)
    ]
    customers = pd.array([row["customer"] for row in rows], dtype="Int64")
    frame = pd.DataFrame({**table(("a", "b"), 40), "customer": customers})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    expected = ["" if i == 7 else str(ids[i]) for i in range(40)]
    for source in (
        *(tmp_path / f"t.{kind}" for kind in ("jsonl", "parquet", "csv")),
        frame,
        rows,
        pytest.importorskip("datasets").Dataset.from_list(rows),
        pytest.importorskip("polars").DataFrame(rows),
    ):
        found = read_rows(source, text="text", label="label", document="customer")
        assert [row.document for row in found] == expected, source
    lost = pd.DataFrame({**table(("a", "b"), 40), "customer": [float(i) for i in ids]})
    with pytest.raises(DataError, match=r"lost their last digits.*dtype=str"):
        read_rows(lost, text="text", label="label", document="customer")


def test_floats_that_were_integers_are_written_as_such() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "x"]})
    for values, texts in (
        ([3, 1, None], ["3", "1", ""]),
        ([3.0, 1.5, None], ["3.0", "1.5", ""]),
        ([True, False, None], ["True", "False", ""]),
        (["None", "nan", None], ["None", "nan", ""]),
        (["007", "NA", ""], ["007", "NA", ""]),
    ):
        rows = read_rows(
            frame.assign(more=values), text="text", label="label", document=None, more=["more"]
        )
        assert [row.more[0][1] for row in rows] == texts


def test_words_that_pandas_takes_for_missing_are_targets() -> None:
    names = ["None", "nan", "NULL", "n/a", None]
    data = {
        "text": [f"a text of {i}" for i in range(20)],
        "answer": [names[i % 5] for i in range(20)],
    }
    task = Extraction(data, shots=0)
    targets = {row.target for part in PARTS for row in task.rows[part]}
    assert targets == {"None", "nan", "NULL", "n/a", ""}


def test_json_keeps_numbers_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"text": "a", "label": 1.10, "n": 3}\n{"text": "b", "label": 1e3, "n": null}\n'
        '{"text": "c", "label": true, "n": 123456789012345678901}\n'
    )
    rows = read_rows(path, text="text", label="label", document="n")
    assert [(row.label, row.document) for row in rows] == [
        ("1.10", "3"),
        ("1e3", ""),
        ("true", "123456789012345678901"),
    ]
    path.write_text('{"text": "a", "label": "x", "label": "y"}\n')
    with pytest.raises(DataError, match="line 1: the name 'label' is there twice"):
        read_rows(path, text="text", label="label", document=None)


def test_half_a_character_is_found_and_a_whole_one_is_mended() -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    rows[3]["text"] = "half \ud83d"
    rows[5]["text"] = "whole \ud83d\ude00"
    with pytest.raises(DataError, match=r"1 of 40 rows have half a character .*U\+D83D.*row 4\)"):
        made(rows)
    task = made(rows, on_bad_rows="skip")
    texts = {row.text for part in PARTS for row in task.rows[part]}
    assert len(texts) == 39
    assert "whole 😀" in texts
    rows[3]["text"] = "fine"
    rows[4]["label"] = ["a", "b"]  # type: ignore[assignment]
    with pytest.raises(DataError, match="have a list, which is no text in the column 'label'"):
        made(rows)


def test_labels_that_differ_in_case_alone_are_two() -> None:
    task = made(table(("Spam", "spam", "ham"), 90))
    bound = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    assert bound.head is not None
    assert bound.head.labels == task.labels == ("Spam", "ham", "spam")
    assert len(task.evaluate(bound)) == len(task.rows["evaluation"])
