"""Cutting documents, dealing them out, and finding what occurs twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks.splits import (
    FEW_DOCUMENTS,
    PARTS,
    cut_documents,
    deal,
    overlap,
    split_articles,
    split_blocks,
)

WIKI = "\n = First = \n\n Text.\n\n = = Section = = \n\n More.\n\n = Second = \n\n Text.\n"


def test_articles_are_split_at_titles_and_not_at_sections() -> None:
    articles = split_articles(WIKI)
    assert len(articles) == 2
    assert "Section" in articles[0]
    assert "".join(articles) == WIKI


@given(st.text(alphabet="ab .\n\r\u2028é", max_size=400), st.integers(1, 50))
def test_blocks_lose_nothing(text: str, size: int) -> None:
    assert "".join(split_blocks(text, size)) == text


def test_blocks_end_at_blank_lines_and_have_a_bounded_size() -> None:
    paragraph = "A line of words.\n" * 10 + "\n"
    blocks = split_blocks(paragraph * 100, 1000)
    assert all(block.endswith("\n\n") for block in blocks)
    assert all(500 <= len(block) < 1700 for block in blocks)
    assert max(map(len, split_blocks("word " * 10_000, 1000))) <= 4000


def test_many_documents_are_kept_and_few_are_cut() -> None:
    many = [(f"d{i}", "Text.\n\n" * 2000) for i in range(FEW_DOCUMENTS)]
    assert cut_documents(many) == many
    cut = cut_documents(many[:2])
    assert len(cut) >= FEW_DOCUMENTS
    assert cut[0][0] == "d0 [1]"
    assert "".join(text for _, text in cut) == "Text.\n\n" * 4000


def test_texts_of_one_name_are_not_mixed_up() -> None:
    texts = [("a.txt", "one " * 200), ("a.txt", "two " * 200)]
    assert "".join(text for _, text in cut_documents(texts)) == "one " * 200 + "two " * 200


def test_dealing_is_deterministic_complete_and_by_share() -> None:
    sizes = [10] * 1000
    shares = {"calibration": 0.4, "validation": 0.2, "evaluation": 0.4}
    parts = deal(sizes, shares, seed=3)
    assert parts == deal(sizes, shares, seed=3)
    assert parts != deal(sizes, shares, seed=4)
    assert sorted(i for part in parts.values() for i in part) == list(range(1000))
    assert [len(parts[part]) for part in shares] == [400, 200, 400]


def test_every_part_gets_something() -> None:
    parts = deal([1000, 1, 1], {"a": 0.4, "b": 0.2, "c": 0.4}, seed=0)
    assert all(len(chosen) == 1 for chosen in parts.values())


def test_copies_between_parts_are_found_whatever_case_and_spaces() -> None:
    findings = overlap(
        {
            "calibration": ["The quick fox", "Other"],
            "evaluation": ["the  QUICK fox\n", "Unlike", "Not the same"],
        }
    )
    assert len(findings) == 1
    assert findings[0].startswith(
        "1 of 3 evaluation texts also occur in calibration (1 identical); remove the copies"
    )


def test_all_pairs_of_parts_are_in_one_sentence() -> None:
    findings = overlap({part: ["Same"] for part in PARTS})
    assert len(findings) == 1
    assert findings[0].count("1 of 1") == 3
    assert findings[0].count("remove the copies") == 1


def test_a_mostly_shared_text_is_found() -> None:
    lines = [f"This is line number {i}, long enough to be telling on its own." for i in range(20)]
    other = [f"And line number {i} of another text is nothing like the first." for i in range(20)]
    findings = overlap(
        {"calibration": ["\n".join(lines)], "evaluation": ["\n".join(lines[:15] + other[:5])]}
    )
    assert "1 mostly shared" in findings[0]
    assert not overlap(
        {"calibration": ["\n".join(lines)], "evaluation": ["\n".join(lines[:5] + other[:15])]}
    )
