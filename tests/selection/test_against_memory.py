"""Plans against the memory that models really take; slow, because each is run in a process."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_plans_agree_with_resident_memory_within_ten_percent(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from plan_vs_measured import compared

    found = compared("110M")
    assert {row["model"] for row in found["rows"]} == {"demo", "110M"}
    assert found["largest_error"] < 0.1, found
