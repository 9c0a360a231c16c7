"""What the README shows exists: names of the package, and methods of studies and runs."""

import re
from pathlib import Path

import pytest

import workbench as wb

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.S) + re.findall(r"`([^`\n]+)`", TEXT))


def names(pattern: str) -> set[str]:
    return set(re.findall(pattern, CODE))


def test_names_of_the_package() -> None:
    shown = names(r"\bwb\.(\w+)")
    assert {"Study", "GPTQ", "Workbench"} <= shown
    assert shown <= set(wb.__all__)


@pytest.mark.parametrize(("variable", "kind"), [("study", "Study"), ("run", "Run")])
def test_methods(variable: str, kind: str) -> None:
    shown = names(rf"\b{variable}\.(\w+)\(")
    assert len(shown) > 2
    assert {name for name in shown if not hasattr(getattr(wb, kind), name)} == set()


def test_files() -> None:
    shown = names(r"\b((?:benchmarks|notebooks|tests)/[\w./-]+)")
    assert {name for name in shown if not (Path(__file__).parent.parent / name).exists()} == set()


def test_tables_have_a_head() -> None:
    # a row behind an empty line begins a new table, and without a rule below is shown as text
    heads = re.findall(r"\n\n(\|.*\n.*)\n", TEXT)
    assert len(heads) > 3
    assert [head for head in heads if not re.search(r"\n\|[-|]+$", head)] == []
