"""Reading the user's data, and what is said when it cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workbench.errors import DataError
from workbench.tasks.data import (
    Row,
    existing_path,
    read_rows,
    read_snapshot,
    read_texts,
    write_snapshot,
)

ROWS = [{"question": f"question {i}, indeed", "intent": "ab"[i % 2]} for i in range(12)]


def read(source: object, **options: Any) -> list[Row]:
    return read_rows(
        source, **({"text": "question", "label": "intent", "document": None} | options)
    )


def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "t.ndjson", orient="records", lines=True)
    frame.to_json(tmp_path / "t.json", orient="records")
    frame.to_parquet(tmp_path / "t.parquet")
    expected = [Row(row["question"], row["intent"], "") for row in ROWS]
    for source in (
        *(
            str(tmp_path / f"t.{kind}")
            for kind in ("csv", "tsv", "jsonl", "ndjson", "json", "parquet")
        ),
        tmp_path / "t.csv",
        frame,
        datasets.Dataset.from_list(ROWS),
        frame.to_dict("list"),
        ROWS,
    ):
        assert read(source) == expected, source


def test_labels_that_look_missing_to_pandas_are_labels(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("question,intent\nhello,None\nbye,NA\n07,007\n")
    assert [row.label for row in read(file)] == ["None", "NA", "007"]


def test_names_of_a_datasets_class_labels_are_used() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"question": datasets.Value("string"), "intent": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"question": ["a", "b"], "intent": [1, 0]}, features=features)
    assert [row.label for row in read(data)] == ["yes", "no"]


def test_numbers_and_a_byte_order_mark(tmp_path: Path) -> None:
    frame = pd.DataFrame({"question": ["a", "b"], "intent": [1.0, 0.0]})
    assert [row.label for row in read(frame)] == ["1", "0"]
    file = tmp_path / "t.csv"
    file.write_bytes("\ufeffquestion,intent\nä,x\n".encode())
    assert read(file) == [Row("ä", "x", "")]


def test_an_unknown_column_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no column 'Question'.*Did you mean 'question'"):
        read(ROWS, text="Question")
    with pytest.raises(DataError, match=r"it has 'question', 'intent'. Did you mean 'intent'"):
        read(ROWS, label="intents")


@pytest.mark.parametrize("name", [None, True, 1.5, ["intent"]])
def test_what_cannot_name_a_column(name: object) -> None:
    with pytest.raises(DataError, match=r"label=.* is not accepted.*'question', 'intent'"):
        read(ROWS, label=name)


def test_columns_whose_names_are_numbers() -> None:
    frame = pd.DataFrame({0: ["a", "b"], 1: ["x", "y"]})
    expected = [Row("a", "x", ""), Row("b", "y", "")]
    assert read(frame, text="0", label="1") == expected
    assert read(frame, text=0, label=1) == expected
    with pytest.raises(DataError, match="no column 'question'; it has '0', '1'"):
        read(frame)
    with pytest.raises(DataError, match="no column '1'"):
        read(ROWS, label=1)


def test_columns_of_one_name_are_not_chosen_from() -> None:
    frame = pd.DataFrame([["a", "x", "y"]], columns=["question", "intent", "intent"])
    with pytest.raises(DataError, match="2 columns called 'intent'; rename or remove"):
        read(frame)


def test_an_encoding_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,intent\na,x\n")
    with pytest.raises(DataError, match=r'encoding=3 is not accepted.*"utf-8"'):
        read(tmp_path / "t.csv", encoding=3)


def test_advice_on_a_missing_file_fits_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text of more than one line"):
        read_texts(str(tmp_path / "t.txt"))
    with pytest.raises(DataError, match="or a table in memory"):
        read(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.ndjson", "t.JSON", "t.parquet"])
def test_a_table_is_never_read_as_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("question,intent\na,x\n")
    for source in (tmp_path / name, [str(tmp_path / name)]):
        with pytest.raises(DataError, match=r"pandas\.read_.*\.tolist\(\).*TextClassification"):
            read_texts(source)


def test_missing_labels_are_counted_and_located() -> None:
    rows = [dict(row) for row in ROWS]
    rows[2]["intent"] = None  # type: ignore[assignment]
    rows[5]["intent"] = "  "
    with pytest.raises(DataError, match=r"2 of 12 rows .* 'intent' \(row 3, 6\).*dropna"):
        read(rows)
    with pytest.raises(DataError, match="1 of 2 rows"):
        read(pd.DataFrame({"question": ["a", float("nan")], "intent": ["x", "y"]}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"question,intent\n", "no rows"),
        ("t.csv", b'question,intent\n"a,b\nc,d,e,f', "cannot be read as csv"),
        ("t.jsonl", b'{"question": "a"\n', "cannot be read as jsonl: line 1: "),
        ("t.jsonl", b'{"question": "a"}\n\n{"question"}\n', "line 3: Expecting ':'"),
        ("t.jsonl", b'{"question": "a"}\n[1, 2]\n', r"line 2: \[1, 2\] is not an object"),
        ("t.ndjson", b"3\n", "read as ndjson: line 1: 3 is not an object"),
        ("t.json", b'[{"question": "a"},\n{"question"}]', r"line 2, column 12: .*list of records"),
        ("t.json", b'{"question": "a"}\n{"question": "b"}\n', r"name the file \.jsonl"),
        ("t.json", b"[1, 2]", "a list with 1 in it"),
        ("t.json", b"3", "holds no table"),
        ("t.json", b'{"question": "a"}', "holds no table"),
        ("t.parquet", b"no parquet", "not a Parquet file"),
        ("t.xlsx", b"PK", "not an Excel file"),
        ("t.xls", b"PK", "not a kind of table.* Save it as .xlsx"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_another_encoding_can_be_given(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes("question,intent\nstraße,x".encode("latin-1"))
    rows = read_rows(file, text="question", label="intent", document=None, encoding="latin-1")
    assert rows[0].text == "straße"
    with pytest.raises(DataError, match="no encoding"):
        read_rows(file, text="question", label="intent", document=None, encoding="latin-99")


@pytest.mark.parametrize("source", [3, None, "just some words"])
def test_what_is_no_table(source: object) -> None:
    with pytest.raises(DataError, match="is not a table; give the path"):
        read(source)


def test_a_string_is_a_file_a_text_or_an_error(tmp_path: Path, monkeypatch: object) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("content")
    assert existing_path(str(file)) == file
    assert existing_path("text one") is None
    assert existing_path("It ends like a file.txt\nbut has two lines") is None
    assert existing_path("word " * 300) is None
    assert existing_path("He said yes. Then no.") is None
    for missing in ("corpsu.txt", "my corpus.txt", "data/corpus", "~/nothing", "report.docx"):
        with pytest.raises(DataError):
            existing_path(missing)
    with pytest.raises(DataError, match=r"Did you mean '.*corpus\.txt'"):
        existing_path(str(tmp_path / "corpsu.txt"))
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        existing_path(str(tmp_path / "nowhere" / "corpus.txt"))
    with pytest.raises(DataError, match="nothing is downloaded"):
        existing_path("https://example.org/corpus.txt")


def test_texts_from_files_folders_and_strings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Text a")
    (tmp_path / "b.md").write_text("Text b")
    (tmp_path / "c.bin").write_bytes(b"\xff\x00")
    expected = [("a.txt", "Text a"), ("b.md", "Text b")]
    assert read_texts(tmp_path) == expected
    assert read_texts([str(tmp_path / "a.txt"), tmp_path / "b.md"]) == expected
    assert read_texts(["one text", "two texts"]) == [
        ("text 0", "one text"),
        ("text 1", "two texts"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "A int is not text"),
        ([], "list of texts is empty"),
        (["fine", 3], "Item 1 of the list is a int"),
        ("", "Text is empty"),
        ({"a": "b"}, r"A dict is a table, not text.*list\(data\["),
        (pd.DataFrame(ROWS), r'DataFrame is a table.*\(data\["text"\]\.tolist\(\)\).*TextClass'),
        (ROWS, r'A list is a table.*\[row\["text"\] for row in data\]'),
    ],
)
def test_what_is_no_text(source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_texts(source)


def test_unreadable_text_files(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("straße".encode("latin-1"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is empty"):
        read_texts(tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"not text in utf-8 .* give encoding='cp1252'"):
        read_texts(tmp_path / "latin.txt", "utf-8")
    notes: list[str] = []
    for encoding in ("latin-1", None):
        assert read_texts(tmp_path / "latin.txt", encoding, notes) == [("latin.txt", "straße")]
    assert len(notes) == 1
    assert "was read as cp1252, which is a guess" in notes[0]
    with pytest.raises(DataError, match=r"no \.txt or \.md"):
        read_texts(tmp_path / "folder")


def test_a_snapshot_is_read_as_written_and_is_the_same_bytes(tmp_path: Path) -> None:
    rows = [
        {"text": "line\u2028 one\n", "n": 1},
        {"text": "ä\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "n": 2},
    ]
    write_snapshot(tmp_path / "a.gz", rows)
    write_snapshot(tmp_path / "b.gz", rows)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert list(read_snapshot(tmp_path / "a.gz")) == rows
    (tmp_path / "a.gz").write_bytes((tmp_path / "b.gz").read_bytes()[:-20])
    for name in ("a.gz", "missing.gz"):
        with pytest.raises(DataError, match="give the task again"):
            list(read_snapshot(tmp_path / name))
    assert json.dumps(rows)
