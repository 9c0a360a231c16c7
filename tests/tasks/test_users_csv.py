"""What is wrong with a user's CSV is said with what to do about it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import DataError
from workbench.tasks import TextClassification
from workbench.tasks.splits import PARTS

GOOD = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40))


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            GOOD.replace("text 3,b", "text 3,").replace("text 9,b", "text 9, "),
            {},
            r"2 of 40 rows have nothing in the column 'label' \(row 4, 10\).*dropna",
        ),
        (
            GOOD.replace(",b\n", ",a\n"),
            {},
            "All 40 rows have the label 'a'.*at least two labels. Is 'label' the right column",
        ),
        (
            GOOD,
            {"label": "lable"},
            "no column 'lable'; it has 'text', 'label'. Did you mean",
        ),
        (GOOD, {"label": "zzz"}, r"no column 'zzz'.* Say which one, as in label='text'"),
        (
            GOOD.replace("text 1,", "it\x92s,").encode("latin-1"),
            {"encoding": "utf-8"},
            "not text in utf-8 .byte 0x92 .* looks like cp1252: give encoding='cp1252', or save",
        ),
        ("text,label\nx,a\ny,b\nz,a\n", {}, "3 labelled rows are too few .* give at least 10"),
        ("", {}, "is empty"),
    ],
    ids=[
        "labels",
        "one class",
        "typo",
        "column",
        "cp1252",
        "3 rows",
        "empty",
    ],
)
def test_what_is_wrong_and_what_to_do(
    tmp_path: Path, content: str | bytes, options: dict[str, str], words: str
) -> None:
    path = tmp_path / "tickets.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words):
        TextClassification(path, **options)


def made(path: Path, **options: Any) -> TextClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 40 rows are few
        return TextClassification(path, **options)


def texts(task: TextClassification) -> list[str]:
    return sorted(row.text for part in PARTS for row in task.rows[part])


def test_the_same_file_in_order_is_a_task(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text(GOOD)
    task = made(path)
    assert task.labels == ("a", "b")
    (table,) = task.reading["tables"]
    assert table["rows"] == 40
    assert (table["encoding"], table["delimiter"], table["header"]) == ("utf-8", ",", True)


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace(",", ";").replace("text 1;", "straße, und: “Hallo”, 5 €;").encode("cp1252"),
        GOOD.replace("text 1,", '"straße, und: “Hallo”, 5 €",').encode("utf-16"),
        GOOD.replace(",", "\t").replace("text 1\t", "straße, und: “Hallo”, 5 €\t").encode(),
        (
            "sep=|\n" + GOOD.replace(",", "|").replace("text 1|", "straße, und: “Hallo”, 5 €|")
        ).encode("utf-8-sig"),
        GOOD.replace("\n", "\r\n")
        .replace("text 1,", '"straße, und: “Hallo”, 5 €",')
        .encode("utf-16-le"),
    ],
    ids=["semicolons cp1252", "utf-16", "tabs", "sep=", "utf-16-le without a mark"],
)
def test_encoding_and_delimiter_are_detected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tickets.csv"
    path.write_bytes(content)
    expected = sorted(["straße, und: “Hallo”, 5 €", *(f"text {i}" for i in range(40) if i != 1)])
    assert texts(made(path)) == expected


def test_a_guessed_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_bytes(GOOD.replace("text 1,", "it’s,").encode("cp1252"))
    task = made(path)
    assert "it’s" in texts(task)
    assert any("was read as cp1252, which is a guess" in text for text in task.warnings)
    assert not any("guess" in text for text in made(path, encoding="cp1252").warnings)


@pytest.mark.parametrize("mark", [",", "\t"])
def test_two_stray_quotes_swallow_nothing(tmp_path: Path, mark: str) -> None:
    lines = ["text,label", *(f"text {i},{'ab'[i % 2]}" for i in range(200))]
    lines[40] = '"' + lines[40]
    lines[150] = lines[150].replace(",", '",')
    path = tmp_path / ("t.csv" if mark == "," else "t.tsv")
    path.write_text("\n".join(lines).replace(",", mark))
    task = made(path)
    assert len(texts(task)) == 200
    said = " ".join(task.warnings)
    assert "line 41" in said
    assert "quotes are read as characters like any other; nothing is left out" in said


def test_a_field_of_two_lines_with_a_comma_is_no_stray_quote(tmp_path: Path) -> None:
    """As in banking77: a text whose closing quote is on a line of its own."""
    rows = GOOD.splitlines()
    rows[3] = '"Somebody paid with my card, or so it says.\n",a'
    rows[5] = '"One, two, and three\nlines, of which\nnone is a row",b'
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    task = made(tmp_path / "rows.csv")
    assert "Somebody paid with my card, or so it says." in [text.strip() for text in texts(task)]
    assert len(texts(task)) == 40
    assert not any("quote" in text for text in task.warnings)


def test_stray_quotes_among_quoted_fields_are_refused(tmp_path: Path) -> None:
    lines = ["text,label", *(f'"text, {i}",{"ab"[i % 2]}' for i in range(200))]
    lines[40] = '"text, 39,b'
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 41 has a quote .*on_bad_rows=\"skip\""):
        TextClassification(path)
    task = made(path, on_bad_rows="skip")
    assert len(texts(task)) == 199
    assert task.reading["on_bad_rows"] == "skip"
    assert [line for line, _ in task.reading["tables"][0]["skipped"]] == [41]
    assert any("1 of 200 rows are left out" in text for text in task.warnings)


def test_texts_of_several_lines_are_one_row(tmp_path: Path) -> None:
    content = GOOD.replace("text 1,", '"Dear John,\nthank you, for all\n\nYours, Ada",')
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert "Dear John,\nthank you, for all\n\nYours, Ada" in texts(made(path))
    path.write_text(GOOD.replace("text 1,", '"one, two\nthree, four\nfive, six\n",'))
    assert "one, two\nthree, four\nfive, six\n" in texts(made(path))


def test_rows_with_more_fields_than_names_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(GOOD.replace("text 3,b", "text, 3,b").replace("text 9,b", "text, 9,b"))
    with pytest.raises(DataError, match="line 5 has 3 fields where the header has 2; line 11 has"):
        TextClassification(path)
    assert len(texts(made(path, on_bad_rows="skip"))) == 38
    path.write_text(GOOD.replace("\n", ",\n").replace("text,label,", "text,label"))
    assert len(texts(made(path))) == 40  # delimiters at the end, with nothing behind them


def test_empty_labels_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(GOOD.replace("text 3,b", "text 3,").replace("text 9,b", "text 9"))
    with pytest.raises(DataError, match=r"2 of 40 rows .*\(row 4, 10\), line 5, 11 of the file"):
        TextClassification(path)
    task = made(path, on_bad_rows="skip")
    assert task.labels == ("a", "b")
    assert [line for line, _ in task.reading["tables"][0]["skipped"]] == [5, 11]
    with pytest.raises(DataError, match="on_bad_rows='drop' is not accepted"):
        TextClassification(path, on_bad_rows="drop")


def test_a_file_without_names_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(GOOD.removeprefix("text,label\n"))
    with pytest.raises(DataError, match=r"no column 'text'; it has '0', '1'.*looks like data"):
        TextClassification(path)
    assert len(texts(made(path, text="0", label="1"))) == 40
    assert len(texts(made(path, text=0, label=1, header=False))) == 40


def test_repeated_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(GOOD.replace("text,label\n", "text,label,label\n").replace("b\n", "b,a\n"))
    with pytest.raises(DataError, match=r"2 columns called 'label'.*has 'text', 'label', 'label'"):
        TextClassification(path)


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_packed_files_are_read(tmp_path: Path, packing: str) -> None:
    opener = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[packing]
    path = tmp_path / f"tickets.csv.{packing}"
    with opener(path, "wb") as stream:
        stream.write(GOOD.encode())
    task = made(path)
    assert task.name == "tickets"
    assert len(texts(task)) == 40
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="cannot be read"):
        TextClassification(path)


def test_excel_keeps_what_its_cells_show(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["text", "label"])
    for number in range(40):
        sheet.append([f"text {number}", "007" if number % 2 else 7])
    for row in range(2, 42, 2):
        sheet.cell(row, 2).number_format = "00"
    book.save(tmp_path / "t.xlsx")
    assert made(tmp_path / "t.xlsx").labels == ("007", "07")
    with pytest.raises(DataError, match="no sheet 'Two'; it has 'Sheet'"):
        TextClassification(tmp_path / "t.xlsx", sheet="Two")
