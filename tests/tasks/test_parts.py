"""Splits that have names become the parts that they stand for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import DataError
from workbench.tasks import Extraction, PromptAnswers, Summarization, TextClassification


def rows(name: str, n: int = 40) -> list[dict[str, str]]:
    return [{"text": f"{name} text {i}", "label": "ab"[i % 2]} for i in range(n)]


def made(source: Any, **options: Any) -> TextClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(source, **options)


def origins(task: TextClassification) -> dict[str, set[str]]:
    return {part: {row.text.split()[0] for row in found} for part, found in task.rows.items()}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "validation", "test"),
        ("TRAIN", "Val", "TEST"),
        ("training", "valid", "Eval"),
        ("Train", "dev", "evaluation"),
        ("calibration", "validation", "evaluation"),
        ("train", "eval", "test"),
    ],
)
def test_splits_are_recognised_by_name(train: str, validation: str, test: str) -> None:
    task = made({train: rows("one"), validation: rows("two"), test: rows("three")})
    assert origins(task) == {"calibration": {"one"}, "validation": {"two"}, "evaluation": {"three"}}


def test_a_single_split_is_split_and_that_is_said() -> None:
    datasets = pytest.importorskip("datasets")
    only = datasets.DatasetDict(test=datasets.Dataset.from_list(rows("one", 60)))
    task = made(only)
    assert origins(task) == {part: {"one"} for part in task.rows}
    assert any("only the split 'test'" in text for text in task.warnings)
    assert sum(map(len, task.rows.values())) == 60


def test_what_is_not_used_is_said_and_what_is_given_counts_first(tmp_path: Path) -> None:
    data = {"train": rows("one"), "test": rows("two"), "unlabelled": rows("three")}
    task = made(data)
    assert any("'unlabelled' is not used" in text for text in task.warnings)
    task = made(data, evaluation=rows("four"))
    assert origins(task)["evaluation"] == {"four"}
    assert any("'test'" in text and "not used" in text for text in task.warnings)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "val", "dev"), "'val' and 'dev' both stand for the validation part"),
        (("first", "second", "third"), "None of the splits 'first', 'second', 'third' is known"),
    ],
)
def test_splits_that_cannot_be_meant(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made({name: rows(name) for name in names})


def test_files_by_split_and_every_kind_of_task(tmp_path: Path) -> None:
    import pandas as pd

    for name in ("train", "val", "test"):
        pd.DataFrame(rows(name)).to_csv(tmp_path / f"{name}.csv", index=False)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "val", "test")}
    expected = {"calibration": {"train"}, "validation": {"val"}, "evaluation": {"test"}}
    assert origins(made(files)) == expected
    for task in (
        Extraction(files, fields="label"),
        Summarization(files, summary="label"),
        PromptAnswers(files, prompt="text", answer="label"),
    ):
        assert origins(task) == expected  # type: ignore[arg-type]
