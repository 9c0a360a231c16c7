"""What is wrong with a user's CSV is said with what to do about it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from workbench.errors import DataError
from workbench.tasks import TextClassification

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
            GOOD.replace("text 1,", "straße,").encode("latin-1"),
            {},
            'not text in utf-8 .* Save it as UTF-8, or give its encoding, such as.*"latin-1"',
        ),
        (GOOD.encode("utf-16"), {}, 'encoding="utf-16"'),
        ("text,label\nx,a\ny,b\nz,a\n", {}, "3 labelled rows are too few .* give at least 10"),
        (
            GOOD.replace(",", ";"),
            {},
            r"separated by ';'. Read it with data = pandas.read_csv\(…, sep=';'\) and give data",
        ),
        ("", {}, "is empty"),
    ],
    ids=[
        "labels",
        "one class",
        "typo",
        "column",
        "latin-1",
        "utf-16",
        "3 rows",
        "semicolon",
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


def test_the_same_file_in_order_is_a_task(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text(GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 40 rows are few
        assert TextClassification(path).labels == ("a", "b")
