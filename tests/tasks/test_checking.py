"""The data check counts what is there, and names what is doubtful."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import workbench as wb
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import DataError
from workbench.models.load import load_model
from workbench.tasks import columns


def messy(path: Path, n: int = 1000, empty: int = 151) -> Path:
    """Write a table as a spreadsheet program saves it in Western Europe."""
    generator = random.Random(0)
    without = set(generator.sample(range(n), empty))
    lines = ["Nr;Bemerkung;Text;Kategorie"]
    for i in range(n):
        label = "" if i in without else ("Rechnung", "Störung", "Kündigung")[i % 3]
        note = "geprüft" if i % 10 == 0 else ""
        lines.append(f"{i:05d};{note};Guten Tag, hier ist Müller, Fall {i}, danke;{label}")
    path.write_bytes("\r\n".join(lines).encode("latin-1"))
    return path


def test_a_messy_table_is_read_and_checked(tmp_path: Path) -> None:
    path = messy(tmp_path / "tickets.csv")
    check = wb.data_check(path)
    assert (check.text, check.label) == ("Text", "Kategorie")
    assert check.rows == 849
    assert check.empty == {"Kategorie": 151}
    assert set(check.classes) == {"Rechnung", "Störung", "Kündigung"}
    assert sum(check.classes.values()) == 849
    (table,) = check.reading
    assert (table["encoding"], table["delimiter"]) == ("cp1252", ";")
    said = str(check)
    assert "151 rows cannot be used: 151 have nothing in the column 'Kategorie'" in said
    assert "is not UTF-8 and was read as cp1252" in said
    assert json.dumps(check.to_dict())
    with pytest.raises(DataError, match=r"151 of 1000 rows have nothing in the column 'Kategorie'"):
        wb.TextClassification(path, text="Text", label="Kategorie")
    with pytest.warns(UserWarning, match="151 of 1000 rows are left out"):
        task = wb.TextClassification(
            path, text="Text", label="Kategorie", document="Nr", on_bad_rows="skip"
        )
    assert {row.document[:2] for row in task.rows["calibration"]} == {"00"}


def test_duplicates_overlap_long_texts_and_suspicions() -> None:
    train = [{"text": f"text {i} {'word ' * (i % 20)}", "label": "ab"[i % 2]} for i in range(40)]
    train += [{"text": "Text 3  word word word", "label": "a"}, {"text": "more", "label": "A"}]
    train += [{"text": "seven", "label": "7"}, {"text": "bond", "label": "007"}]
    for number, row in enumerate(train):
        row["customer"] = f"{number:03d}"
    train[-1]["customer"] = "1"
    model = load_model(tiny_model("BertModel"), tiny_tokenizer())
    check = wb.data_check(
        {"train": train, "test": train[:5]}, document="customer", model=model, sequence_length=50
    )
    assert check.parts == {"evaluation": 5, "all": 44}
    assert check.duplicates == 6
    assert check.contradictions == 1
    assert check.long_texts is not None
    lengths = [len(model.tokenizer(row["text"])["input_ids"]) for row in [*train, *train[:5]]]
    assert check.long_texts.count == sum(length > 50 for length in lengths)
    assert check.long_texts.longest == max(lengths)
    said = " ".join(check.problems)
    assert "'A' and 'a'" in said
    assert "'007' and '7'" in said
    assert "'001' and '1'" in said
    parts = wb.data_check(calibration=train, evaluation=train[:5], text="text", label="label")
    assert "5 of 5 evaluation texts also occur in calibration" in parts.overlap[0]


def test_nothing_doubtful() -> None:
    rows = {"text": [f"text {i}" for i in range(40)], "label": ["x", "y"] * 20}
    check = wb.data_check(rows)
    assert check.problems == ()
    assert str(check).endswith("nothing is doubtful")


@pytest.mark.parametrize(
    ("table", "label"),
    [
        (
            {"text": ["a long text"] * 9, "note": [""] * 8 + ["x"], "kind": list("ababababa")},
            "kind",
        ),
        ({"id": list("123456789"), "text": ["a long text"] * 9, "y": list("ababababa")}, "y"),
        ({"label": list("aaabbbccc"), "text": ["a long text"] * 9, "lang": ["en"] * 9}, "label"),
        ({"label": [""] * 9, "text": ["a long text"] * 9, "kind": list("aaabbbccc")}, "kind"),
    ],
)
def test_the_likeliest_label_column_is_guessed(table: dict[str, list[str]], label: str) -> None:
    assert columns.guess_text(table) == "text"
    assert columns.guess_label(table) == label
